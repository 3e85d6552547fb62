package blockstore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// TestLayout checks the names of docs/protocol.md, "Values", the modes, and that nothing else stays.
func TestLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "too")
	s := open(t, blockstore.Options{Dir: dir, IndexDir: t.TempDir()})
	if err := store(t.Context(), s, blockstoretest.Space(t, "default"), nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"/pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9/default/rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI="}
	if d := cmp.Diff(want, leftovers(t, dir)); d != "" {
		t.Error(d)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if want := fs.FileMode(0o600); err == nil && !d.IsDir() && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if want := fs.FileMode(0o700); err == nil && d.IsDir() && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPathsStayInside stores under the worst Space ids that parse, and none that doesn't.
func TestPathsStayInside(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "blocks")
	s := open(t, blockstore.Options{Dir: dir})
	stored := 0
	for _, name := range []string{
		"..", ".", "...", ".staging", ".index", "%2e%2e", "..%2F..", "a/b", "a\\b", "a\x00b", strings.Repeat("n", 255), strings.Repeat("n", 256),
		"rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI=",
	} {
		for _, owner := range []string{"pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9", "web:..", "x:.", ".:.", "..:..", "a:" + strings.Repeat("o", 253)} {
			space, err := tinycloud.ParseSpaceID("tinycloud:" + owner + ":" + name)
			if err != nil {
				continue
			}
			stored++
			if err := store(t.Context(), s, space, []byte("value")); err != nil {
				t.Errorf("space %q: %v", space, err)
			}
		}
	}
	if stored < 6 {
		t.Errorf("only %d Space ids parsed", stored)
	}
	files := leftovers(t, root)
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasPrefix(f, "/a/blocks/.index/") })
	for _, f := range files {
		if parts := strings.Split(f, "/"); len(parts) != 6 || parts[2] != "blocks" || slices.Contains(parts, "..") {
			t.Errorf("value at %q", f)
		}
	}
	if len(files) != stored {
		t.Errorf("%d files for %d values", len(files), stored)
	}
	err := store(t.Context(), s, tinycloud.SpaceID{}, []byte("value"))
	if !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("no space: %v", err)
	}
}

// TestInlineNeverTouchesDisk stages on a disk where every operation fails.
func TestInlineNeverTouchesDisk(t *testing.T) {
	fsys := &failingFS{err: syscall.EIO}
	s := open(t, blockstore.Options{Dir: t.TempDir(), FS: fsys, Staging: blockstore.FileSystem, InlineLimit: 1000})
	fsys.left.Store(1)
	body := blockstoretest.Body(1, 1000)
	st, err := s.Stage(t.Context(), bytes.NewReader(body), 1000)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := st.Bytes()
	if !ok || !bytes.Equal(got, body) {
		t.Errorf("Bytes = %d bytes, %v", len(got), ok)
	}
	st.Discard()
	if fsys.left.Swap(0) != 1 {
		t.Errorf("%s was done", fsys.what)
	}
}

// TestMemoryLimit counts the files that bodies spill to when they don't fit in memory together.
func TestMemoryLimit(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blockstore.Options{Dir: dir, Staging: blockstore.Memory, MemoryLimit: 1 << 20})
	stage := func(seed byte) *blockstore.Stage {
		st, err := s.Stage(t.Context(), bytes.NewReader(blockstoretest.Body(seed, 500_000)), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	one, two, three := stage(1), stage(2), stage(3)
	if n := len(leftovers(t, dir)); n < 1 || n > 2 {
		t.Errorf("%d of three bodies in files", n)
	}
	for _, st := range []*blockstore.Stage{one, two, three} {
		st.Discard()
	}
	four := stage(4)
	if files := leftovers(t, dir); len(files) != 0 {
		t.Errorf("memory was not given back: %q", files)
	}
	if err := four.Commit(t.Context(), blockstoretest.Space(t, "default")); err != nil {
		t.Fatal(err)
	}
}

func TestCrashLeftovers(t *testing.T) {
	dir := t.TempDir()
	s, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir, Staging: blockstore.FileSystem})
	if err != nil {
		t.Fatal(err)
	}
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 3*blockstore.ChunkSize)
	if _, err := s.Stage(t.Context(), bytes.NewReader(body), 1<<30); err != nil {
		t.Fatal(err)
	}
	var parts []blockstore.Manifest
	for seed := range byte(2) {
		hash, m, err := blockstore.BuildManifest(bytes.NewReader(blockstoretest.Body(seed, 3*blockstore.ChunkSize)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Assemble(t.Context(), space, hash, m); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, m)
	}
	if n := len(leftovers(t, dir)); n != 5 {
		t.Fatalf("%d files, want a body and two assemblies", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob(filepath.Join(dir, ".staging", "*.map"))
	if err != nil || len(old) != len(parts) {
		t.Fatal(old, err)
	}
	past := time.Now().Add(-30 * 24 * time.Hour)
	base := strings.TrimSuffix(old[0], ".map")
	if err := errors.Join(os.Chtimes(base+".map", past, past), os.Chtimes(base+".part", past, past)); err != nil {
		t.Fatal(err)
	}
	open(t, blockstore.Options{Dir: dir})
	want := []string{strings.TrimPrefix(strings.TrimSuffix(old[1], "map")+"map", dir), strings.TrimPrefix(strings.TrimSuffix(old[1], "map")+"part", dir)}
	if d := cmp.Diff(want, leftovers(t, dir)); d != "" {
		t.Error(d)
	}
}

// TestRecommitRepairs stores values over what a crash or a failing disk made of them.
func TestRecommitRepairs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blockstore.Options{Dir: dir})
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 100_000)
	for _, bad := range [][]byte{nil, body[:5000], blockstoretest.Body(2, len(body))} {
		if err := store(t.Context(), s, space, body); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, leftovers(t, dir)[0]), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); !errors.Is(err, tinycloud.ErrForged) {
			t.Errorf("Verify: %v", err)
		}
		if _, err := s.Blocks(space).Get(t.Context(), tinycloud.Sum(body).CID(cid.Raw)); !ipld.IsNotFound(err) {
			t.Errorf("a damaged block was given: %v", err)
		}
		if err := store(t.Context(), s, space, body); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), space, tinycloud.Sum(body)); err != nil {
			t.Error(err)
		}
	}
}

// TestSecondProcess checks that a store in use is neither opened, nor swept, nor its index rebuilt.
func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blockstore.Options{Dir: dir})
	space := blockstoretest.Space(t, "default")
	body := blockstoretest.Body(1, 2*blockstore.ChunkSize)
	st, err := s.Stage(t.Context(), bytes.NewReader(body), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blockstore.Open(t.Context(), blockstore.Options{Dir: dir}); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Fatalf("second Open: %v", err)
	}
	if err := st.Commit(t.Context(), space); err != nil {
		t.Error(err)
	}
	wantChunks(t.Context(), t, s, space, body)
}

func wantChunks(ctx context.Context, t *testing.T, s *blockstore.Store, space tinycloud.SpaceID, body []byte) {
	t.Helper()
	_, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blocks(space).Get(ctx, m.CID()); err != nil {
		t.Errorf("manifest: %v", err)
	}
	for i, link := range m.Links {
		if _, err := s.Blocks(space).Get(ctx, link.CID(cid.Raw)); err != nil {
			t.Errorf("chunk %d: %v", i, err)
		}
	}
}
