package blockstore

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/gofrs/flock"
	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	badger4 "github.com/ipfs/go-ds-badger4"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// index finds the chunks of values longer than a chunk. Its keys, <space> being a digest of the Space id:
//
//	/v/<space>/<value>          → record: the Space id and the links; written last, so it stands for the rest
//	/c/<space>/<chunk>/<value>  → number of the chunk in the value, 4 bytes
//	/m/<space>/<manifest>       → value, 32 bytes
//	/clean                      → present while no process has the index open and nothing is missing in it
//
// Nothing is fsynced: what power loss takes, [Store.Repair] puts back from the values.
type index struct {
	ds      *badger4.Datastore
	fs      FS
	dir     string
	lock    *flock.Flock
	setting string
	whole   atomic.Bool // nothing is missing
}

// indexReserve is how much of the file system must be free before the index is written to: it writes
// through memory maps, where a full disk kills the process instead of giving an error.
const indexReserve = 32 << 20

var cleanKey = ds.RawKey("/clean")

func openIndex(ctx context.Context, o Options) (*index, error) {
	// A directory of our own inside, because a broken index is removed with everything in it.
	x := &index{fs: o.FS, setting: o.setting(), dir: filepath.Join(o.IndexDir, "chunks")}
	x.lock = flock.New(filepath.Join(o.IndexDir, "chunks.lock"), flock.SetPermissions(0o600))
	if err := makeAll(o.FS, x.dir); err != nil {
		return nil, x.fault(err)
	}
	if err := x.room(indexReserve); err != nil {
		return nil, err
	}
	// The database has a lock of its own, but its errors don't tell a lock from damage.
	if ok, err := x.lock.TryLock(); err != nil {
		return nil, x.fault(err)
	} else if !ok {
		return nil, x.fault(errors.New("another process has it open"))
	}
	err := x.open(ctx)
	if err != nil {
		o.Log.WarnContext(ctx, "chunk index is broken: it is built anew from the values", "dir", x.dir, "error", err)
		if err = errors.Join(os.RemoveAll(x.dir), makeAll(o.FS, x.dir)); err == nil {
			err = x.open(ctx)
		}
	}
	if err != nil {
		return nil, x.fault(errors.Join(err, x.lock.Unlock()))
	}
	return x, nil
}

func (x *index) open(ctx context.Context) error {
	if err := checkTables(x.dir); err != nil {
		return err
	}
	o := badger4.DefaultOptions // a copy
	o.GcInterval = 0            // all is in the tree: there is no value log to collect
	o.Options = o.Options.WithMemTableSize(4 << 20).WithNumMemtables(2).WithValueThreshold(512 << 10).
		WithValueLogFileSize(16 << 20).WithNumCompactors(2).WithNumGoroutines(1).WithMetricsEnabled(false).
		WithCompression(options.None).WithBlockCacheSize(0).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).WithDetectConflicts(false)
	var err error
	if x.ds, err = badger4.NewDatastore(x.dir, &o); err != nil {
		return err
	}
	clean, err := x.ds.Has(ctx, cleanKey)
	x.whole.Store(clean)
	if err == nil {
		err = x.ds.Delete(ctx, cleanKey)
	}
	// This one is synced: a mark that outlives a crash would hide what the crash took.
	if err == nil {
		err = x.ds.Sync(ctx, cleanKey)
	}
	if err != nil {
		return errors.Join(err, x.ds.Close())
	}
	return nil
}

// checkTables reads the database's tables before the database does: a damaged one would make it panic in a
// goroutine of its own, or be left out without a word.
func checkTables(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := checkTable(name); err != nil {
			return fmt.Errorf("table %s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

func checkTable(name string) (err error) {
	// The library finds some damage by running into it.
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("damaged")
		}
	}()
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	t, err := table.OpenInMemoryTable(b, 0, &table.Options{ChkMode: options.OnTableRead})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}

// close writes what the database holds in memory. Without room for that it stays in the log, from where
// the next start takes it, and the database is left to the end of the process.
func (x *index) close(clean bool) error {
	err := x.room(indexReserve / 4)
	if err != nil {
		return errors.Join(err, x.lock.Unlock())
	}
	if clean && x.whole.Load() {
		err = x.ds.DB.Update(func(txn *badger.Txn) error { return txn.Set(cleanKey.Bytes(), nil) })
	}
	if err := errors.Join(err, x.ds.Close(), x.lock.Unlock()); err != nil {
		return x.fault(err)
	}
	return nil
}

func (x *index) fault(err error) error {
	return fmt.Errorf("%s: chunk index %q: %w: %w", x.setting, x.dir, err, tinycloud.ErrUnavailable)
}

func (x *index) room(need int64) error {
	n, err := x.fs.Free(x.dir)
	if err == nil && n < need {
		err = fmt.Errorf("%d bytes free, %d needed: %w", n, need, syscall.ENOSPC)
	}
	if err != nil {
		return x.fault(err)
	}
	return nil
}

func spaceKey(space tinycloud.SpaceID) string { return keyText(tinycloud.Sum([]byte(space.String()))) }

func keyText(h tinycloud.Hash) string { return base64.RawURLEncoding.EncodeToString(h[:]) }

func valueKey(space tinycloud.SpaceID, value tinycloud.Hash) ds.Key {
	return ds.RawKey("/v/" + spaceKey(space) + "/" + keyText(value))
}

func chunkKey(space tinycloud.SpaceID, chunk tinycloud.Hash) ds.Key {
	return ds.RawKey("/c/" + spaceKey(space) + "/" + keyText(chunk))
}

func manifestKey(space tinycloud.SpaceID, m Manifest) ds.Key {
	return ds.RawKey("/m/" + spaceKey(space) + "/" + keyText(tinycloud.Sum(m.Encode())))
}

// put adds a value. A manifest without links marks a file whose bytes are not the value's: it has no
// chunks, and is not hashed again.
func (x *index) put(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash, m Manifest) error {
	if err := x.room(indexReserve); err != nil {
		return err
	}
	if m.Links != nil {
		if err := x.change(ctx, space, value, m, func(b ds.Batch, k ds.Key, v []byte) error { return b.Put(ctx, k, v) }); err != nil {
			return x.fault(err)
		}
	}
	if err := x.ds.Put(ctx, valueKey(space, value), record(space, m)); err != nil {
		return x.fault(err)
	}
	return nil
}

// drop removes a value that is in the index.
func (x *index) drop(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash) error {
	m, err := x.value(ctx, space, value)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.Links != nil {
		if err := x.change(ctx, space, value, m, func(b ds.Batch, k ds.Key, _ []byte) error { return b.Delete(ctx, k) }); err != nil {
			return x.fault(err)
		}
	}
	if err := x.ds.Delete(ctx, valueKey(space, value)); err != nil {
		return x.fault(err)
	}
	return nil
}

// change does one thing to all entries of a value but its record.
func (x *index) change(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash, m Manifest, do func(ds.Batch, ds.Key, []byte) error) error {
	b, err := x.ds.Batch(ctx)
	if err != nil {
		return err
	}
	err = do(b, manifestKey(space, m), value[:])
	seen := make(map[tinycloud.Hash]struct{}, len(m.Links))
	for i := 0; i < len(m.Links) && err == nil; i++ {
		if _, twice := seen[m.Links[i]]; twice {
			continue // any place will do
		}
		seen[m.Links[i]] = struct{}{}
		key := ds.RawKey(chunkKey(space, m.Links[i]).String() + "/" + keyText(value))
		err = do(b, key, binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	if err != nil {
		// Commit is the only way to release a batch of this interface; what it wrote is harmless.
		return errors.Join(err, b.Commit(ctx))
	}
	return b.Commit(ctx)
}

// value returns the manifest of a value that is in the index, without links if its file is wrong. A value
// that isn't in it gives class [tinycloud.ErrNotFound].
func (x *index) value(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash) (Manifest, error) {
	b, err := x.ds.Get(ctx, valueKey(space, value))
	if errors.Is(err, ds.ErrNotFound) {
		return Manifest{}, fmt.Errorf("value %s is not indexed: %w", value, tinycloud.ErrNotFound)
	}
	if err == nil {
		var m Manifest
		if _, m, err = parseRecord(b); err == nil {
			return m, nil
		}
	}
	return Manifest{}, x.fault(err)
}

// manifest returns the value a manifest block belongs to.
func (x *index) manifest(ctx context.Context, space tinycloud.SpaceID, block tinycloud.Hash) (tinycloud.Hash, bool, error) {
	b, err := x.ds.Get(ctx, ds.RawKey("/m/"+spaceKey(space)+"/"+keyText(block)))
	if errors.Is(err, ds.ErrNotFound) {
		return tinycloud.Hash{}, false, nil
	}
	if err == nil && len(b) != len(tinycloud.Hash{}) {
		err = errors.New("damaged entry")
	}
	if err != nil {
		return tinycloud.Hash{}, false, x.fault(err)
	}
	return tinycloud.Hash(b), true, nil
}

// chunk calls fn with the values that hold a chunk, and its number there, until fn returns true.
func (x *index) chunk(ctx context.Context, space tinycloud.SpaceID, chunk tinycloud.Hash, fn func(value tinycloud.Hash, i int) (bool, error)) error {
	prefix := chunkKey(space, chunk).String()
	res, err := x.ds.Query(ctx, dsq.Query{Prefix: prefix})
	if err != nil {
		return x.fault(err)
	}
	defer res.Close()
	for {
		r, ok := res.NextSync()
		if !ok {
			return nil
		}
		if r.Error != nil {
			return x.fault(r.Error)
		}
		b, err := base64.RawURLEncoding.DecodeString(r.Key[min(len(prefix)+1, len(r.Key)):])
		if err != nil || len(b) != len(tinycloud.Hash{}) || len(r.Value) != 4 {
			return x.fault(errors.New("damaged entry"))
		}
		if done, err := fn(tinycloud.Hash(b), int(binary.BigEndian.Uint32(r.Value))); done || err != nil {
			return err
		}
	}
}

// values calls fn for each record.
func (x *index) values(ctx context.Context, fn func(tinycloud.SpaceID, tinycloud.Hash, Manifest) error) error {
	res, err := x.ds.Query(ctx, dsq.Query{Prefix: "/v"})
	if err != nil {
		return x.fault(err)
	}
	defer res.Close()
	for {
		r, ok := res.NextSync()
		if !ok {
			return nil
		}
		if r.Error != nil {
			return x.fault(r.Error)
		}
		space, m, err := parseRecord(r.Value)
		b, err2 := base64.RawURLEncoding.DecodeString(r.Key[max(0, len(r.Key)-43):])
		if err != nil || err2 != nil || len(b) != len(tinycloud.Hash{}) {
			return x.fault(errors.New("damaged entry"))
		}
		if err := fn(space, tinycloud.Hash(b), m); err != nil {
			return err
		}
	}
}

// record is the Space id with its length before it, the size, and the links.
func record(space tinycloud.SpaceID, m Manifest) []byte {
	id := space.String()
	b := make([]byte, 0, 2+len(id)+8+len(m.Links)*32)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(id))), id...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	for i := range m.Links {
		b = append(b, m.Links[i][:]...)
	}
	return b
}

func parseRecord(b []byte) (space tinycloud.SpaceID, m Manifest, err error) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b))+8 {
		return space, m, errors.New("damaged entry")
	}
	id, rest := b[2:2+binary.BigEndian.Uint16(b)], b[2+int(binary.BigEndian.Uint16(b)):]
	if space, err = tinycloud.ParseSpaceID(string(id)); err != nil {
		return space, m, errors.New("damaged entry")
	}
	m.Size, rest = int64(binary.BigEndian.Uint64(rest)), rest[8:]
	if len(rest) == 0 {
		return space, m, nil
	}
	for ; len(rest) >= 32; rest = rest[32:] {
		m.Links = append(m.Links, tinycloud.Hash(rest[:32]))
	}
	if len(rest) != 0 || m.Check() != nil {
		return space, m, errors.New("damaged entry")
	}
	return space, m, nil
}
