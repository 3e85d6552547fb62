package blockstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

func large(seed byte) []byte { return blockstoretest.Body(seed, 2*blockstore.ChunkSize+int(seed)) }

// filled makes a store with three large values and closes it.
func filled(t *testing.T, dir string) {
	t.Helper()
	s, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for seed := range byte(3) {
		if err := store(t.Context(), s, blockstoretest.Space(t, "default"), large(seed)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Repair(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestBrokenIndex damages each file of the index in several ways. Whatever is wrong with it, the store
// opens, and after Repair it gives the chunks of all values.
func TestBrokenIndex(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	model := t.TempDir()
	filled(t, model)
	files := []string{""} // the whole directory
	err := filepath.WalkDir(filepath.Join(model, ".index", "chunks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, filepath.Base(path))
		}
		return err
	})
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		for name, damage := range map[string]func(string) error{
			"removed": os.RemoveAll,
			"emptied": func(path string) error { return os.Truncate(path, 0) },
			"cut": func(path string) error {
				info, err := os.Stat(path)
				if err != nil {
					return err
				}
				return os.Truncate(path, info.Size()/2)
			},
			"garbled": func(path string) error {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				for i := range min(len(b), 4096) {
					b[i] ^= 0x5a
				}
				return os.WriteFile(path, b, 0o600)
			},
		} {
			if file == "" && name != "removed" {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", file, name), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "blocks")
				if err := os.CopyFS(dir, os.DirFS(model)); err != nil {
					t.Fatal(err)
				}
				if err := damage(filepath.Join(dir, ".index", "chunks", file)); err != nil {
					t.Fatal(err)
				}
				s := open(t, blockstore.Options{Dir: dir})
				if err := s.Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				for seed := range byte(3) {
					wantChunks(t.Context(), t, s, space, large(seed))
				}
			})
		}
	}
}

// TestRepair finds what came and went while nobody looked.
func TestRepair(t *testing.T) {
	space := blockstoretest.Space(t, "default")
	dir := t.TempDir()
	filled(t, dir)
	values := filepath.Join(dir, "pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9", "default")
	gone, came, wrong := tinycloud.Sum(large(1)), tinycloud.Sum(large(7)), tinycloud.Sum(large(8))
	err := errors.Join(
		os.Remove(filepath.Join(values, blockstore.FileName(gone))),
		os.WriteFile(filepath.Join(values, blockstore.FileName(came)), large(7), 0o600),
		os.WriteFile(filepath.Join(values, blockstore.FileName(wrong)), large(9), 0o600), // as an import may bring it
		os.WriteFile(filepath.Join(values, "README"), make([]byte, 2<<20), 0o600),
		os.WriteFile(filepath.Join(dir, "README"), nil, 0o600),
		os.RemoveAll(filepath.Join(dir, ".index", "chunks", "MANIFEST")),
	)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, blockstore.Options{Dir: dir})
	view := s.Blocks(space)
	// Before the repair, a value that is asked for by name is indexed at once.
	m, err := s.Manifest(t.Context(), space, came)
	if err != nil || m.Size != int64(len(large(7))) {
		t.Fatalf("Manifest = %d bytes, %v", m.Size, err)
	}
	wantChunks(t.Context(), t, s, space, large(7))
	for range 2 {
		if err := s.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, seed := range []byte{0, 2, 7} {
		wantChunks(t.Context(), t, s, space, large(seed))
	}
	for _, body := range [][]byte{large(1), large(8), large(9)} {
		_, m, err := blockstore.BuildManifest(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []cid.Cid{m.CID(), m.Links[0].CID(cid.Raw), m.Links[2].CID(cid.Raw)} {
			if _, err := view.Get(t.Context(), c); !ipld.IsNotFound(err) {
				t.Errorf("block %s: %v", c, err)
			}
		}
	}
	// The wrong one is still read as it was recorded, and peers are told it isn't here.
	if has, err := s.Has(t.Context(), space, wrong); !has || err != nil {
		t.Errorf("Has = %v, %v", has, err)
	}
	if _, err := s.Manifest(t.Context(), space, wrong); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("Manifest of a wrong value: %v", err)
	}
	// Until someone brings the right bytes.
	if err := store(t.Context(), s, space, large(8)); err != nil {
		t.Fatal(err)
	}
	wantChunks(t.Context(), t, s, space, large(8))
	if m, err := s.Manifest(t.Context(), space, wrong); err != nil || len(m.Links) != 3 {
		t.Errorf("Manifest = %d links, %v", len(m.Links), err)
	}
}

// TestLargestManifest puts the longest record into the index that there can be, for a value that isn't
// there.
func TestLargestManifest(t *testing.T) {
	list := manifests()
	m := list[len(list)-1]
	s := open(t, blockstore.Options{Dir: t.TempDir()})
	space, value := blockstoretest.Space(t, "default"), tinycloud.Sum([]byte("value"))
	got, err := s.IndexRoundTrip(t.Context(), space, value, m)
	if err != nil || got.Size != m.Size || len(got.Links) != blockstore.MaxLinks || got.CID() != m.CID() {
		t.Errorf("%d bytes, %d links, %v", got.Size, len(got.Links), err)
	}
}
