package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// insert has a peer insert a key beside so many bytes, and reports whether it was acknowledged.
func (g *group) insert(p *cluster.Peer, key string, size int) (ok bool, a cluster.Answer, err error) {
	a, err = g.ask(p, "write", map[string]any{"action": "execute", "sql": "INSERT INTO own VALUES(?, zeroblob(?))", "params": []any{key, size}})
	return err == nil && a.Status == http.StatusOK, a, err
}

// has checks that a peer has the keys that were acknowledged, and returns how many others it has.
func (g *group) has(p *cluster.Peer, acknowledged map[string]bool) (others int) {
	g.Helper()
	a, err := g.ask(p, "read", map[string]any{"action": "query", "sql": "SELECT key FROM own"})
	g.must(err)
	var rows struct{ Rows [][]string }
	if err := json.Unmarshal([]byte(a.Body), &rows); err != nil || a.Status != http.StatusOK {
		g.Fatalf("%s: rows: %d %.200s", p.Name, a.Status, a.Body)
	}
	there := map[string]bool{}
	for _, row := range rows.Rows {
		there[row[0]] = true
	}
	for key := range acknowledged {
		if !there[key] {
			g.Errorf("%s has lost %s, which was acknowledged", p.Name, key)
		}
	}
	return len(there) - len(acknowledged)
}

// A host is killed at any moment while it writes, follows another host that writes before it in the order, folds and goes back:
// what it acknowledged is there, and it comes to the same as the other. SQL_KILLS says how often.
func TestSQLKilled(t *testing.T) {
	t.Parallel()
	rounds := scale(t, "SQL_KILLS", 2)
	g := startGroup(t, 0)
	g.longer(rounds)
	a, b := g.add(), g.add()
	g.write(a, "CREATE TABLE own(key TEXT PRIMARY KEY, v BLOB)")
	g.rows("SELECT count(*) FROM own", "[[0]]", b)
	all := map[string]bool{}
	for round := range rounds {
		acknowledged := map[string]bool{}
		var mu sync.Mutex
		var count atomic.Int64
		enough, killed := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(enough) })
		var wg sync.WaitGroup
		for w := range 8 {
			p, who := a, fmt.Sprint("a ", round, " ", w)
			if w >= 6 {
				p, who = b, fmt.Sprint("b ", round, " ", w)
			}
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-killed:
						return
					case <-g.ctx.Done():
						return
					default:
					}
					size := 3000
					if n%4 == 3 {
						size = 300_000
					}
					key := fmt.Sprint(who, " ", n)
					if ok, answer, err := g.insert(p, key, size); !ok {
						if err == nil && answer.Status != http.StatusServiceUnavailable {
							t.Errorf("%s: %d %s", p.Name, answer.Status, answer.Body)
						}
						continue
					}
					mu.Lock()
					acknowledged[key] = true
					mu.Unlock()
					if count.Add(1) >= int64(100+20*(round%5)) {
						once()
					}
				}
			})
		}
		select {
		case <-enough:
		case <-g.ctx.Done():
			t.Fatal(g.ctx.Err())
		}
		g.must(a.Kill())
		close(killed)
		wg.Wait()
		g.must(a.Start(g.ctx))
		maps.Copy(all, acknowledged)
		g.same()
		g.has(a, all)
		g.has(b, all)
	}
	g.sameDatabase(a, b)
	t.Logf("%d writes acknowledged, all there", len(all))
	for _, p := range g.nodes.Peers() {
		g.must(p.Stop())
		g.verb(p, "verify")
	}
}

// The disk fails under the files of a database, and not under the history: what is acknowledged is in the history, nothing wrong is
// answered, and once the disk is well all goes on without a restart.
func TestSQLFailingDisk(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		calls string
		files []string
	}{
		"writes to the log":  {"pwrite64", []string{"base.db-wal"}},
		"writes to marks":    {"pwrite64,write", []string{"marks", "marks.tmp"}},
		"syncs of the base":  {"fsync,fdatasync", []string{"base.db", "base.db-wal.tmp", "sums.tmp"}},
		"reads of the files": {"pread64,read", []string{"base.db", "base.db-wal"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, p := single(t)
			g.write(p, "CREATE TABLE own(key TEXT PRIMARY KEY, v BLOB)")
			acknowledged := map[string]bool{}
			insert := func(when string, n int) (refused int) {
				for i := range n {
					key := fmt.Sprint(when, " ", i)
					ok, answer, err := g.insert(p, key, 700_000)
					switch {
					case ok:
						acknowledged[key] = true
					case err != nil || answer.Status != http.StatusServiceUnavailable:
						t.Errorf("%s: %d %s %v", key, answer.Status, answer.Body, err)
					default:
						refused++
					}
				}
				return refused
			}
			if refused := insert("before", 10); refused > 0 {
				t.Errorf("%d refused before", refused)
			}
			dirs, err := filepath.Glob(filepath.Join(p.Dir, "data", "sql", "*", "*"))
			if err != nil || len(dirs) != 1 {
				t.Fatal(dirs, err)
			}
			var files []string
			for _, f := range tt.files {
				files = append(files, filepath.Join(dirs[0], f))
			}
			end := g.inject(p, tt.calls, files...)
			refused := insert("during", 25) // more than the log takes before it is folded
			a, err := g.ask(p, "read", map[string]any{"action": "query", "sql": "SELECT count(*) FROM own"})
			if want := fmt.Sprintf(`"rows":[[%d]]}`, len(acknowledged)); err != nil || a.Status != http.StatusServiceUnavailable && (a.Status != http.StatusOK || a.Body[len(a.Body)-len(want):] != want) {
				t.Errorf("a query meanwhile: %d %s %v, want %s", a.Status, a.Body, err, want)
			}
			end()
			if after := insert("after", 3); after > 0 {
				t.Errorf("%d refused afterwards", after)
			}
			if others := g.has(p, acknowledged); others != 0 {
				t.Errorf("%d rows that were refused", others)
			}
			g.must(p.Kill())
			g.must(p.Start(g.ctx))
			g.has(p, acknowledged)
			t.Logf("%d acknowledged, %d refused", len(acknowledged), refused)
		})
	}
}
