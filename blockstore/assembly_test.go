package blockstore_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// partFS is the real one, but how fsync of assemblies end is told by syncs, when it is not nil, and reading
// them ends with read.
type partFS struct {
	blockstore.OS
	syncs chan error
	read  error
}

func (f *partFS) OpenFile(path string, create bool) (blockstore.File, error) {
	file, err := f.OS.OpenFile(path, create)
	if err != nil || !strings.HasSuffix(path, ".part") {
		return file, err
	}
	return partFile{file, f}, nil
}

type partFile struct {
	blockstore.File
	fs *partFS
}

func (f partFile) Sync() error {
	if f.fs.syncs != nil {
		return <-f.fs.syncs
	}
	return f.File.Sync()
}

func (f partFile) ReadAt(p []byte, at int64) (int, error) {
	if f.fs.read != nil {
		return 0, f.fs.read
	}
	return f.File.ReadAt(p, at)
}

// TestAssemblySyncs checks that chunks come while others are synced, and that none is kept when that fails.
func TestAssemblySyncs(t *testing.T) {
	blockstore.SyncEvery(t, 4)
	space := blockstoretest.Space(t, "default")
	chunk, end := blockstoretest.Body(1, blockstore.ChunkSize), []byte("end")
	body := append(bytes.Repeat(chunk, 4), end...) // an fsync begins with the first chunk
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	fsys := &partFS{syncs: make(chan error)}
	s := open(t, blockstore.Options{Dir: t.TempDir(), FS: fsys})
	begin := func() *blockstore.Assembly {
		t.Helper()
		a, err := s.Assemble(t.Context(), space, hash, m)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(a.Missing()); n != 2 {
			t.Fatalf("%d chunks missing, want 2", n)
		}
		for _, c := range [][]byte{chunk, end} {
			if err := a.PutChunk(tinycloud.Sum(c), c); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	for name, finish := range map[string]func(*blockstore.Assembly) error{
		"Close":  (*blockstore.Assembly).Close,
		"Finish": func(a *blockstore.Assembly) error { return a.Finish(t.Context()) },
	} {
		a := begin()
		fsys.syncs <- syscall.EIO
		if err := finish(a); !errors.Is(err, syscall.EIO) || !errors.Is(err, tinycloud.ErrUnavailable) {
			t.Errorf("%s after a failed fsync: %v", name, err)
		}
		if _, ok := s.Partial(space, hash); ok {
			t.Errorf("%s: chunks of a failed fsync are kept", name)
		}
	}
	a := begin()
	close(fsys.syncs)
	if err := errors.Join(a.Finish(t.Context()), s.Verify(t.Context(), space, hash)); err != nil {
		t.Error(err)
	}
}

// TestAssemblyReadBack checks that a value which cannot be read back is not taken for the one it should be, and is
// tried again.
func TestAssemblyReadBack(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 2*blockstore.ChunkSize)
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	fsys := &partFS{read: syscall.EIO}
	s := open(t, blockstore.Options{Dir: t.TempDir(), FS: fsys})
	if err := assemble(t.Context(), s, space, hash, m, body); !errors.Is(err, syscall.EIO) || !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("unreadable: %v", err)
	}
	fsys.read = nil
	a, err := s.Assemble(t.Context(), space, hash, m)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(a.Missing()); n != 0 {
		t.Errorf("%d chunks missing", n)
	}
	if err := errors.Join(a.Finish(t.Context()), s.Verify(t.Context(), space, hash)); err != nil {
		t.Error(err)
	}
}
