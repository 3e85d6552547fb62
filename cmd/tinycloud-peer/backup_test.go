package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
)

// TestRestoredBackup backs a peer up while it runs, loses what it wrote later, and starts it from the backup:
// it signs nothing before that came back from the other peer, and nobody sees a fork.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	a, b := g.nodes.Peers()[0], g.nodes.Peers()[1]
	large := strings.Repeat("large values are linked. ", 100_000)
	g.put(a, "before", "1")
	g.put(a, "large", large)
	g.run(a, "CREATE TABLE t(v)")
	g.run(a, "INSERT INTO t VALUES('before')")
	g.same()
	data, backup := filepath.Join(a.Dir, "data"), filepath.Join(a.Dir, "backup")
	local := admin.Local(data)
	defer local.Close()
	written, err := local.Backup(g.ctx, backup)
	g.must(err)
	if written.Values != 1 || written.Linked != 1 || written.Bytes != int64(len(large)) {
		t.Errorf("%+v", written)
	}
	if _, err := os.Stat(filepath.Join(backup, "sql")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files of databases in the backup: %v", err)
	}
	if _, err := local.Backup(g.ctx, backup); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("a second backup to the same place: %v", err)
	}
	for _, key := range []string{"after/1", "after/2", "before"} {
		g.put(a, key, "later")
	}
	g.same()
	g.must(a.Stop())
	g.must(b.Stop())
	g.must(os.Rename(data, data+".lost"))
	g.must(os.Rename(backup, data))
	g.must(a.Start(g.ctx))
	if err := g.owner.Put(g.ctx, a, "early", []byte("1")); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a write before its own entries came back: %v", err)
	}
	if _, err := g.owner.TrySignIn(g.ctx, a); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a delegation before its own entries came back: %v", err)
	}
	g.must(b.Start(g.ctx))
	g.same()
	g.put(a, "again", "2")
	v := g.same()
	g.reads("before", "later", a, b)
	g.run(a, "INSERT INTO t VALUES('after')")
	g.rows("SELECT v FROM t", `[["before"],["after"]]`, a, b) // the files are made anew
	g.reads("large", large, a, b)
	if v.Keys != 5 {
		t.Errorf("%d keys", v.Keys)
	}
	for _, p := range g.nodes.Peers() {
		v, err := p.Admin.Space(g.ctx, g.owner.Space)
		g.must(err)
		for _, h := range v.Hosts {
			if h.Forked {
				t.Errorf("%s sees a fork of %s", p.Name, h.DID)
			}
		}
	}
}
