package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	punchTick    = 2 * time.Second // between looks for fronts that are connected over others
	punchFirst   = 2 * time.Second // between tries to connect directly to one; doubles
	punchLongest = 5 * time.Minute
	punchTimeout = 30 * time.Second
	observeEvery = 10 * time.Minute // between questions for the address outside
	observers    = 3                // hosts asked at once
)

// puncher connects directly to fronts that are connected over others (DCUtR).
// It works over QUIC, whose dials leave from the port that listens, so that
// what another node sees of one is where the router lets a packet in. Fronts
// are connected by TCP, which tells nothing of that port: a host of the same
// Space is asked over a QUIC connection made for the question.
type puncher struct {
	front *Front
	wake  wait.Signal

	mu       sync.Mutex
	observed []ma.Multiaddr // guarded by mu; this front's, seen from outside

	// Used by run alone.
	asked   time.Time
	service *holepunch.Service
	tries   map[peer.ID]try // of fronts that are connected over others only
}

type try struct {
	next     time.Time
	failures int
}

func newPuncher(f *Front) *puncher {
	return &puncher{front: f, wake: wait.NewSignal(), tries: map[peer.ID]try{}}
}

// again has the fronts looked at soon: there is a new one.
func (u *puncher) again() {
	u.wake.Give()
}

// run works until ctx ends.
func (u *puncher) run(ctx context.Context) {
	tick := time.NewTicker(punchTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if u.service != nil {
				_ = u.service.Close()
			}
			return
		case <-u.wake:
			if u.service == nil {
				u.asked = time.Time{} // the new one may know
			}
		case <-tick.C:
		}
		fronts := u.front.partners()
		if len(fronts) > 0 && time.Since(u.asked) > observeEvery {
			u.asked = time.Now()
			if !u.observe(ctx, fronts) {
				u.asked = u.asked.Add(time.Minute - observeEvery)
			}
		}
		u.direct(ctx, fronts)
	}
}

// direct tries to connect directly to the fronts that are due.
func (u *puncher) direct(ctx context.Context, fronts []peer.ID) {
	for id := range u.tries {
		if !slices.Contains(fronts, id) || !u.front.onlyRelayed(id) {
			delete(u.tries, id)
		}
	}
	for _, id := range fronts {
		if x := u.tries[id]; u.service != nil && u.front.onlyRelayed(id) && time.Now().After(x.next) {
			u.punch(ctx, id)
			x.failures++
			x.next = time.Now().Add(min(punchLongest, punchFirst<<min(x.failures, 16)))
			u.tries[id] = x
		}
		if ctx.Err() != nil {
			return
		}
		u.settle(ctx, id)
	}
}

// observe asks hosts that are connected directly where they see this front.
func (u *puncher) observe(ctx context.Context, fronts []peer.ID) bool {
	var seen []ma.Multiaddr
	asked := 0
	for _, id := range fronts {
		if u.front.onlyRelayed(id) || asked >= observers {
			continue
		}
		asked++
		a, err := u.front.seenBy(ctx, id)
		if err != nil {
			u.front.log.DebugContext(ctx, "no address from outside", "node", id, "error", err)
			continue
		}
		if manet.IsPublicAddr(a) && !slices.ContainsFunc(seen, a.Equal) {
			seen = append(seen, a)
		}
	}
	if len(seen) == 0 {
		return false
	}
	u.mu.Lock()
	u.observed = seen
	u.mu.Unlock()
	if u.service == nil {
		u.start(ctx)
	}
	return true
}

// start begins to answer others that punch, and to punch.
func (u *puncher) start(ctx context.Context) {
	h, ok := u.front.host.(interface{ IDService() identify.IDService })
	if !ok {
		return
	}
	service, err := holepunch.NewService(u.front.host, h.IDService(), u.addrs)
	if err != nil {
		u.front.log.WarnContext(ctx, "no hole punching", "error", err)
		return
	}
	u.service = service
}

// addrs are the public addresses of this front, those seen from outside too.
func (u *puncher) addrs() []ma.Multiaddr {
	u.mu.Lock()
	defer u.mu.Unlock()
	addrs := append(slices.Clone(u.observed), u.front.host.Addrs()...)
	return ma.Unique(slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) }))
}

// punch tries to connect directly.
func (u *puncher) punch(ctx context.Context, id peer.ID) {
	done := make(chan error, 1)
	go func() { done <- u.service.DirectConnect(id) }() // ends with its own time limits, or with Close
	timer := time.NewTimer(punchTimeout)
	defer timer.Stop()
	var err error
	select {
	case err = <-done:
	case <-timer.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		return
	}
	if err != nil {
		u.front.log.DebugContext(ctx, "no direct connection yet", "node", id, "error", err)
	}
}

// settle closes circuits to a front that is connected directly, also because
// it punched; what runs over them begins anew on the direct connection.
func (u *puncher) settle(ctx context.Context, id peer.ID) {
	if u.front.onlyRelayed(id) {
		return
	}
	for _, c := range u.front.host.Network().ConnsToPeer(id) {
		if isRelayed(c) {
			u.front.log.InfoContext(ctx, "connected directly, circuit closed", "node", id)
			_ = c.Close()
		}
	}
}

func isRelayed(c network.Conn) bool {
	_, rest := splitCircuit(c.RemoteMultiaddr())
	return len(rest) > 0
}

// onlyRelayed says whether a front is connected, over others alone.
func (f *Front) onlyRelayed(id peer.ID) bool {
	conns := f.host.Network().ConnsToPeer(id)
	return len(conns) > 0 && !slices.ContainsFunc(conns, func(c network.Conn) bool { return !isRelayed(c) })
}

// partners are the fronts of all authorised peers, those of linked processes too.
func (f *Front) partners() (out []peer.ID) {
	for _, p := range f.open() {
		for _, id := range p.fronts() {
			if !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	for _, p := range f.linked() {
		p.mu.Lock()
		for _, id := range p.partners {
			if !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
		p.mu.Unlock()
	}
	return out
}

// seenBy asks another front, by identify over a QUIC connection of its own,
// from which address that connection comes.
func (f *Front) seenBy(ctx context.Context, id peer.ID) (ma.Multiaddr, error) {
	ctx, cancel := context.WithTimeout(ctx, hopTimeout)
	defer cancel()
	err := fmt.Errorf("front %s has no quic address: %w", id, ErrUnreachable)
	for _, a := range f.host.Peerstore().Addrs(id) {
		if _, no := a.ValueForProtocol(ma.P_QUIC_V1); no != nil {
			continue
		}
		seen, failed := f.identifiedOver(ctx, id, a)
		if failed == nil {
			return seen, nil
		}
		err = errors.Join(err, failed)
	}
	return nil, err
}

func (f *Front) identifiedOver(ctx context.Context, id peer.ID, a ma.Multiaddr) (ma.Multiaddr, error) {
	t := f.swarm.TransportForDialing(a)
	if t == nil {
		return nil, fmt.Errorf("no transport for %s: %w", a, ErrInvalid)
	}
	c, err := t.Dial(ctx, a, id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s, err := c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(hopTimeout))
	if _, err := multistream.SelectOneOf([]protocol.ID{identify.ID}, s); err != nil {
		return nil, err
	}
	rd := util.NewDelimitedReader(s, 8<<10)
	defer rd.Close()
	var m pb.Identify
	if err := rd.ReadMsg(&m); err != nil {
		return nil, err
	}
	seen, err := ma.NewMultiaddrBytes(m.GetObservedAddr())
	if err != nil || len(seen) == 0 {
		return nil, fmt.Errorf("observed address: %w", ErrInvalid)
	}
	if _, err := seen.ValueForProtocol(ma.P_QUIC_V1); err != nil {
		return nil, fmt.Errorf("observed address %s: %w", seen, ErrInvalid)
	}
	return seen, nil
}
