package replication_test

import (
	"context"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// window is an assembly that looks, at each chunk, at which fetches there were.
type window struct {
	replication.Assembly
	t       *testing.T
	missing []tinycloud.Hash
	fetches []context.Context
	put     int
}

func (w *window) Missing() []tinycloud.Hash { return w.missing }

func (w *window) fetch(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error) {
	w.fetches = append(w.fetches, ctx)
	came := make(chan blocks.Block, len(cids))
	for _, c := range cids {
		b, err := blocks.NewBlockWithCid(nil, c)
		if err != nil {
			return nil, err
		}
		came <- b
	}
	close(came)
	return came, nil
}

func (w *window) PutChunk(chunk tinycloud.Hash, _ []byte) error {
	if chunk != w.missing[w.put] {
		w.t.Errorf("chunk %d is another", w.put)
	}
	group := w.put / 4
	w.put++
	if want := min(group+3, (len(w.missing)+3)/4); len(w.fetches) != want {
		w.t.Errorf("chunk %d: %d fetches instead of %d", w.put, len(w.fetches), want)
	}
	for i, ctx := range w.fetches {
		if (ctx.Err() != nil) != (i < group) {
			w.t.Errorf("chunk %d: fetch %d: %v", w.put, i, ctx.Err())
		}
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > 5*time.Minute {
			w.t.Errorf("fetch %d: deadline %s", i, end)
		}
	}
	return nil
}

// While chunks are written the next ones are on their way, no more than memory is reserved for, and what is
// done with is ended.
func TestChunksKeepComing(t *testing.T) {
	for _, n := range []int{0, 1, 4, 11, 50} {
		w := &window{t: t}
		for i := range n {
			w.missing = append(w.missing, tinycloud.Sum([]byte{byte(i)}))
		}
		if err := replication.FetchChunks(t.Context(), w.fetch, w); err != nil {
			t.Error(err)
		}
		if w.put != n {
			t.Errorf("%d chunks of %d", w.put, n)
		}
		for i, ctx := range w.fetches {
			if ctx.Err() == nil {
				t.Errorf("fetch %d goes on", i)
			}
		}
	}
}
