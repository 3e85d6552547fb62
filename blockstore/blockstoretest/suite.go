package blockstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
)

// InlineLimit is the one the suite opens stores with.
const InlineLimit = 4 << 10

// A Place opens stores that see the same values, one at a time. It sets in the options what says where.
type Place func(blockstore.Options) (*blockstore.Store, error)

// Run tests the stores of a kind of place; newPlace makes an empty one.
func Run(t *testing.T, newPlace func(*testing.T) Place) {
	for _, staging := range []blockstore.Staging{blockstore.Memory, blockstore.FileSystem} {
		for _, tt := range []struct {
			name string
			run  func(*testing.T, *bench)
		}{
			{"round trip", testRoundTrip},
			{"bad bodies", testBadBodies},
			{"stage ends", testStageEnds},
			{"spaces are apart", testSpacesApart},
			{"delete", testDelete},
			{"collect", testCollect},
			{"walk", testWalk},
			{"put value", testPutValue},
			{"concurrent commits", testConcurrentCommits},
			{"blocks", testBlocks},
			{"shared chunk", testSharedChunk},
			{"blocks are read-only", testBlocksReadOnly},
			{"assembly", testAssembly},
			{"assembly resumes", testAssemblyResumes},
			{"assembly of lies", testAssemblyOfLies},
		} {
			t.Run(fmt.Sprintf("%s/%s", staging, tt.name), func(t *testing.T) {
				b := &bench{t: t, place: newPlace(t), staging: staging}
				b.reopen()
				t.Cleanup(func() { b.must(b.Close()) })
				tt.run(t, b)
			})
		}
	}
}

// bench is a store under test.
type bench struct {
	*blockstore.Store
	t       *testing.T
	place   Place
	staging blockstore.Staging
	inline  map[tinycloud.Hash][]byte
}

func (b *bench) reopen() {
	b.t.Helper()
	if b.Store != nil {
		b.must(b.Close())
	}
	s, err := b.place(blockstore.Options{
		Staging: b.staging, InlineLimit: InlineLimit, MemoryLimit: 2 << 20,
		Inline: func(_ context.Context, _ tinycloud.SpaceID, h tinycloud.Hash) ([]byte, error) {
			if v, ok := b.inline[h]; ok {
				return v, nil
			}
			return nil, fmt.Errorf("inline %s: %w", h, tinycloud.ErrNotFound)
		},
	})
	b.must(err)
	b.Store = s
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) commit(space tinycloud.SpaceID, body []byte) tinycloud.Hash {
	b.t.Helper()
	st, err := b.Stage(b.t.Context(), bytes.NewReader(body), int64(len(body)))
	b.must(err)
	b.must(st.Commit(b.t.Context(), space))
	return st.Hash()
}

func (b *bench) wantValue(space tinycloud.SpaceID, want []byte) {
	b.t.Helper()
	v, size, err := b.Open(b.t.Context(), space, tinycloud.Sum(want))
	b.must(err)
	got, err := io.ReadAll(v)
	b.must(errors.Join(err, v.Close()))
	if size != int64(len(want)) || !bytes.Equal(got, want) {
		b.t.Fatalf("value of %d bytes came back as %d, size %d", len(want), len(got), size)
	}
}

func (b *bench) wantAbsent(space tinycloud.SpaceID, hash tinycloud.Hash) {
	b.t.Helper()
	has, err := b.Has(b.t.Context(), space, hash)
	if has || err != nil {
		b.t.Errorf("Has = %v, %v, want absent", has, err)
	}
	_, _, err = b.Open(b.t.Context(), space, hash)
	b.wantClass(err, tinycloud.ErrNotFound)
	_, err = b.Size(b.t.Context(), space, hash)
	b.wantClass(err, tinycloud.ErrNotFound)
}

func (b *bench) wantClass(err, class error) {
	b.t.Helper()
	if !errors.Is(err, class) {
		b.t.Errorf("error %v, want class %v", err, class)
	}
}

// Space returns one of many Spaces.
func Space(t testing.TB, name string) tinycloud.SpaceID {
	t.Helper()
	space, err := tinycloud.ParseSpaceID("tinycloud:pkh:eip155:1:0x7BD63AA37326a64d458559F44432103e3d6eEDE9:" + name)
	if err != nil {
		t.Fatal(err)
	}
	return space
}

// Body returns bytes without pattern, the same for a seed each time.
func Body(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

var sizes = []int{
	0, 1, InlineLimit, InlineLimit + 1, 300_000, blockstore.ChunkSize - 1, blockstore.ChunkSize,
	blockstore.ChunkSize + 1, 3*blockstore.ChunkSize + 5, 4 * blockstore.ChunkSize,
}

func testRoundTrip(t *testing.T, b *bench) {
	space := Space(t, "default")
	for i, size := range sizes {
		body := Body(byte(i), size)
		st, err := b.Stage(t.Context(), iotest.HalfReader(bytes.NewReader(body)), int64(size))
		b.must(err)
		if st.Hash() != tinycloud.Sum(body) || st.Size() != int64(size) {
			t.Fatalf("size %d: staged as %s, %d bytes", size, st.Hash(), st.Size())
		}
		got, inline := st.Bytes()
		if inline != (size <= InlineLimit) || inline && (got == nil || !bytes.Equal(got, body)) {
			t.Errorf("size %d: Bytes = %d bytes, %v", size, len(got), inline)
		}
		again, err := st.Open()
		b.must(err)
		testReader(t, again, body)
		_, want, err := blockstore.BuildManifest(bytes.NewReader(body))
		b.must(err)
		if d := cmp.Diff(want, st.Manifest()); d != "" {
			t.Errorf("size %d: manifest: %s", size, d)
		}
		b.wantAbsent(space, st.Hash())
		b.must(st.Commit(t.Context(), space))
		b.wantValue(space, body)
	}
	b.reopen()
	for i, size := range sizes {
		body := Body(byte(i), size)
		b.wantValue(space, body)
		b.must(b.Verify(t.Context(), space, tinycloud.Sum(body)))
		v, _, err := b.Open(t.Context(), space, tinycloud.Sum(body))
		b.must(err)
		testReader(t, v, body)
		b.must(v.Close())
	}
}

// testReader checks what reading and seeking give; byte by byte only in values that are short.
func testReader(t *testing.T, v *blockstore.Value, body []byte) {
	t.Helper()
	if len(body) <= InlineLimit+1 {
		if err := iotest.TestReader(v, body); err != nil {
			t.Errorf("size %d: %v", len(body), err)
		}
		return
	}
	end := body[len(body)-100:]
	if at, err := v.Seek(-100, io.SeekEnd); err != nil || at != int64(len(body)-100) {
		t.Errorf("size %d: Seek = %d, %v", len(body), at, err)
	}
	if got, err := io.ReadAll(v); err != nil || !bytes.Equal(got, end) {
		t.Errorf("size %d: read %d bytes after Seek, %v", len(body), len(got), err)
	}
	got := make([]byte, 100)
	if _, err := v.ReadAt(got, int64(len(body)-100)); err != nil || !bytes.Equal(got, end) {
		t.Errorf("size %d: ReadAt: %v", len(body), err)
	}
}

func testBadBodies(t *testing.T, b *bench) {
	space := Space(t, "default")
	cut := errors.New("connection reset")
	for _, size := range []int{1, InlineLimit, InlineLimit + 1, blockstore.ChunkSize + 1, 3 * blockstore.ChunkSize} {
		body := Body(1, size)
		_, err := b.Stage(t.Context(), bytes.NewReader(body), int64(size-1))
		b.wantClass(err, tinycloud.ErrTooLarge)
		_, err = b.Stage(t.Context(), io.MultiReader(bytes.NewReader(body), iotest.ErrReader(cut)), 1<<30)
		b.wantClass(err, cut)
		ctx, cancel := context.WithCancel(t.Context())
		_, err = b.Stage(ctx, io.MultiReader(bytes.NewReader(body), readerFunc(func([]byte) (int, error) {
			cancel()
			return 1, nil
		})), 1<<30)
		b.wantClass(err, context.Canceled)
		b.wantAbsent(space, tinycloud.Sum(body))
	}
	_, err := b.Stage(t.Context(), readerFunc(func([]byte) (int, error) { return 0, nil }), 1)
	b.wantClass(err, io.ErrNoProgress)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func testStageEnds(t *testing.T, b *bench) {
	space := Space(t, "default")
	for i, size := range sizes {
		body := Body(byte(i), size)
		st, err := b.Stage(t.Context(), bytes.NewReader(body), int64(size))
		b.must(err)
		st.Discard()
		st.Discard()
		b.wantClass(st.Commit(t.Context(), space), tinycloud.ErrInvalid)
		_, err = st.Open()
		b.wantClass(err, tinycloud.ErrInvalid)
		b.wantAbsent(space, st.Hash())
	}
}

func testSpacesApart(t *testing.T, b *bench) {
	one, two := Space(t, "one"), Space(t, "two")
	for i, size := range sizes {
		body := Body(byte(i), size)
		hash := b.commit(one, body)
		b.wantAbsent(two, hash)
		for _, c := range cids(t, body) {
			b.wantNoBlock(two, c)
		}
		b.commit(two, body)
		b.must(b.Delete(t.Context(), one, hash))
		b.wantAbsent(one, hash)
		b.wantValue(two, body)
		b.wantBlocks(two, body)
	}
}

func testDelete(t *testing.T, b *bench) {
	space := Space(t, "default")
	for i, size := range sizes {
		body := Body(byte(i), size)
		hash := b.commit(space, body)
		v, _, err := b.Open(t.Context(), space, hash)
		b.must(err)
		b.must(b.Delete(t.Context(), space, hash))
		b.must(b.Delete(t.Context(), space, hash))
		if got, err := io.ReadAll(v); err != nil || !bytes.Equal(got, body) {
			t.Errorf("size %d: a value open while deleted read %d bytes, %v", size, len(got), err)
		}
		b.must(v.Close())
		b.wantAbsent(space, hash)
		for _, c := range cids(t, body) {
			b.wantNoBlock(space, c)
		}
		b.commit(space, body)
		b.wantValue(space, body)
	}
}

func testWalk(t *testing.T, b *bench) {
	space, empty := Space(t, "full"), Space(t, "empty")
	want, total := map[tinycloud.Hash]int64{}, int64(0)
	for i, size := range sizes {
		want[b.commit(space, Body(byte(i), size))] = int64(size)
		total += int64(size)
	}
	got := map[tinycloud.Hash]int64{}
	b.must(b.Walk(t.Context(), space, func(h tinycloud.Hash, size int64) error {
		got[h] = size
		return nil
	}))
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	stop, calls := errors.New("enough"), 0
	err := b.Walk(t.Context(), space, func(tinycloud.Hash, int64) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("stopped walk: %d calls, %v", calls, err)
	}
	u, err := b.Usage(t.Context(), space)
	if err != nil || u != (blockstore.Usage{Values: len(sizes), Bytes: total}) {
		t.Errorf("Usage = %+v, %v", u, err)
	}
	if u, err := b.Usage(t.Context(), empty); err != nil || u != (blockstore.Usage{}) {
		t.Errorf("Usage of an empty Space = %+v, %v", u, err)
	}
	other := Space(t, "other")
	b.commit(other, nil)
	var spaces []string
	b.must(b.Spaces(t.Context(), func(s tinycloud.SpaceID) error {
		spaces = append(spaces, s.Name())
		return nil
	}))
	slices.Sort(spaces)
	if d := cmp.Diff([]string{"full", "other"}, spaces); d != "" {
		t.Error(d)
	}
}

func testPutValue(t *testing.T, b *bench) {
	space := Space(t, "default")
	for i, size := range sizes {
		body := Body(byte(i), size)
		err := b.PutValue(t.Context(), space, tinycloud.Sum(body), body)
		if size > blockstore.ChunkSize {
			b.wantClass(err, tinycloud.ErrTooLarge)
			continue
		}
		b.must(err)
		b.wantValue(space, body)
		b.wantBlocks(space, body)
	}
	hash := tinycloud.Sum([]byte("right"))
	b.wantClass(b.PutValue(t.Context(), space, hash, []byte("wrong")), tinycloud.ErrForged)
	b.wantAbsent(space, hash)
}

func testConcurrentCommits(t *testing.T, b *bench) {
	space := Space(t, "default")
	for i, size := range []int{100, 100_000, 2*blockstore.ChunkSize + 1} {
		body := Body(byte(i), size)
		errs := make(chan error, 16)
		var wg sync.WaitGroup
		for range cap(errs) {
			wg.Go(func() {
				st, err := b.Stage(t.Context(), bytes.NewReader(body), int64(size))
				if err == nil {
					err = st.Commit(t.Context(), space)
				}
				errs <- err
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			b.must(err)
		}
		b.wantValue(space, body)
		b.wantBlocks(space, body)
	}
	if u, err := b.Usage(t.Context(), space); err != nil || u.Values != 3 {
		t.Errorf("Usage = %+v, %v", u, err)
	}
}
