package transfer_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
)

// write puts values, or deletes where the value is nil, as the owner's session does.
func (o *old) write(d *node.Data, key string, value *string) {
	o.t.Helper()
	ability := "tinycloud.kv/put"
	op := kv.Op{Space: o.space, Key: key, Delete: value == nil}
	if value == nil {
		ability = "tinycloud.kv/del"
	} else {
		staged, err := d.Blocks.Stage(o.t.Context(), strings.NewReader(*value), 1<<30)
		must(o.t, err)
		op.Value, op.Size = staged.Hash(), staged.Size()
		if b, small := staged.Bytes(); small {
			op.Inline = b
			staged.Discard()
		} else {
			must(o.t, staged.Commit(o.t.Context(), o.space))
		}
	}
	grant := o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: time.Now().Add(time.Hour),
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/del"}},
	})
	tok, err := capstore.ParseDelegation(grant)
	must(o.t, err)
	_, err = d.Store.Delegate(o.t.Context(), tok)
	must(o.t, err)
	inv, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/kv/" + key: {ability}}, Proofs: []tinycloud.Hash{captest.ID(grant)},
	}))
	must(o.t, err)
	_, err = kv.Of(d.Store).Write(o.t.Context(), inv, []kv.Op{op}, nil)
	must(o.t, err)
}

func usage(t testing.TB, d *node.Data, space tinycloud.SpaceID) int64 {
	t.Helper()
	n, err := d.Store.Usage(t.Context(), space)
	must(t, err)
	return n
}

// TestCollect overwrites and deletes: the quota follows at once, the files with the collection, and nothing
// else goes.
func TestCollect(t *testing.T) {
	cfg, o := filled(t)
	with(t, cfg, func(d *node.Data) {
		start := usage(t, d, o.space)
		big, other := repeat("big ", 100_000), repeat("other ", 100_000)
		o.write(d, "a", &big)
		o.write(d, "b", &big)
		if got := usage(t, d, o.space) - start; got != 400_000 {
			t.Errorf("two keys with one value: %d", got)
		}
		o.write(d, "a", &other)
		o.write(d, "b", nil)
		o.write(d, "twice", nil) // its value is that of k/0 too
		if got := usage(t, d, o.space) - start; got != 600_000 {
			t.Errorf("after an overwrite and a delete: %d", got)
		}
		stray := largeFile(cfg, o.space, tinycloud.Sum([]byte("stray")))
		must(t, os.WriteFile(stray, []byte("stray"), 0o600))
		foreign := filepath.Join(cfg.Storage.Blocks.Path, "pkh:eip155:1:0x0000000000000000000000000000000000000001", "default")
		must(t, os.MkdirAll(foreign, 0o700))
		must(t, os.WriteFile(filepath.Join(foreign, filepath.Base(stray)), nil, 0o600))
		freed, unknown, err := transfer.Collect(t.Context(), d, io.Discard)
		if err != nil || freed.Values != 2 || freed.Bytes != 400_005 || len(unknown) != 1 {
			t.Errorf("freed %+v, unknown %v, %v", freed, unknown, err)
		}
		if freed, _, err = transfer.Collect(t.Context(), d, io.Discard); err != nil || freed.Values != 0 {
			t.Errorf("freed again: %+v, %v", freed, err)
		}
		if got, _ := read(t, d, o.space, "k/0"); got != "third" {
			t.Errorf("k/0: %q", got)
		}
		if got, _ := read(t, d, o.space, "a"); got != other {
			t.Errorf("a: %d bytes", len(got))
		}
		u, err := d.Blocks.Usage(t.Context(), o.space)
		if err != nil || u.Bytes != 3_200_000+100_000+600_000 {
			t.Errorf("files: %+v, %v", u, err)
		}
		o.write(d, "a", &big) // freed before
		if got, _ := read(t, d, o.space, "a"); got != big {
			t.Errorf("a: %d bytes", len(got))
		}
	})
	if found := verify(t, cfg); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

func TestCompact(t *testing.T) {
	cfg, o := filled(t)
	with(t, cfg, func(d *node.Data) {
		value := repeat("x", 60_000)
		for i := range 20 {
			v := value + string(rune('a'+i))
			o.write(d, "k", &v)
		}
		o.write(d, "k", nil)
		path := cfg.Storage.Database.Path()
		freed, err := transfer.Compact(t.Context(), d, path, path+"-wal")
		if err != nil || freed < 60_000 {
			t.Errorf("freed %d, %v", freed, err)
		}
		again := "again"
		o.write(d, "k", &again)
	})
	if found := verify(t, cfg); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

// TestSnapshot copies the database of stores in use.
func TestSnapshot(t *testing.T) {
	cfg, o := filled(t)
	backup := settings(t, "")
	with(t, cfg, func(d *node.Data) {
		must(t, os.MkdirAll(filepath.Dir(backup.Storage.Database.Path()), 0o700))
		must(t, d.Store.Snapshot(t.Context(), backup.Storage.Database.Path()))
		later := "later"
		o.write(d, "later", &later)
	})
	db, err := os.ReadFile(cfg.SecretFile())
	must(t, err)
	must(t, os.WriteFile(backup.SecretFile(), db, 0o600))
	with(t, backup, func(d *node.Data) {
		if got, _ := read(t, d, o.space, "later"); got != "(none)" {
			t.Errorf("later: %q", got)
		}
		if got, _ := read(t, d, o.space, "k/0"); got != "third" {
			t.Errorf("k/0: %q", got)
		}
	})
}

// TestReadOfOverwritten reads values whose keys were overwritten after their records were found.
func TestReadOfOverwritten(t *testing.T) {
	cfg, o := filled(t)
	with(t, cfg, func(d *node.Data) {
		for key, size := range map[string]int{"k/0": len("third"), "race": 3, "large": 3_200_000} {
			r, err := kv.Of(d.Store).Get(t.Context(), o.space, key)
			must(t, err)
			size = max(size, int(r.Size))
			next := "next " + key
			o.write(d, key, &next)
			v, err := kv.Of(d.Store).Open(t.Context(), o.space, r)
			must(t, err)
			b, err := io.ReadAll(v)
			must(t, err)
			must(t, v.Close())
			if len(b) != size || tinycloud.Sum(b) != r.Value {
				t.Errorf("%s: %d bytes of %d", key, len(b), size)
			}
		}
	})
}
