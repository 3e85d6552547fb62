package p2p_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// Whoever asks from one address, under however many names, has one allowance. What is asked of Spaces that are not here
// costs nobody anything.
func TestWakeBudgets(t *testing.T) {
	here, calls := peer.ID("here"), 0
	wake := p2p.Waker(func(context.Context, peer.ID, p2p.Caller) bool { calls++; return true }, func(id peer.ID) bool { return id == here })
	ask := func(n int, origin string, space peer.ID) (woken int) {
		for i := range n {
			if wake(t.Context(), p2p.Caller{Front: peer.ID(fmt.Sprint("front ", i)), Origin: origin}, space) {
				woken++
			}
		}
		return woken
	}
	if n := ask(10_000, "192.0.2.1", "elsewhere"); n != 0 || calls != 0 {
		t.Errorf("a Space that is not here was woken %d times, asked of %d times", n, calls)
	}
	if n := ask(200, "192.0.2.1", here); n < 64 || n > 80 {
		t.Errorf("one address woke %d times", n)
	}
	if n := ask(10, "192.0.2.2", here); n != 10 {
		t.Errorf("another woke %d times of 10", n)
	}
}
