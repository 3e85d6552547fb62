package p2p

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Two hosts that start together dial each other. That they end up with one
// connection is up to the peer with the smaller ID, which has one attempt under
// way at a time: it does not dial while the other's connection arrives, and
// lets a CONNECT wait for the end of its own dial and refuses it when that
// succeeded. The other peer takes whatever comes. So no connection is ever
// closed for another, and neither side can refuse what the other one needs.
//
// A CONNECT names no source. It is taken to come from the peer that is being
// dialed through the same front: a node has one peer of a Space.

// attempt is a Connect under way.
type attempt struct {
	calls  int
	fronts []peer.ID
}

// reserve begins a dial of id through fronts, once its turn has come; the
// caller ends it. A nil end says that id is connected.
func (p *Peer) reserve(ctx context.Context, id peer.ID, fronts []peer.ID) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, crossingTime)
	defer cancel()
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, fmt.Errorf("space peer %s: %w", p.id, ErrClosed)
		}
		if p.sessions[id] != nil {
			p.mu.Unlock()
			return nil, nil
		}
		if id < p.id || !p.arrivesLocked(fronts) || ctx.Err() != nil {
			a := p.dialing[id]
			if a == nil {
				a = &attempt{}
				p.dialing[id] = a
			}
			a.calls++
			a.fronts = append(a.fronts, fronts...)
			p.mu.Unlock()
			return func() { p.release(id, a) }, nil
		}
		settled := p.settled
		p.mu.Unlock()
		select {
		case <-settled:
		case <-ctx.Done():
		}
	}
}

func (p *Peer) release(id peer.ID, a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.calls--; a.calls == 0 {
		delete(p.dialing, id)
	}
	p.settleLocked()
}

// arrive admits a CONNECT that came from a front, once its turn has come. The
// caller calls end, maybe again, when the connection is known or gone.
func (p *Peer) arrive(front peer.ID) (end func(), ok bool) {
	timer := time.NewTimer(crossingTime)
	defer timer.Stop()
	for late := false; ; {
		p.mu.Lock()
		if p.closed || p.reachedLocked(front) {
			p.mu.Unlock()
			return nil, false
		}
		if late || !p.dialsLocked(front) {
			p.arriving[front]++
			p.mu.Unlock()
			return sync.OnceFunc(func() { p.arrived(front) }), true
		}
		settled := p.settled
		p.mu.Unlock()
		select {
		case <-settled:
		case <-timer.C:
			late = true
		}
	}
}

func (p *Peer) arrived(front peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.arriving[front]--; p.arriving[front] == 0 {
		delete(p.arriving, front)
	}
	p.settleLocked()
}

// metHalfway says whether id is connected, once what arrives from its fronts is
// known: it refuses a dial when its own succeeded, and a dial finds what
// arrived a moment before it is known here.
func (p *Peer) metHalfway(ctx context.Context, id peer.ID, fronts []peer.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, crossingTime)
	defer cancel()
	for {
		p.mu.Lock()
		connected := p.sessions[id] != nil
		wait := !connected && p.arrivesLocked(fronts)
		settled := p.settled
		p.mu.Unlock()
		if !wait {
			return connected
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return false
		}
	}
}

// settleLocked wakes whoever waits for the end of an attempt. p.mu is held.
func (p *Peer) settleLocked() {
	close(p.settled)
	p.settled = make(chan struct{})
}

// arrivesLocked says whether a connection is arriving from one of some fronts.
// p.mu is held.
func (p *Peer) arrivesLocked(fronts []peer.ID) bool {
	return slices.ContainsFunc(fronts, func(front peer.ID) bool { return p.arriving[front] > 0 })
}

// dialsLocked says whether a peer with a greater ID is being dialed through a
// front. p.mu is held.
func (p *Peer) dialsLocked(front peer.ID) bool {
	for id, a := range p.dialing {
		if p.id < id && slices.Contains(a.fronts, front) {
			return true
		}
	}
	return false
}

// reachedLocked says whether a peer with a greater ID was reached through a
// front just now: it may not know yet. p.mu is held.
func (p *Peer) reachedLocked(front peer.ID) bool {
	via := throughFront(front)
	for id, s := range p.sessions {
		if id < p.id || time.Since(s.started) > min(crossingTime, p.o.ProbationTimeout) {
			continue
		}
		for c := range s.conns {
			if c.Stat().Direction == network.DirOutbound && rawOf(c).remote.Equal(via) {
				return true
			}
		}
	}
	return false
}
