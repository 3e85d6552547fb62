package blockstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
)

const (
	defaultInlineLimit = 64 << 10
	defaultMemoryLimit = 6 << 20
	copyBuffer         = 64 << 10
	slowBuffer         = 4 << 10 // of bodies that come in small pieces: there may be many of them
	lockStripes        = 1024
	durableDirs        = 4096               // remembered; a forgotten one costs an fsync
	partLife           = 7 * 24 * time.Hour // of an assembly nobody went on with
	dirBatch           = 1024
	dueSpaces          = 4096 // remembered; a forgotten one costs a listing
)

// Staging says where a body is while it arrives.
type Staging string

// The two kinds of staging (docs/operating.md, "Configuration"). Memory falls back to a file when its limit is used
// up.
const (
	Memory     Staging = "Memory"
	FileSystem Staging = "FileSystem"
)

// Options configure a [Store].
type Options struct {
	// Dir is storage.blocks.path, or, with S3, a directory below storage.datadir for uploads under way and the
	// chunk index; made if missing.
	Dir      string
	S3       *S3    // where values are; nil: in Dir
	IndexDir string // of the chunk index; Dir/.index when empty
	Staging  Staging
	// InlineLimit is the size in bytes up to which a staged body stays in memory and is offered by
	// Stage.Bytes. 0 means 64 KiB, negative that no body does.
	InlineLimit int
	// MemoryLimit bounds the bytes all bodies longer than InlineLimit hold together under Memory staging.
	// 0 means 6 MiB.
	MemoryLimit int64
	// Inline reads a value, or any other block, that is kept elsewhere, for Blocks. The error for one that
	// isn't there is of class tinycloud.ErrNotFound. nil: all is in files.
	Inline func(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) ([]byte, error)
	// Room is asked before bytes are taken in; an error refuses them. Nil: there is always room. It must not block.
	Room func() error
	FS   FS // nil means OS
	Log  *slog.Logger
}

// Store holds the values of many Spaces in one directory or bucket. Its methods may be called concurrently. One
// process has one Store on a directory; a bucket may have those of several.
type Store struct {
	o       Options
	log     *slog.Logger
	index   *index
	values  backend
	memory  atomic.Int64 // bytes of MemoryLimit in use
	buffers sync.Pool    // *[copyBuffer]byte, of bodies too: else what uploads leave doubles the heap
	smalls  sync.Pool    // *[slowBuffer]byte

	// locks order changes of one value's file and index entries; a value's stripe is its first bytes.
	locks [lockStripes]sync.Mutex

	mu         sync.Mutex // guards assembling
	assembling map[partKey]struct{}
	catchUpDue *lru.Cache[tinycloud.SpaceID, time.Time] // when a Space's listing may be compared with the index again
}

// Open makes the directories, removes what crashed stagings left, and opens the chunk index. With S3 it tries the
// bucket, for [startTime] at most. The error names the setting and is of class [tinycloud.ErrUnavailable], or of
// class [tinycloud.ErrInvalid] for options that make no sense. Call [Store.Repair] next.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	due, err := lru.New[tinycloud.SpaceID, time.Time](dueSpaces)
	if err != nil {
		return nil, err
	}
	s := &Store{o: o, log: o.Log, assembling: map[partKey]struct{}{}, catchUpDue: due}
	s.smalls.New = func() any { return new([slowBuffer]byte) }
	s.buffers.New = func() any { return new([copyBuffer]byte) }
	if err := s.prepare(); err != nil {
		return nil, s.fault(err)
	}
	// The index's lock comes before the sweep: the leftovers may be another process's work.
	if s.index, err = openIndex(ctx, o); err != nil {
		return nil, err
	}
	if err := s.sweep(ctx); err != nil {
		return nil, errors.Join(s.fault(err), s.index.close(false))
	}
	if s.values, err = openBackend(ctx, o); err != nil {
		return nil, errors.Join(err, s.index.close(false))
	}
	return s, nil
}

func openBackend(ctx context.Context, o Options) (backend, error) {
	if o.S3 != nil {
		return openBucket(ctx, o)
	}
	return newFiles(o)
}

func (o *Options) complete() error {
	if o.Dir == "" {
		return fmt.Errorf("%s is empty: %w", o.setting(), tinycloud.ErrInvalid)
	}
	if o.Staging == "" {
		o.Staging = Memory
	}
	if o.Staging != Memory && o.Staging != FileSystem {
		return fmt.Errorf("storage.staging %q: neither %s nor %s: %w", o.Staging, Memory, FileSystem, tinycloud.ErrInvalid)
	}
	if o.IndexDir == "" {
		o.IndexDir = filepath.Join(o.Dir, ".index")
	}
	if o.InlineLimit == 0 {
		o.InlineLimit = defaultInlineLimit
	}
	if o.InlineLimit > ChunkSize {
		return fmt.Errorf("inline limit of %d bytes is longer than a block: %w", o.InlineLimit, tinycloud.ErrInvalid)
	}
	if o.MemoryLimit == 0 {
		o.MemoryLimit = defaultMemoryLimit
	}
	if o.Room == nil {
		o.Room = func() error { return nil }
	}
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// setting is what an operator calls Dir.
func (o *Options) setting() string {
	if o.S3 != nil {
		return "storage.datadir"
	}
	return "storage.blocks.path"
}

// prepare makes the directories and finds out now, not at the first write, that they can't be written or
// that the file system takes two digests for one.
func (s *Store) prepare() error {
	if err := makeAll(s.o.FS, filepath.Join(s.o.Dir, stagingDir)); err != nil {
		return err
	}
	for _, m := range private.Mend(s.o.Dir, filepath.Join(s.o.Dir, stagingDir), s.o.IndexDir) {
		s.log.Warn("blocks", "warning", m.String())
	}
	name := s.staging(stagePrefix + "probe")
	if err := s.o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.o.FS.OpenFile(name, true)
	if err != nil {
		return err
	}
	_, twin := os.Lstat(s.staging(strings.ToUpper(stagePrefix + "probe")))
	if err := errors.Join(f.Close(), s.o.FS.Remove(name)); err != nil {
		return err
	}
	if twin == nil && s.o.S3 == nil {
		return errors.New("the file system ignores letter case, which block names need")
	}
	return nil
}

// sweep removes bodies that were being staged when the last process ended, and assemblies given up.
func (s *Store) sweep(ctx context.Context) error {
	oldest := time.Now().Add(-partLife)
	return eachEntry(s.staging(""), func(e fs.DirEntry) error {
		stale := strings.HasPrefix(e.Name(), stagePrefix)
		if strings.HasSuffix(e.Name(), partSuffix) || strings.HasSuffix(e.Name(), mapSuffix) {
			info, err := e.Info()
			stale = err == nil && info.ModTime().Before(oldest)
		}
		if !stale {
			return nil
		}
		s.log.InfoContext(ctx, "removed unfinished value", "file", e.Name())
		return s.o.FS.Remove(s.staging(e.Name()))
	})
}

// Close closes the chunk index. Nothing else may be running.
func (s *Store) Close() error {
	s.values.close()
	return s.index.close(true)
}

// fault gives an error of staging the class and the setting an operator has to look at.
func (s *Store) fault(err error) error {
	return fmt.Errorf("%s %q: %w: %w", s.o.setting(), s.o.Dir, err, tinycloud.ErrUnavailable)
}

func (s *Store) lock(hash tinycloud.Hash) (unlock func()) {
	m := &s.locks[(int(hash[0])<<8|int(hash[1]))%lockStripes]
	m.Lock()
	return m.Unlock
}

// Value is a stored or staged value open for reading, by one goroutine. The caller closes it.
type Value struct {
	content
	size int64
}

// Size returns the size of the value in bytes.
func (v *Value) Size() int64 { return v.size }

// Open opens a value for reading and returns its size in bytes. What is read is not hashed. The error is
// of class [tinycloud.ErrNotFound] or [tinycloud.ErrUnavailable]. Reads may fail once ctx has ended.
func (s *Store) Open(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (*Value, int64, error) {
	c, size, err := s.values.open(ctx, space, hash)
	if err != nil {
		return nil, 0, err
	}
	return &Value{c, size}, size, nil
}

func absent(hash tinycloud.Hash) error {
	return fmt.Errorf("value %s: %w", hash, tinycloud.ErrNotFound)
}

// Size returns the size of a value in bytes. The error is of class [tinycloud.ErrNotFound] or
// [tinycloud.ErrUnavailable].
func (s *Store) Size(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, error) {
	return s.values.size(ctx, space, hash)
}

// Has reports whether a Space holds a value.
func (s *Store) Has(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (bool, error) {
	_, err := s.Size(ctx, space, hash)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes a value and its chunks from a Space; one that isn't there is no error. In files, a deletion
// may be undone by power loss.
func (s *Store) Delete(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) error {
	defer s.lock(hash)()
	if err := s.values.remove(ctx, space, hash); err != nil {
		return err
	}
	return s.index.drop(ctx, space, hash)
}

// Walk calls fn for each value of a Space with its size in bytes, in no order, until fn returns an error.
// Values that come or go meanwhile may be seen or not.
func (s *Store) Walk(ctx context.Context, space tinycloud.SpaceID, fn func(tinycloud.Hash, int64) error) error {
	return s.values.walk(ctx, space, fn)
}

// Spaces calls fn for each Space that has values, and perhaps for some without, in no order, until fn returns
// an error.
func (s *Store) Spaces(ctx context.Context, fn func(tinycloud.SpaceID) error) error {
	return s.values.spaces(ctx, fn)
}

// Ping reports whether the place of the values answers. The error is of class [tinycloud.ErrUnavailable].
func (s *Store) Ping(ctx context.Context) error { return s.values.ping(ctx) }

// Usage is what a Space's values take.
type Usage struct {
	Values int
	Bytes  int64
}

// Usage counts the values of a Space, by listing them.
func (s *Store) Usage(ctx context.Context, space tinycloud.SpaceID) (u Usage, err error) {
	err = s.Walk(ctx, space, func(_ tinycloud.Hash, size int64) error {
		u.Values++
		u.Bytes += size
		return nil
	})
	return u, err
}

// Verify reads a value and compares its digest. The error is of class [tinycloud.ErrForged] if it differs.
func (s *Store) Verify(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) error {
	_, err := s.scan(ctx, space, hash)
	return err
}
