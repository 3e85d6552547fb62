package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

func TestAllowBlock(t *testing.T) {
	secret := newBlock(t, "secret")
	asked := make(chan peer.ID, 16)
	a := newSpace(t, newFront(t, p2p.Options{}), func(o *p2p.PeerOptions) {
		o.AllowBlock = func(id peer.ID, c cid.Cid) bool {
			if c.Equals(secret.Cid()) {
				select {
				case asked <- id:
				default:
				}
				return false
			}
			return true
		}
	})
	b := newSpace(t, newFront(t, p2p.Options{}))
	a.put(t, "secret")
	public := a.put(t, "public")
	connect(t, a, b)
	authorise(a, b)
	if got := b.fetch(t, 500*time.Millisecond, secret.Cid(), public); !slices.Equal(got, []string{"public"}) {
		t.Errorf("fetched %q, want only the allowed block", got)
	}
	if id := wait(t, asked, "question"); id != b.ID() {
		t.Errorf("asked about %s", id)
	}
}

func TestFetchArguments(t *testing.T) {
	f := newFront(t, p2p.Options{})
	a := newSpace(t, f)
	c := newBlock(t, "x").Cid()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		cids []cid.Cid
	}{
		{"no deadline", context.Background(), []cid.Cid{c}},
		{"too many", testContext(t), slices.Repeat([]cid.Cid{c}, p2p.MaxFetch+1)},
		{"undefined", testContext(t), []cid.Cid{cid.Undef}},
	} {
		if _, err := a.Fetch(tt.ctx, tt.cids); !errors.Is(err, p2p.ErrInvalid) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	none := newSpace(t, f, func(o *p2p.PeerOptions) { o.Blocks = nil })
	if _, err := none.Fetch(testContext(t), []cid.Cid{c}); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("without blocks: %v", err)
	}
	if _, err := none.Series(testContext(t)); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("series without blocks: %v", err)
	}
}

// The fetches of a series overlap, and bitswap runs as long as the series does.
func TestSeries(t *testing.T) {
	a, b := newSpace(t, newFront(t, p2p.Options{})), newSpace(t, newFront(t, p2p.Options{}))
	connect(t, a, b)
	authorise(a, b)
	ctx, end := context.WithCancel(testContext(t))
	defer end()
	fetch, err := a.Series(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(context.Background(), nil); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("without a deadline: %v", err)
	}
	first, err := fetch(ctx, []cid.Cid{b.put(t, "1"), b.put(t, "2")})
	if err != nil {
		t.Fatal(err)
	}
	second, err := fetch(ctx, []cid.Cid{b.put(t, "3")})
	if err != nil {
		t.Fatal(err)
	}
	for i, came := range []<-chan blocks.Block{second, first} {
		n := 0
		for range came {
			n++
		}
		if n != i+1 {
			t.Errorf("%d blocks instead of %d", n, i+1)
		}
	}
	if p2p.Rest(a.Peer) {
		t.Error("bitswap rests within a series")
	}
	end()
	eventually(t, "rest after the series", func() bool { return p2p.Rest(a.Peer) })
}

// A block stored while a peer waits for it is pushed to it.
// Bitswap rests when it is idle, at one side or both, and runs again when it is
// needed.
func TestBlocksRest(t *testing.T) {
	a, b := newSpace(t, newFront(t, p2p.Options{})), newSpace(t, newFront(t, p2p.Options{}))
	connect(t, a, b)
	authorise(a, b)
	if !p2p.Rest(a.Peer) || !p2p.Rest(b.Peer) {
		t.Error("bitswap runs though nobody used it")
	}
	for _, resting := range [][]*space{{a}, {b}, {a, b}, {}} {
		if got := a.fetch(t, soon, b.put(t, fmt.Sprint("for a after ", len(resting)))); len(got) != 1 {
			t.Fatalf("a got %d blocks", len(got))
		}
		if got := b.fetch(t, soon, a.put(t, fmt.Sprint("for b after ", len(resting)))); len(got) != 1 {
			t.Fatalf("b got %d blocks", len(got))
		}
		for _, s := range resting {
			eventually(t, "rest", func() bool { return p2p.Rest(s.Peer) })
		}
	}
}

func TestNotifyBlocks(t *testing.T) {
	a, b := newSpace(t, newFront(t, p2p.Options{})), newSpace(t, newFront(t, p2p.Options{}))
	connect(t, a, b)
	authorise(a, b)
	blk := newBlock(t, "later")
	got, err := b.Fetch(testContext(t), []cid.Cid{blk.Cid()})
	if err != nil {
		t.Fatal(err)
	}
	first := a.put(t, "first")
	if got := b.fetch(t, soon, first); len(got) != 1 { // the want above is there by now, too
		t.Fatal("no first block")
	}
	a.put(t, "later")
	if err := a.NotifyBlocks(testContext(t), blk); err != nil {
		t.Fatal(err)
	}
	if b := wait(t, got, "block"); b == nil || string(b.RawData()) != "later" {
		t.Errorf("got %v", b)
	}
}
