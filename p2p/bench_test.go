package p2p_test

import (
	"context"
	"io"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// BenchmarkConnect is one more Space between two nodes that are connected:
// until both sides know of the secured connection.
func BenchmarkConnect(b *testing.B) {
	for name, listen := range map[string]string{"tcp": tcpAddr, "quic": quicAddr} {
		b.Run(name, func(b *testing.B) {
			x := newSpace(b, newFront(b, p2p.Options{}, listen))
			y := newSpace(b, newFront(b, p2p.Options{}, listen))
			connect(b, x, y)
			for b.Loop() {
				b.StopTimer()
				x.Evict(y.ID())
				wait(b, x.down, "disconnect")
				wait(b, y.down, "disconnect")
				b.StartTimer()
				connect(b, x, y)
			}
		})
	}
}

// BenchmarkOpen is the start and end of one Space peer with its gossipsub and
// bitswap.
func BenchmarkOpen(b *testing.B) {
	f := newFront(b, p2p.Options{})
	store := newSpace(b, f).store
	for b.Loop() {
		p, err := f.Open(b.Context(), p2p.PeerOptions{Key: newKey(b), Blocks: store})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGossip is the way of one message of 1 KiB from publish to check.
func BenchmarkGossip(b *testing.B) {
	for name, listen := range map[string]string{"tcp": tcpAddr, "quic": quicAddr} {
		b.Run(name, func(b *testing.B) {
			x, y := pair(b, listen)
			data := make([]byte, 1<<10)
			ctx := context.Background()
			for b.Loop() {
				if err := x.topic.Publish(ctx, data); err != nil {
					b.Fatal(err)
				}
				<-y.got
			}
		})
	}
}

// BenchmarkFetch is one block of 64 KiB over bitswap.
func BenchmarkFetch(b *testing.B) {
	x, y := pair(b, tcpAddr)
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		copy(data, []byte{byte(n), byte(n >> 8), byte(n >> 16)})
		c := x.put(b, string(data))
		b.StartTimer()
		if got := y.fetch(b, soon, c); len(got) != 1 {
			b.Fatal("no block")
		}
	}
}

// BenchmarkFetchMany is 64 blocks of 1 MiB in one call.
func BenchmarkFetchMany(b *testing.B) {
	x, y := pair(b, tcpAddr)
	const blocks, size = 64, 1 << 20
	b.SetBytes(blocks * size)
	data := make([]byte, size)
	n := 0
	for b.Loop() {
		b.StopTimer()
		cids := make([]cid.Cid, blocks)
		for i := range cids {
			n++
			copy(data, []byte{byte(n), byte(n >> 8), byte(n >> 16)})
			cids[i] = x.put(b, string(data))
		}
		b.StartTimer()
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		c, err := y.Fetch(ctx, cids)
		if err != nil {
			b.Fatal(err)
		}
		got := 0
		for range c {
			got++
		}
		cancel()
		if got != blocks {
			b.Fatalf("%d blocks", got)
		}
	}
}

// BenchmarkStream is bulk data over one stream of a Space.
func BenchmarkStream(b *testing.B) {
	x, y := pair(b, tcpAddr)
	y.Handle(syncID, func(s network.Stream) { _, _ = io.Copy(io.Discard, s); _ = s.Close() })
	s, err := x.NewStream(testContext(b), y.ID(), syncID)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := s.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	_ = s.CloseWrite()
	_, _ = s.Read(data[:1])
}

func pair(b *testing.B, listen string) (x, y *space) {
	b.Helper()
	x = newSpace(b, newFront(b, p2p.Options{}, listen))
	y = newSpace(b, newFront(b, p2p.Options{}, listen))
	connect(b, x, y)
	authorise(x, y)
	joined(b, x, y)
	joined(b, y, x)
	return x, y
}
