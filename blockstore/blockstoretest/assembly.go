package blockstoretest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
)

// split returns a body's digest, manifest and chunks.
func split(t *testing.T, body []byte) (tinycloud.Hash, blockstore.Manifest, [][]byte) {
	t.Helper()
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return hash, m, slices.Collect(slices.Chunk(body, blockstore.ChunkSize))
}

func testAssembly(t *testing.T, b *bench) {
	space := Space(t, "default")
	chunk := Body(1, blockstore.ChunkSize)
	for _, body := range [][]byte{
		Body(2, blockstore.ChunkSize+1), Body(3, 10*blockstore.ChunkSize), slices.Concat(chunk, chunk, []byte("end")),
		make([]byte, 3*blockstore.ChunkSize),
	} {
		hash, m, chunks := split(t, body)
		a, err := b.Assemble(t.Context(), space, hash, m)
		b.must(err)
		_, err = b.Assemble(t.Context(), space, hash, m)
		b.wantClass(err, tinycloud.ErrConflict)
		b.wantClass(a.Finish(t.Context()), tinycloud.ErrInvalid)
		for i := len(chunks) - 1; i >= 0; i-- {
			b.wantClass(a.PutChunk(m.Links[i], []byte("junk")), tinycloud.ErrForged)
			b.must(a.PutChunk(m.Links[i], chunks[i]))
			b.must(a.PutChunk(m.Links[i], chunks[i]))
			if slices.Contains(a.Missing(), m.Links[i]) {
				t.Errorf("chunk %d still missing", i)
			}
		}
		b.wantClass(a.PutChunk(tinycloud.Sum([]byte("other")), []byte("other")), tinycloud.ErrInvalid)
		b.wantAbsent(space, hash)
		b.must(a.Finish(t.Context()))
		b.wantClass(a.Finish(t.Context()), tinycloud.ErrInvalid)
		b.wantClass(a.PutChunk(m.Links[0], chunks[0]), tinycloud.ErrInvalid)
		b.wantValue(space, body)
		b.wantBlocks(space, body)
		if _, ok := b.Partial(space, hash); ok {
			t.Error("a finished assembly is partial")
		}
	}
}

func testAssemblyResumes(t *testing.T, b *bench) {
	space := Space(t, "default")
	body := Body(1, 9*blockstore.ChunkSize+77)
	hash, m, chunks := split(t, body)
	for i := range chunks {
		a, err := b.Assemble(t.Context(), space, hash, m)
		b.must(err)
		if d := cmp.Diff(m.Links[i:], a.Missing()); d != "" {
			t.Fatal(d)
		}
		b.must(a.PutChunk(m.Links[i], chunks[i]))
		if i%2 == 0 {
			b.must(a.Close())
		} // else it is left as a kill would leave it
		b.reopen()
		got, ok := b.Partial(space, hash)
		if d := cmp.Diff(m, got); !ok || d != "" {
			t.Fatal(ok, d)
		}
	}
	a, err := b.Assemble(t.Context(), space, hash, m)
	b.must(err)
	if n := len(a.Missing()); n != 0 {
		t.Fatalf("%d chunks missing", n)
	}
	b.must(a.Finish(t.Context()))
	b.wantValue(space, body)
}

func testAssemblyOfLies(t *testing.T, b *bench) {
	space := Space(t, "default")
	body := Body(1, 2*blockstore.ChunkSize+77)
	hash, m, chunks := split(t, body)
	for _, bad := range []blockstore.Manifest{
		{},
		{Size: blockstore.ChunkSize, Links: m.Links[:1]},
		{Size: m.Size, Links: m.Links[:2]},
		{Size: m.Size - 77, Links: m.Links},
		{Size: -1},
		{Size: blockstore.MaxSize + 1, Links: m.Links},
	} {
		_, err := b.Assemble(t.Context(), space, hash, bad)
		b.wantClass(err, tinycloud.ErrInvalid)
	}
	// The manifest of something else.
	other := slices.Concat(body[:2*blockstore.ChunkSize], []byte("something else"))
	_, lie, lies := split(t, other)
	a, err := b.Assemble(t.Context(), space, hash, lie)
	b.must(err)
	for i, c := range lies {
		b.must(a.PutChunk(lie.Links[i], c))
	}
	b.wantClass(a.Finish(t.Context()), tinycloud.ErrForged)
	b.wantAbsent(space, hash)
	// A manifest whose lengths contradict its chunks.
	lie = blockstore.Manifest{Size: m.Size, Links: []tinycloud.Hash{m.Links[2], m.Links[1], m.Links[0]}}
	a, err = b.Assemble(t.Context(), space, hash, lie)
	b.must(err)
	b.wantClass(a.PutChunk(m.Links[2], chunks[2]), tinycloud.ErrForged)
	b.must(a.PutChunk(m.Links[1], chunks[1]))
	b.must(a.Close())
	// What a lie brought is not taken for progress of the truth.
	a, err = b.Assemble(t.Context(), space, hash, m)
	b.must(err)
	if n := len(a.Missing()); n != 3 {
		t.Errorf("%d chunks missing, want 3", n)
	}
	for i, c := range chunks {
		b.must(a.PutChunk(m.Links[i], c))
	}
	b.must(a.Finish(t.Context()))
	b.wantValue(space, body)
	b.wantBlocks(space, body)
}
