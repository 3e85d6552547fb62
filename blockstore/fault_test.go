package blockstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// failingFS is the real one until the operation it is told to fail.
type failingFS struct {
	blockstore.OS
	left  atomic.Int64 // operations until the one that fails; negative when none does
	err   error
	what  string // the operation that failed
	short bool   // writes write half and report success
	free  int64  // reported when not 0
	trace []string
	read  func(r io.ReaderAt, p []byte, at int64) (int, error) // of values; nil: as it is
}

func (f *failingFS) op(format string, args ...any) error {
	if f.trace != nil {
		f.trace = append(f.trace, fmt.Sprintf(format, args...))
	}
	if f.left.Add(-1) != 0 {
		return nil
	}
	f.what = fmt.Sprintf(format, args...)
	return &fs.PathError{Op: "injected", Path: f.what, Err: f.err}
}

func (f *failingFS) OpenFile(path string, create bool) (blockstore.File, error) {
	if err := f.op("open %s", path); err != nil {
		return nil, err
	}
	file, err := f.OS.OpenFile(path, create)
	if err != nil {
		return nil, err
	}
	return &failingFile{file, f}, nil
}

func (f *failingFS) Rename(from, to string) error {
	if err := f.op("rename %s", to); err != nil {
		return err
	}
	return f.OS.Rename(from, to)
}

func (f *failingFS) SyncDir(path string) error {
	if err := f.op("sync %s", path); err != nil {
		return err
	}
	return f.OS.SyncDir(path)
}

func (f *failingFS) Free(path string) (int64, error) {
	if err := f.op("free %s", path); err != nil {
		return 0, err
	}
	if f.free != 0 {
		return f.free, nil
	}
	return f.OS.Free(path)
}

type failingFile struct {
	blockstore.File
	fs *failingFS
}

// half writes a part, as a full disk does.
func (f *failingFile) half(p []byte, write func([]byte) (int, error)) (int, error) {
	if err := f.fs.op("write"); err != nil {
		n, werr := write(p[:len(p)/2])
		if f.fs.short {
			return n, werr
		}
		return n, errors.Join(err, werr)
	}
	return write(p)
}

func (f *failingFile) Write(p []byte) (int, error) { return f.half(p, f.File.Write) }

func (f *failingFile) WriteAt(p []byte, at int64) (int, error) {
	return f.half(p, func(p []byte) (int, error) { return f.File.WriteAt(p, at) })
}

func (f *failingFile) Sync() error {
	if err := f.fs.op("fsync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func open(t *testing.T, o blockstore.Options) *blockstore.Store {
	t.Helper()
	s, err := blockstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	})
	return s
}

func store(ctx context.Context, s *blockstore.Store, space tinycloud.SpaceID, body []byte) error {
	st, err := s.Stage(ctx, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return err
	}
	return st.Commit(ctx, space)
}

// leftovers returns the files of the store, but for the index.
func leftovers(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && path == filepath.Join(dir, ".index") {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestOrder checks what makes an acknowledged value durable: its bytes, then its name, then the names of
// the directories above, each fsynced before the next step stands on it.
func TestOrder(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	dir, body := t.TempDir(), blockstoretest.Body(1, 100)
	fsys := &failingFS{err: syscall.EIO}
	s := open(t, blockstore.Options{Dir: dir, FS: fsys, Staging: blockstore.FileSystem})
	steps := func() (list []string) {
		fsys.trace = []string{}
		if err := store(t.Context(), s, space, body); err != nil {
			t.Fatal(err)
		}
		for _, step := range fsys.trace {
			step, _, _ = strings.Cut(step, "/stage-") // the rest is random
			list = append(list, strings.Replace(step, dir, "", 1))
		}
		return list
	}
	owner := "/pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9"
	file := owner + "/default/" + blockstore.FileName(tinycloud.Sum(body))
	want := []string{"open /.staging", "write", "fsync", "sync ", "sync " + owner, "rename " + file, "sync " + owner + "/default"}
	if d := cmp.Diff(want, steps()); d != "" {
		t.Errorf("first value of a Space: %s", d)
	}
	if d := cmp.Diff([]string{"sync " + owner + "/default"}, steps()); d != "" {
		t.Errorf("the same again: %s", d)
	}
	body = blockstoretest.Body(2, 100)
	file = owner + "/default/" + blockstore.FileName(tinycloud.Sum(body))
	want = []string{"open /.staging", "write", "fsync", "rename " + file, "sync " + owner + "/default"}
	if d := cmp.Diff(want, steps()); d != "" {
		t.Errorf("another value: %s", d)
	}
}

// TestFaults lets each operation of storing a value fail once, in turn: the store says so, keeps nothing,
// and stores the value the next time.
func TestFaults(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	for _, tt := range []struct {
		name  string
		err   error
		short bool
	}{{"ENOSPC", syscall.ENOSPC, false}, {"EIO", syscall.EIO, false}, {"short write", syscall.ENOSPC, true}} {
		for _, staging := range []blockstore.Staging{blockstore.Memory, blockstore.FileSystem} {
			for _, size := range []int{0, 100, 200_000, 2*blockstore.ChunkSize + 9} {
				if tt.short && size == 0 {
					continue // nothing to cut short
				}
				t.Run(fmt.Sprintf("%s/%s/%d", tt.name, staging, size), func(t *testing.T) {
					fsys := &failingFS{err: tt.err, short: tt.short}
					dir := t.TempDir()
					s := open(t, blockstore.Options{Dir: dir, Staging: staging, FS: fsys})
					failed := faults(t, s, fsys, dir, space, size)
					if failed < 4 { // open, fsync, rename, fsync of the directory at the least
						t.Errorf("only %d operations failed", failed)
					}
				})
			}
		}
	}
}

func faults(t *testing.T, s *blockstore.Store, fsys *failingFS, dir string, space tinycloud.SpaceID, size int) (failed int) {
	for n := int64(1); ; n++ {
		body := blockstoretest.Body(byte(n), size)
		hash := tinycloud.Sum(body)
		fsys.left.Store(n)
		err := store(t.Context(), s, space, body)
		hit := fsys.left.Swap(0) <= 0
		if !hit {
			if err != nil {
				t.Fatal(err)
			}
			return failed
		}
		failed++
		text := "storage.blocks.path"
		if !errors.Is(err, tinycloud.ErrUnavailable) || !strings.Contains(err.Error(), text) {
			t.Fatalf("%s failed, store says %v", fsys.what, err)
		}
		if !fsys.short && !errors.Is(err, fsys.err) {
			t.Errorf("%s failed: %v does not name the cause", fsys.what, err)
		}
		if has, err := s.Has(t.Context(), space, hash); has || err != nil {
			t.Fatalf("%s failed: Has = %v, %v", fsys.what, has, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Fatalf("%s failed: %q left", fsys.what, left)
		}
		if err := store(t.Context(), s, space, body); err != nil {
			t.Fatalf("after %s failed: %v", fsys.what, err)
		}
		if err := s.Verify(t.Context(), space, hash); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), space, hash); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAssemblyFaults is the same for a value that comes in chunks: a later try ends well.
func TestAssemblyFaults(t *testing.T) {
	blockstore.SyncEvery(t, 3)
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 4*blockstore.ChunkSize+9) // past the periodic fsync
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, short := range []bool{false, true} {
		fsys := &failingFS{err: syscall.ENOSPC, short: short}
		dir := t.TempDir()
		s := open(t, blockstore.Options{Dir: dir, FS: fsys})
		failed := 0
		for n := int64(1); n < 1000; n++ {
			fsys.left.Store(n)
			err := assemble(t.Context(), s, space, hash, m, body)
			if fsys.left.Swap(0) > 0 {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			failed++
			if !errors.Is(err, tinycloud.ErrUnavailable) {
				t.Fatalf("%s failed, store says %v", fsys.what, err)
			}
			if has, err := s.Has(t.Context(), space, hash); has || err != nil {
				t.Fatalf("%s failed: Has = %v, %v", fsys.what, has, err)
			}
			if err := assemble(t.Context(), s, space, hash, m, body); err != nil {
				t.Fatalf("after %s failed: %v", fsys.what, err)
			}
			if err := s.Verify(t.Context(), space, hash); err != nil {
				t.Fatal(err)
			}
			if left := leftovers(t, dir); len(left) != 1 {
				t.Fatalf("%s failed: %q left", fsys.what, left)
			}
			if err := s.Delete(t.Context(), space, hash); err != nil {
				t.Fatal(err)
			}
		}
		if failed < 10 {
			t.Errorf("only %d operations failed", failed)
		}
	}
}

func assemble(ctx context.Context, s *blockstore.Store, space tinycloud.SpaceID, hash tinycloud.Hash, m blockstore.Manifest, body []byte) error {
	a, err := s.Assemble(ctx, space, hash, m)
	if err != nil {
		return err
	}
	defer a.Close()
	for i, link := range m.Links {
		if err := a.PutChunk(link, body[i*blockstore.ChunkSize:min(len(body), (i+1)*blockstore.ChunkSize)]); err != nil {
			return err
		}
	}
	return a.Finish(ctx)
}

// TestNoRoomForIndex checks that the index isn't written when the disk is nearly full, which would kill
// the process.
func TestNoRoomForIndex(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	fsys := &failingFS{}
	s := open(t, blockstore.Options{Dir: t.TempDir(), FS: fsys})
	large := blockstoretest.Body(1, blockstore.ChunkSize+1)
	fsys.free = 1 << 20
	err := store(t.Context(), s, space, large)
	if !errors.Is(err, tinycloud.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("large value: %v", err)
	}
	if err := store(t.Context(), s, space, large[:blockstore.ChunkSize]); err != nil {
		t.Errorf("value without chunks: %v", err)
	}
	fsys.free = 0
	if err := store(t.Context(), s, space, large); err != nil {
		t.Error(err)
	}
	_, err = blockstore.Open(t.Context(), blockstore.Options{Dir: t.TempDir(), FS: &failingFS{free: 1}})
	if !errors.Is(err, tinycloud.ErrUnavailable) || !strings.Contains(err.Error(), "storage.blocks.path") {
		t.Errorf("Open: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		o     blockstore.Options
		class error
	}{
		{"no path", blockstore.Options{}, tinycloud.ErrInvalid},
		{"a file", blockstore.Options{Dir: file}, tinycloud.ErrUnavailable},
		{"below a file", blockstore.Options{Dir: filepath.Join(file, "blocks")}, tinycloud.ErrUnavailable},
		{"no file system", blockstore.Options{Dir: "/proc/blocks"}, tinycloud.ErrUnavailable},
		{"index in a file", blockstore.Options{Dir: dir, IndexDir: file}, tinycloud.ErrUnavailable},
	} {
		_, err := blockstore.Open(t.Context(), tt.o)
		if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), "storage.blocks.path") || !strings.Contains(err.Error(), tt.o.Dir) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir, Staging: "Tape"}); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("staging: %v", err)
	}
	if _, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir, InlineLimit: 2 << 20}); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("inline limit: %v", err)
	}
	// On a file system that ignores case, the file it makes has a twin in upper case.
	blind := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(blind, ".staging"), 0o700), os.WriteFile(filepath.Join(blind, ".staging", "STAGE-PROBE"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := blockstore.Open(t.Context(), blockstore.Options{Dir: blind}); !errors.Is(err, tinycloud.ErrUnavailable) || !strings.Contains(err.Error(), "letter case") {
		t.Errorf("file system without letter case: %v", err)
	}
	for n := int64(1); ; n++ { // and each thing that Open does
		fsys := &failingFS{err: syscall.EROFS}
		fsys.left.Store(n)
		s, err := blockstore.Open(t.Context(), blockstore.Options{Dir: filepath.Join(t.TempDir(), "blocks"), FS: fsys})
		if fsys.left.Load() > 0 {
			if err != nil || n < 6 {
				t.Errorf("after %d operations: %v", n-1, err)
			}
			fsys.left.Store(0)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			break
		}
		if !errors.Is(err, syscall.EROFS) || !errors.Is(err, tinycloud.ErrUnavailable) || !strings.Contains(err.Error(), "storage.blocks.path") {
			t.Errorf("%s failed, Open says %v", fsys.what, err)
		}
	}
}
