package p2p

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"
)

// rates is a rate per remote, for a bounded number of them.
type rates struct {
	each  rate.Limit
	burst int

	mu      sync.Mutex
	remotes map[string]*rate.Limiter // guarded by mu
}

func newRates(each rate.Limit, burst int) *rates {
	return &rates{each: each, burst: burst, remotes: map[string]*rate.Limiter{}}
}

// allow takes one from the remote's allowance. When too many remotes are
// remembered those that have their whole burst again are forgotten first, then
// any: callers have a limit over all remotes besides.
func (r *rates) allow(remote string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.remotes[remote]
	if l == nil {
		r.makeRoom()
		l = rate.NewLimiter(r.each, r.burst)
		r.remotes[remote] = l
	}
	return l.Allow()
}

func (r *rates) makeRoom() {
	if len(r.remotes) < limitedRemotes {
		return
	}
	for id, l := range r.remotes {
		if l.Tokens() >= float64(r.burst) {
			delete(r.remotes, id)
		}
	}
	for id := range r.remotes {
		if len(r.remotes) < limitedRemotes {
			return
		}
		delete(r.remotes, id)
	}
}

// origin is what a connection counts against: its IP address, of IPv6 the /56,
// or, over a relay, the peer. Peer IDs cost nothing.
func origin(c network.Conn) string {
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return string(c.RemotePeer())
	}
	if v4 := ip.To4(); v4 != nil {
		return string(v4)
	}
	return string(ip[:7])
}

// Handle registers the handler of a protocol between nodes, which strangers
// may open. Streams beyond the allowance of their origin, or of all, are reset
// unheard; others have a deadline. The handler's context has the values of ctx
// and ends with the front, whose Close waits for the handlers. Whoever lists a
// front's protocols sees it; what it says about Spaces is the handler's.
func (f *Front) Handle(ctx context.Context, proto protocol.ID, h func(ctx context.Context, s network.Stream)) {
	f.HandleTrusted(ctx, proto, func(peer.ID) bool { return false }, h)
}

// HandleTrusted is [Front.Handle] with an allowance of its own for each of the remotes that are trusted, which
// strangers don't use up.
func (f *Front) HandleTrusted(ctx context.Context, proto protocol.ID, trusted func(peer.ID) bool, h func(ctx context.Context, s network.Stream)) {
	strangers := newGuard(guardedPerSecond, guardedBurst, guardedGlobal)
	friends := newGuard(trustedPerSecond, trustedBurst, trustedGlobal)
	life, ok := f.life(ctx)
	if !ok {
		return
	}
	f.host.SetStreamHandler(proto, func(s network.Stream) {
		if !f.enter() {
			_ = s.Reset()
			return
		}
		defer f.running.Done()
		g, who := strangers, origin(s.Conn())
		if id := s.Conn().RemotePeer(); trusted(id) {
			g, who = friends, string(id)
		}
		leave, ok := g.enter(who)
		if !ok {
			_ = s.Reset()
			return
		}
		defer leave()
		_ = s.SetDeadline(time.Now().Add(guardedTimeout))
		h(life, s)
	})
}

// guard bounds the streams of one protocol, of each remote and of all together.
type guard struct {
	each  *rates
	all   *rate.Limiter
	slots chan struct{}
}

func newGuard(each rate.Limit, burst, all int) *guard {
	return &guard{newRates(each, burst), rate.NewLimiter(rate.Limit(all), all), make(chan struct{}, guardedStreams)}
}

// enter admits a stream until leave is called.
func (g *guard) enter(remote string) (leave func(), ok bool) {
	if !g.each.allow(remote) || !g.all.Allow() {
		return nil, false
	}
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots }, true
	default:
		return nil, false
	}
}

// enter counts a running handler, unless the front is closed.
func (f *Front) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.running.Add(1)
	return true
}

// NewStream opens a stream to another front, at the addresses of [ParseFrontAddr]
// or those it is known by. Errors: [ErrUnreachable], or that of ctx.
func (f *Front) NewStream(ctx context.Context, front peer.AddrInfo, proto protocol.ID) (network.Stream, error) {
	if f.link != nil {
		return f.link.stream(ctx, front, proto)
	}
	if err := f.Connect(ctx, front); err != nil {
		return nil, err
	}
	s, err := f.host.NewStream(ctx, front.ID, proto)
	if err != nil {
		return nil, unreachable(ctx, front.ID, err)
	}
	return s, nil
}

// Connect dials another front unless it is connected. Errors: [ErrUnreachable],
// or that of ctx.
func (f *Front) Connect(ctx context.Context, front peer.AddrInfo) error {
	if f.link != nil {
		return f.link.dial(ctx, front)
	}
	f.swarm.Backoff().Clear(front.ID) // when to try again is the caller's decision
	if err := f.host.Connect(ctx, front); err != nil {
		return unreachable(ctx, front.ID, err)
	}
	return nil
}

// Recheck ends the connections with fronts that [Options].Admits refuses now.
func (f *Front) Recheck() {
	if f.link != nil { // the process that has the front does
		return
	}
	for _, id := range f.swarm.Peers() {
		if !f.admits(id) && !f.isProcess(id) {
			_ = f.swarm.ClosePeer(id)
		}
	}
}

func unreachable(ctx context.Context, front peer.ID, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("front %s: %w", front, ctx.Err())
	}
	return fmt.Errorf("front %s: %w: %w", front, ErrUnreachable, err)
}
