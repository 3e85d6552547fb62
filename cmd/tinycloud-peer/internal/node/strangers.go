package node

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// Whoever knows a Space's peer may ask for it, and so have it opened, which costs some 300 KiB. It is open for as long as a
// host takes to show that it is one; and of those that nobody known here asked for, few are open at once.
const (
	unproven           = 10 * time.Second // open without an authorised peer, as long as a peer may be in probation
	strangersEvery     = time.Second      // between looks for Spaces to which nobody proved anything
	maxStrangers       = 64               // Spaces that strangers woke
	strangersPerOrigin = 32               // of them by one address
)

// known reports whether a Space peer is of a Space here.
func (s *spaces) known(id peer.ID) bool {
	_, ok := s.spaceOf(id)
	return ok
}

func (s *spaces) spaceOf(id peer.ID) (space tinycloud.SpaceID, ok bool) {
	key, err := p2p.Ed25519FromPeerID(id)
	if err != nil {
		return space, false
	}
	return s.n.store.SpaceOf(hostlog.Key(key))
}

// wake answers the front when somebody asks for a Space's peer that is not open.
func (s *spaces) wake(ctx context.Context, id peer.ID, by p2p.Caller) bool {
	space, ok := s.spaceOf(id)
	if !ok {
		return false
	}
	stranger := !s.knows(ctx, space, by.Front)
	if stranger && !s.letIn(space, by) {
		return false
	}
	open := s.ask(ctx, request{space: space, rest: s.unproven})
	if stranger && !open {
		s.forgetStranger(space)
	}
	return open
}

// knows reports whether a front is that of a host of a Space, as far as addresses are known here, or of a node that is
// named.
func (s *spaces) knows(ctx context.Context, space tinycloud.SpaceID, front peer.ID) bool {
	if _, listed := s.n.listed[front]; listed || s.n.store.PairedWith(front.String()) {
		return true
	}
	fronts, err := s.frontsOf(ctx, space)
	if err != nil {
		return false
	}
	for _, f := range fronts {
		if f.ID == front {
			return true
		}
	}
	return false
}

// letIn counts a stranger who wakes a Space, unless there are too many.
func (s *spaces) letIn(space tinycloud.SpaceID, by p2p.Caller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, already := s.strangers[space]; already {
		return true
	}
	same := 0
	for _, other := range s.strangers {
		if other.Origin == by.Origin {
			same++
		}
	}
	if len(s.strangers) >= maxStrangers || same >= strangersPerOrigin {
		return false
	}
	s.strangers[space] = by
	return true
}

func (s *spaces) forgetStranger(space tinycloud.SpaceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.strangers, space)
}

// stopUnproven stops Spaces that were woken and to which nobody proved to be a host.
func (s *spaces) stopUnproven() {
	s.stopAlone(func(a *active) bool { return a.alone <= s.unproven })
}

// proveStrangers lets others take the places of those who turned out to be hosts. A Space whose hosts came because a
// stranger woke it stays counted while it is open.
func (s *spaces) proveStrangers(ctx context.Context) {
	s.mu.RLock()
	met := map[tinycloud.SpaceID]p2p.Caller{}
	for space, by := range s.strangers {
		if a := s.active[space]; a != nil && len(a.peer.Authorised()) > 0 {
			met[space] = by
		}
	}
	s.mu.RUnlock()
	for space, by := range met {
		if s.knows(ctx, space, by.Front) {
			s.forgetStranger(space)
		}
	}
}
