package transfer_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// takeOver takes data over into a node.
func takeOver(t testing.TB, to *node.Data, where config.Database, key *[32]byte, blocks string) ([]transfer.Outcome, *transfer.Findings) {
	t.Helper()
	out, odd, err := tryTakeOver(t.Context(), to, where, key, blocks, io.Discard)
	must(t, err)
	return out, odd
}

func tryTakeOver(ctx context.Context, to *node.Data, where config.Database, key *[32]byte, blocks string, log io.Writer) ([]transfer.Outcome, *transfer.Findings, error) {
	from, err := reference.Open(ctx, where, key)
	if err != nil {
		return nil, nil, err
	}
	o := &transfer.TakeOver{From: from, Blocks: reference.Dir(blocks), To: to, Log: log}
	out, err := o.Run(ctx)
	return out, &o.Odd, errors.Join(err, from.Close())
}

func file(t testing.TB, path string) config.Database {
	t.Helper()
	where, err := config.ParseDatabase("sqlite:" + path)
	must(t, err)
	return where
}

// read returns the value of a key; "(none)" without one.
func read(t testing.TB, d *node.Data, space tinycloud.SpaceID, key string) (string, map[string]string) {
	t.Helper()
	r, err := kv.Of(d.Store).Get(t.Context(), space, key)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return "(none)", nil
	}
	must(t, err)
	v, err := d.Store.Value(t.Context(), space, r.Value)
	if errors.Is(err, tinycloud.ErrUnavailable) {
		return "(unavailable)", r.Metadata
	}
	must(t, err)
	b, err := io.ReadAll(v)
	must(t, errors.Join(err, v.Close()))
	return string(b), r.Metadata
}

// TestRecordedNodes takes over what the running reference left behind, with its secret: every epoch
// recomputes and is valid, and every key answers as it did there.
func TestRecordedNodes(t *testing.T) {
	for _, tt := range []struct {
		version           string
		epochs, filtered  int
		wrong, deleg, new int
	}{{"1.0.0", 87, 28, 1, 0, 0}, {"1.16.0", 36, 0, 0, 0, 1}} {
		t.Run(tt.version, func(t *testing.T) {
			data := untar(t, tt.version)
			cfg := settings(t, recordedSecret)
			with(t, cfg, func(d *node.Data) {
				out, odd := takeOver(t, d, file(t, filepath.Join(data, "caps.db")), columnKey(t), filepath.Join(data, "blocks"))
				var read, added, all int64
				for _, x := range out {
					if !x.Hosted || x.Void != 0 {
						t.Errorf("%+v", x)
					}
					read, added, all = read+x.Read, added+x.New, all+x.Epochs
				}
				if read != int64(tt.epochs) || added != read || all != read+int64(tt.new) {
					t.Errorf("%d epochs read, %d added, %d there", read, added, all)
				}
				if odd.Count(transfer.FoundFiltered) != tt.filtered || odd.Count(transfer.FoundWrongBlock) != tt.wrong ||
					odd.Len() != tt.filtered+tt.wrong {
					odd.Print(t.Output())
					t.Error("odd")
				}
				checkServed(t, d, tt.version)
			})
			with(t, cfg, func(d *node.Data) { // again
				out, _ := takeOver(t, d, file(t, filepath.Join(data, "caps.db")), columnKey(t), filepath.Join(data, "blocks"))
				for _, x := range out {
					if x.New != 0 || x.Values != 0 || !x.Hosted {
						t.Errorf("again: %+v", x)
					}
				}
				checkServed(t, d, tt.version)
			})
		})
	}
}

func checkServed(t *testing.T, d *node.Data, version string) {
	t.Helper()
	for _, s := range readServed(t, version) {
		space, err := tinycloud.ParseSpaceID(s.Space)
		must(t, err)
		body, err := base64.StdEncoding.DecodeString(s.Body)
		must(t, err)
		want := string(body)
		if s.Status == 404 {
			want = "(none)"
		}
		got, meta := read(t, d, space, s.Key)
		if got != want || meta["content-type"] != s.Type {
			t.Errorf("%s: %q %v, want %q %s", s.Key, got, meta, want, s.Type)
		}
		for name, value := range meta {
			if !kv.IsMetadata(name, value) {
				t.Errorf("%s: shows %s", s.Key, name)
			}
		}
	}
}

func TestEncryptedWithoutSecret(t *testing.T) {
	data := untar(t, "1.16.0")
	where := file(t, filepath.Join(data, "caps.db"))
	for _, key := range []*[32]byte{nil, {1}} {
		if _, err := reference.Open(t.Context(), where, key); !errors.Is(err, reference.ErrEncrypted) {
			t.Errorf("with key %v: %v", key, err)
		}
	}
	if _, err := reference.Open(t.Context(), file(t, filepath.Join(t.TempDir(), "none.db")), nil); err == nil {
		t.Error("opened a database that is not there")
	}
}

// checkOld checks what old.fill wrote.
func checkOld(t *testing.T, d *node.Data, space tinycloud.SpaceID, race string) {
	t.Helper()
	for key, want := range map[string]string{
		"k/0": "third", "k/1": "(none)", "k/2": "value 7", "k/3": "value 3", "k/4": "value 4", "race": race, "twice": "third",
	} {
		if got, meta := read(t, d, space, key); got != want || meta["cookie"] != "" {
			t.Errorf("%s: %q %v, want %q", key, got, meta, want)
		}
	}
	for key, size := range map[string]int{"large": 3_200_000, "medium": 100_000} {
		if got, _ := read(t, d, space, key); len(got) != size {
			t.Errorf("%s: %d bytes %.40s", key, len(got), got)
		}
	}
}

// winner is the value of the race that has the greater epoch.
func (o *old) winner() string {
	var value []byte
	must(o.t, o.db.QueryRowContext(context.Background(), "SELECT value FROM kv_write WHERE key = 'race' ORDER BY seq DESC, epoch DESC LIMIT 1").Scan(&value))
	if h := tinycloud.Sum([]byte("one")); string(value) == string(id34(h)) {
		return "one"
	}
	return "other"
}

// TestOwnKeys takes a node's data over with other keys: nothing is served until the owner delegates the
// Space to this host; then all of it is, and a peer agrees.
func TestOwnKeys(t *testing.T) {
	o, where := newFileOld(t)
	o.host("did:key:z6MkiZDbnWyQ1hbsHzc7hnsgZncX885W7quPdTTCPnYoDovY")
	o.fill()
	cfg := settings(t, "")
	with(t, cfg, func(d *node.Data) {
		out, odd := takeOver(t, d, where, nil, o.blocks)
		if len(out) != 1 || out[0].Hosted || d.Store.Hosted(o.space) || odd.Len() != odd.Count(transfer.FoundFiltered) {
			odd.Print(t.Output())
			t.Fatalf("%+v", out)
		}
	})
	with(t, cfg, func(d *node.Data) { // after a restart
		delegate(t, d, o)
		checkOld(t, d, o.space, o.winner())
		st, err := d.Store.Status(t.Context(), o.space)
		if err != nil || st.Void != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		with(t, settings(t, ""), func(peer *node.Data) {
			delegate(t, peer, o)
			exchange(t, peer, d, o.space)
			exchange(t, d, peer, o.space)
			got, err := peer.Store.Status(t.Context(), o.space)
			must(t, err)
			st, err := d.Store.Status(t.Context(), o.space)
			must(t, err)
			if got.Void != 0 || got.StateHash != st.StateHash || got.Keys != 8 {
				t.Errorf("peer: %+v, want %+v", got, st)
			}
		})
	})
}

func delegate(t testing.TB, d *node.Data, o *old) {
	t.Helper()
	tok, err := capstore.ParseDelegation(o.wallet.SignHost(o.space, hostkeys.DIDKey(publicKey(d, o.space))))
	must(t, err)
	_, err = d.Store.Delegate(t.Context(), tok)
	must(t, err)
}

// exchange brings what one store lacks from another, as replication does.
func exchange(t testing.TB, to, from *node.Data, space tinycloud.SpaceID) {
	t.Helper()
	theirs, err := from.Store.Tips(t.Context(), space)
	must(t, err)
	have, _, err := to.Store.Have(t.Context(), space, theirs)
	must(t, err)
	must(t, from.Store.Missing(t.Context(), space, have, 4096, func(b hostlog.Bundle) error {
		a, err := to.Store.Apply(context.Background(), space, []hostlog.Bundle{b})
		if err == nil && a.Covered != 1 {
			err = errors.New("not applied")
		}
		return err
	}))
}

// TestDamagedRows takes over what is left of a node whose rows are damaged: the rest keeps its values.
func TestDamagedRows(t *testing.T) {
	for _, tt := range []struct{ name, query, what string }{
		{"an invocation is lost", "DELETE FROM invocation WHERE id = (SELECT invocation FROM kv_write WHERE key = 'k/3')", transfer.FoundEmpty},
		{"an invocation is altered", "UPDATE invocation SET serialization = x'6565' WHERE id = (SELECT invocation FROM kv_write WHERE key = 'k/3')", transfer.FoundRebuilt},
		{"an epoch has no id", "UPDATE epoch SET id = x'00' WHERE seq = 5", transfer.FoundOrphan},
		{"an event has no id", "UPDATE event_order SET event = x'' WHERE seq = 5", transfer.FoundEmpty},
		{"parents are lost", "DELETE FROM epoch_order WHERE child = (SELECT id FROM epoch WHERE seq = 6)", transfer.FoundRebuilt},
		{"a write is lost", "DELETE FROM kv_write WHERE key = 'k/3'", transfer.FoundRebuilt},
		{"metadata is no object", "UPDATE kv_write SET metadata = '[' WHERE key = 'k/3'", transfer.FoundRebuilt},
		{"a value has no hash", "UPDATE kv_write SET value = x'01' WHERE key = 'k/3'", transfer.FoundRebuilt},
		{"a space has no id", "INSERT INTO space VALUES ('tinycloud:/../x')", "space whose id is none"},
		{"a parent is of another type", "UPDATE epoch_order SET parent = 7 WHERE child = (SELECT id FROM epoch WHERE seq = 6)", transfer.FoundRebuilt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, where := newFileOld(t)
			cfg := settings(t, "")
			with(t, cfg, func(d *node.Data) {
				o.host(hostkeys.DIDKey(publicKey(d, o.space)))
				o.fill()
				o.exec(tt.query)
				out, odd := takeOver(t, d, where, nil, o.blocks)
				if odd.Count(tt.what) == 0 || len(out) != 1 {
					odd.Print(t.Output())
					t.Errorf("%+v", out)
				}
				for key, want := range map[string]string{"k/2": "value 7", "k/4": "value 4", "k/0": "third", "k/1": "(none)"} {
					if got, _ := read(t, d, o.space, key); got != want {
						t.Errorf("%s: %q, want %q", key, got, want)
					}
				}
				again, _ := takeOver(t, d, where, nil, o.blocks)
				if again[0].New != 0 {
					t.Errorf("again: %+v", again)
				}
			})
		})
	}
}

// TestDamagedBlocks tells of blocks that are not there or are others.
func TestDamagedBlocks(t *testing.T) {
	o, where := newFileOld(t)
	with(t, settings(t, ""), func(d *node.Data) {
		o.host(hostkeys.DIDKey(publicKey(d, o.space)))
		o.fill()
		space := reference.Space{ID: o.space, Text: o.space.String()}
		dir := reference.Dir(o.blocks)
		must(t, os.Remove(dir.Where(space, tinycloud.Sum([]byte("value 3")))))
		must(t, os.WriteFile(dir.Where(space, tinycloud.Sum([]byte("value 4"))), []byte("short"), 0o600))
		_, odd := takeOver(t, d, where, nil, o.blocks)
		if odd.Count(transfer.FoundNoBlock) != 1 || odd.Count(transfer.FoundWrongBlock) != 1 {
			odd.Print(t.Output())
			t.Error("odd")
		}
		wants, err := d.Store.Wants(t.Context(), o.space, 100)
		wants = slices.DeleteFunc(wants, func(w hostlog.Want) bool { return w.Past }) // of a conflict
		if err != nil || len(wants) != 1 || wants[0].Hash != tinycloud.Sum([]byte("value 3")) {
			t.Errorf("wanted: %+v, %v", wants, err)
		}
		must(t, d.Store.Hurry(t.Context(), o.space))
		wants, _ = d.Store.Wants(t.Context(), o.space, 100)
		if wants = slices.DeleteFunc(wants, func(w hostlog.Want) bool { return w.Past }); len(wants) != 1 {
			t.Errorf("wanted after a hurry: %+v", wants)
		}
		if m, err := d.Blocks.Manifest(t.Context(), o.space, tinycloud.Sum([]byte("value 4"))); err == nil && len(m.Links) > 0 {
			t.Errorf("peers are told of another value: %+v", m)
		}
		if got, _ := read(t, d, o.space, "k/4"); got != "short" {
			t.Errorf("k/4: %q", got)
		}
	})
}

// TestPostgres takes the same data over from a PostgreSQL server.
func TestPostgres(t *testing.T) {
	db, where := newServer(t)
	o := newOld(t, db, true)
	cfg := settings(t, "")
	with(t, cfg, func(d *node.Data) {
		o.host(hostkeys.DIDKey(publicKey(d, o.space)))
		o.fill()
		out, odd := takeOver(t, d, where, nil, o.blocks)
		if len(out) != 1 || !out[0].Hosted || out[0].Void != 0 || odd.Len() != odd.Count(transfer.FoundFiltered) {
			odd.Print(t.Output())
			t.Errorf("%+v", out)
		}
		checkOld(t, d, o.space, o.winner())
	})
}

// stopAfter cancels after some lines of progress, wherever that is.
type stopAfter struct {
	n    int
	stop func()
}

func (s *stopAfter) Write(p []byte) (int, error) {
	if s.n--; s.n == 0 {
		s.stop()
	}
	return len(p), nil
}

// TestKilled interrupts the takeover of two histories at every transaction: the next goes on, and the end is
// the same.
func TestKilled(t *testing.T) {
	o, where := newFileOld(t)
	o.host("did:key:z6MkiZDbnWyQ1hbsHzc7hnsgZncX885W7quPdTTCPnYoDovY")
	o.fill()
	want := ""
	for stop := range 12 {
		cfg := settings(t, "")
		with(t, cfg, func(d *node.Data) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			from, err := reference.Open(ctx, where, nil)
			must(t, err)
			blocks := &killer{Blocks: reference.Dir(o.blocks), n: stop, stop: cancel}
			x := &transfer.TakeOver{From: from, Blocks: blocks, To: d, Log: &stopAfter{n: stop + 1, stop: cancel}}
			_, err = x.Run(ctx)
			if err == nil && stop == 0 {
				t.Error("not interrupted")
			}
			must(t, from.Close())
		})
		with(t, cfg, func(d *node.Data) {
			takeOver(t, d, where, nil, o.blocks)
			delegate(t, d, o)
			checkOld(t, d, o.space, o.winner())
			st, err := d.Store.Status(t.Context(), o.space)
			must(t, err)
			if want == "" {
				want = st.StateHash
			}
			if st.StateHash != want || st.Void != 0 || st.Wants != 0 {
				t.Errorf("stopped at %d: %+v", stop, st)
			}
		})
	}
}

// killer cancels when the nth value is opened.
type killer struct {
	reference.Blocks
	n    int
	stop func()
}

func (k *killer) Open(ctx context.Context, s reference.Space, h tinycloud.Hash) (io.ReadCloser, error) {
	if k.n--; k.n < 0 {
		k.stop()
	}
	return k.Blocks.Open(ctx, s, h)
}

// TestBucket takes values over from a bucket.
func TestBucket(t *testing.T) {
	b := testservers.S3(t)
	o, where := newFileOld(t)
	with(t, settings(t, ""), func(d *node.Data) {
		o.host(hostkeys.DIDKey(publicKey(d, o.space)))
		o.fill()
		s3 := &blockstore.S3{Endpoint: b.Endpoint, Bucket: b.Name, Region: b.Region, AccessKey: b.AccessKey, SecretKey: b.SecretKey}
		fill, err := blockstore.Open(t.Context(), blockstore.Options{Dir: t.TempDir(), S3: s3})
		must(t, err)
		dir := filepath.Dir(reference.Dir(o.blocks).Where(reference.Space{Text: o.space.String()}, tinycloud.Hash{}))
		files, err := os.ReadDir(dir)
		must(t, err)
		for _, f := range files {
			r, err := os.Open(filepath.Join(dir, f.Name()))
			must(t, err)
			staged, err := fill.Stage(t.Context(), r, 1<<30)
			must(t, errors.Join(err, r.Close()))
			must(t, staged.Commit(t.Context(), o.space))
		}
		must(t, fill.Close())
		blocks, err := reference.OpenBucket(t.Context(), s3)
		must(t, err)
		from, err := reference.Open(t.Context(), where, nil)
		must(t, err)
		x := &transfer.TakeOver{From: from, Blocks: blocks, To: d, Log: io.Discard}
		out, err := x.Run(t.Context())
		must(t, errors.Join(err, from.Close(), blocks.Close()))
		if out[0].Wants != 0 || x.Odd.Count(transfer.FoundNoBlock) != 0 {
			t.Errorf("%+v", out)
		}
		checkOld(t, d, o.space, o.winner())
	})
}
