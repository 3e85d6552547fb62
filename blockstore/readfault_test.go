package blockstore_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

func (f *failingFS) Open(path string) (blockstore.Readable, error) {
	file, err := f.OS.Open(path)
	if err != nil || f.read == nil {
		return file, err
	}
	return &failingRead{file, f}, nil
}

// failingRead is a file whose reads the test spoils.
type failingRead struct {
	blockstore.Readable
	fs *failingFS
}

func (f *failingRead) ReadAt(p []byte, at int64) (int, error) { return f.fs.read(f.Readable, p, at) }

// TestReadFaults spoils the reads of stored values: nobody gets other bytes, or fewer, without an error.
func TestReadFaults(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	fsys := &failingFS{}
	s := open(t, blockstore.Options{Dir: t.TempDir(), FS: fsys})
	for _, size := range []int{1000, 3*blockstore.ChunkSize + 9} {
		body := blockstoretest.Body(byte(size), size)
		hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		fsys.read = nil
		if err := store(t.Context(), s, space, body); err != nil {
			t.Fatal(err)
		}
		block := hash
		if m.Links != nil {
			block = m.Links[2]
		}
		half := int64(size) * 5 / 6 // within the block
		for name, read := range map[string]func(io.ReaderAt, []byte, int64) (int, error){
			"EIO": func(r io.ReaderAt, p []byte, at int64) (int, error) {
				if at+int64(len(p)) <= half {
					return r.ReadAt(p, at)
				}
				return 0, syscall.EIO
			},
			"cut short": func(r io.ReaderAt, p []byte, at int64) (int, error) {
				return io.NewSectionReader(r, 0, half).ReadAt(p, at)
			},
			"short reads": func(r io.ReaderAt, p []byte, at int64) (int, error) { return r.ReadAt(p[:(len(p)+1)/2], at) },
			"a flipped bit": func(r io.ReaderAt, p []byte, at int64) (int, error) {
				n, err := r.ReadAt(p, at)
				if i := half - at; i >= 0 && i < int64(n) {
					p[i] ^= 1
				}
				return n, err
			},
		} {
			fsys.read = read
			v, _, err := s.Open(t.Context(), space, hash)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(v)
			if whole := len(got) == len(body); err == nil && !whole {
				t.Errorf("%s: %d of %d bytes without an error", name, len(got), len(body))
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Verify(t.Context(), space, hash); !errors.Is(err, tinycloud.ErrUnavailable) && !errors.Is(err, tinycloud.ErrForged) {
				t.Errorf("%s: Verify says %v", name, err)
			}
			if blk, err := s.Blocks(space).Get(t.Context(), block.CID(cid.Raw)); err == nil {
				t.Errorf("%s: a block of %d bytes", name, len(blk.RawData()))
			}
		}
		fsys.read = nil
		if err := s.Verify(t.Context(), space, hash); err != nil {
			t.Error(err)
		}
	}
}
