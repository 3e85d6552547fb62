package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"
)

// Caller is who asks for a Space peer that is not open.
type Caller struct {
	Front  peer.ID // authenticated
	Origin string  // what it counts against, see origin; on this machine the front itself
}

func callerOf(c network.Conn) Caller {
	by := Caller{c.RemotePeer(), origin(c)}
	if manet.IsIPLoopback(c.RemoteMultiaddr()) {
		by.Origin = string(by.Front)
	}
	return by
}

// find returns the Space peer, waking it when it sleeps and the caller has not asked too often; nil otherwise.
func (f *Front) find(ctx context.Context, by Caller, space peer.ID) *Peer {
	if p := f.lookup(space); p != nil {
		return p
	}
	if !f.waker.wake(ctx, by, space) {
		return nil
	}
	return f.lookup(space)
}

// waker bounds the calls of [Options].Wake.
type waker struct {
	fn    func(context.Context, peer.ID, Caller) bool
	known func(peer.ID) bool
	slots chan struct{} // one per running call

	all     *rate.Limiter
	origins *rates

	mu      sync.Mutex
	running map[wakeKey]*wakeCall // guarded by mu
}

// wakeKey is one question: what another front is refused for says nothing of this one.
type wakeKey struct{ space, front peer.ID }

type wakeCall struct {
	done chan struct{}
	ok   bool // valid when done is closed
}

func newWaker(fn func(context.Context, peer.ID, Caller) bool, known func(peer.ID) bool) *waker {
	if known == nil {
		known = func(peer.ID) bool { return true }
	}
	return &waker{
		fn: fn, known: known,
		slots:   make(chan struct{}, wakeConcurrent),
		all:     rate.NewLimiter(wakeGlobal, wakeGlobal),
		origins: newRates(wakePerSecond, wakeBurst),
		running: map[wakeKey]*wakeCall{},
	}
}

func (w *waker) wake(ctx context.Context, by Caller, space peer.ID) bool {
	if w.fn == nil || !w.known(space) || !w.origins.allow(by.Origin) {
		return false
	}
	key := wakeKey{space, by.Front}
	w.mu.Lock()
	if c := w.running[key]; c != nil {
		w.mu.Unlock()
		<-c.done
		return c.ok
	}
	c := &wakeCall{done: make(chan struct{})}
	w.running[key] = c
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.running, key)
		w.mu.Unlock()
		close(c.done)
	}()
	if !w.enter(ctx) {
		return false
	}
	defer func() { <-w.slots }()
	c.ok = w.fn(ctx, space, by)
	return c.ok
}

// enter waits a little for a slot: strangers, whose questions take an instant, may hold all.
func (w *waker) enter(ctx context.Context) bool {
	wait := time.NewTimer(wakeWait)
	defer wait.Stop()
	select {
	case w.slots <- struct{}{}:
	case <-wait.C:
		return false
	case <-ctx.Done():
		return false
	}
	if w.all.Allow() {
		return true
	}
	<-w.slots
	return false
}
