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

// session is one remote peer from its first connection to its last. A peer
// that comes back has a new one.
type session struct {
	id      peer.ID
	dir     network.Direction
	started time.Time

	state    state                     // guarded by Peer.mu
	begun    bool                      // guarded by Peer.mu; callbacks no longer wait for an older session
	conns    map[network.Conn]struct{} // guarded by Peer.mu
	timer    *time.Timer               // guarded by Peer.mu; ends probation
	deadline time.Time                 // guarded by Peer.mu; when the remote must have authorised us, if we did

	streams chan struct{} // one per inbound stream in probation

	done       chan struct{} // closed when state becomes ended
	mutual     chan struct{} // closed once the remote is known to have authorised us
	markMutual func()
	told       bool          // Connected was called; set before reported is closed
	reported   chan struct{} // closed when Connected has returned, if it was called
	finished   chan struct{} // closed when the callbacks have returned
}

type state int

const (
	inProbation state = iota
	isAuthorised
	ended
)

func newSession(id peer.ID, dir network.Direction) *session {
	s := &session{
		id: id, dir: dir, started: time.Now(),
		conns:    map[network.Conn]struct{}{},
		streams:  make(chan struct{}, probationStreams),
		done:     make(chan struct{}),
		mutual:   make(chan struct{}),
		reported: make(chan struct{}),
		finished: make(chan struct{}),
	}
	s.markMutual = sync.OnceFunc(func() { close(s.mutual) })
	return s
}

// connected is called by the swarm for each secured connection, before any of
// its streams.
func (p *Peer) connected(ctx context.Context, c network.Conn) {
	raw := rawOf(c)
	if raw == nil { // not made by our transport
		_ = c.Close()
		return
	}
	if raw.secured != nil {
		defer raw.secured()
	}
	id := c.RemotePeer()
	p.transition.Lock()
	p.mu.Lock()
	dead := p.supersede(c)
	s, losing, err := p.admit(ctx, id, c.Stat().Direction)
	if err == nil && len(s.conns) >= connsPerPeer {
		err = fmt.Errorf("%d connections of one peer: %w", len(s.conns), ErrBusy)
	}
	if err == nil {
		s.conns[c] = struct{}{}
		p.conns[c] = s
		if s.state == isAuthorised {
			raw.free.Store(true)
		}
	}
	p.mu.Unlock()
	if len(dead) > 0 {
		p.leave(id, dead[0])
	}
	p.transition.Unlock()
	if err != nil {
		p.front.refused("connection")
		p.log.DebugContext(ctx, "refused connection", "peer", id, "error", err)
		_ = c.Close()
	}
	closeAll(dead)
	closeAll(losing)
}

// supersede ends the authorised session that a new connection replaces and
// returns its connections; the caller goes on with leave. A peer dials again
// only when it has lost the connections we still see, as after a crash. Two
// sides that dial at once are told apart by time. p.transition and p.mu are
// held.
func (p *Peer) supersede(c network.Conn) []network.Conn {
	s := p.sessions[c.RemotePeer()]
	if s == nil || s.state != isAuthorised || c.Stat().Direction != network.DirInbound ||
		time.Since(s.started) < p.o.ProbationTimeout {
		return nil
	}
	return p.endLocked(s)
}

// admit returns the session that a new connection of id belongs to, and the
// connections that have to make room for it. p.mu is held.
func (p *Peer) admit(ctx context.Context, id peer.ID, dir network.Direction) (_ *session, losing []network.Conn, err error) {
	if p.closed {
		return nil, nil, fmt.Errorf("space peer: %w", ErrClosed)
	}
	if s := p.sessions[id]; s != nil {
		return s, nil, nil
	}
	before := p.latest[id]
	if before != nil && !before.begun || len(p.latest) >= 2*p.o.MaxPeers {
		return nil, nil, fmt.Errorf("peers come faster than callbacks return: %w", ErrBusy)
	}
	if losing, err = p.makeRoom(); err != nil {
		return nil, nil, err
	}
	// When both sides dial at once each may see the other's connection first;
	// both are the dialer then, or neither would say hello.
	if p.dialing[id] != nil {
		dir = network.DirOutbound
	}
	s := newSession(id, dir)
	p.sessions[id], p.latest[id] = s, s
	s.timer = time.AfterFunc(p.o.ProbationTimeout, func() { p.expire(ctx, s) })
	p.running.Add(1) // until finish ends
	go p.begin(s, before)
	return s, losing, nil
}

// makeRoom ends the oldest inbound peer in probation when there are too many:
// refusing the newcomer instead would let a few idle strangers keep everyone
// out. p.mu is held.
func (p *Peer) makeRoom() ([]network.Conn, error) {
	var oldest *session
	waiting := 0
	for _, s := range p.sessions {
		if s.state != inProbation {
			continue
		}
		waiting++
		if s.dir == network.DirInbound && (oldest == nil || s.started.Before(oldest.started)) {
			oldest = s
		}
	}
	full := len(p.sessions) >= p.o.MaxPeers
	switch {
	case oldest != nil && (full || waiting >= probationPeers):
		return p.endLocked(oldest), nil
	case full:
		return nil, fmt.Errorf("%d peers: %w", len(p.sessions), ErrBusy)
	}
	return nil, nil
}

// begin calls Connected, after the callbacks of the same peer's session before.
func (p *Peer) begin(s, before *session) {
	defer close(s.reported)
	if before != nil {
		<-before.finished
	}
	p.mu.Lock()
	s.begun = true
	s.told = s.state != ended // else nobody hears of it
	p.mu.Unlock()
	if s.told && p.o.Connected != nil {
		p.o.Connected(s.id, s.dir)
	}
}

// finish calls Disconnected, after begin.
func (p *Peer) finish(s *session) {
	defer p.running.Done()
	<-s.reported
	if s.told && p.o.Disconnected != nil {
		p.o.Disconnected(s.id)
	}
	p.mu.Lock()
	if p.latest[s.id] == s {
		delete(p.latest, s.id)
	}
	p.mu.Unlock()
	close(s.finished)
}

// disconnected is called by the swarm when a connection is gone.
func (p *Peer) disconnected(c network.Conn) {
	p.transition.Lock()
	defer p.transition.Unlock()
	p.mu.Lock()
	s := p.conns[c]
	delete(p.conns, c)
	if s == nil || s.state == ended {
		p.mu.Unlock()
		return
	}
	delete(s.conns, c)
	last, was := len(s.conns) == 0, s.state
	if last {
		p.endLocked(s)
	}
	p.mu.Unlock()
	if last && was == isAuthorised {
		p.leave(s.id, c)
	}
}

// endLocked ends a session and returns the connections to close. p.mu is held;
// p.transition too if the session is authorised, and then the caller goes on
// with leave.
func (p *Peer) endLocked(s *session) []network.Conn {
	s.state = ended
	s.timer.Stop()
	close(s.done)
	go p.finish(s)
	delete(p.sessions, s.id)
	// The peerstore keeps a key for everyone who ever connected.
	p.store.RemovePeer(s.id)
	conns := make([]network.Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// expire ends s if it is still in probation.
func (p *Peer) expire(ctx context.Context, s *session) {
	p.mu.Lock()
	if s.state != inProbation {
		p.mu.Unlock()
		return
	}
	conns := p.endLocked(s)
	p.mu.Unlock()
	p.log.DebugContext(ctx, "probation over", "peer", s.id)
	closeAll(conns)
}

// leave tells the view that an authorised peer is gone. p.transition is held.
func (p *Peer) leave(id peer.ID, c network.Conn) {
	p.view.down(id, c)
	p.topics.forget(id)
}

// Authorise opens the view to id: gossipsub and bitswap see it connect, its
// streams reach the handlers of [Peer.Handle]. It lasts until the peer's last
// connection ends. A peer that is not connected is ignored. Of a peer that was
// here a moment ago it first waits, some milliseconds, for the rest of it to go.
func (p *Peer) Authorise(id peer.ID) {
	p.settle(id)
	p.transition.Lock()
	defer p.transition.Unlock()
	p.mu.Lock()
	s := p.sessions[id]
	if s == nil || s.state != inProbation {
		p.mu.Unlock()
		return
	}
	s.state = isAuthorised
	s.timer.Stop()
	s.deadline = time.Now().Add(p.o.ProbationTimeout)
	var via network.Conn
	for c := range s.conns {
		rawOf(c).free.Store(true)
		via = c
	}
	p.mu.Unlock()
	p.view.up(id, via)
	if u := p.front.puncher; u != nil {
		u.again()
	}
}

// AuthorisedBy says that id has authorised this side, as it may have shown by
// the hello protocol: from now on no stream to it waits for its consent. A peer
// that is not connected is ignored.
func (p *Peer) AuthorisedBy(id peer.ID) {
	if s := p.session(id); s != nil {
		s.markMutual()
	}
}

// settle waits until gossipsub has dropped id's session before the present
// one. It does so when it sees the old stream end; were the new session's topics
// announced before that, they would be dropped as well, and never come again.
func (p *Peer) settle(id peer.ID) {
	const patience = 2 * time.Second
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(patience)
	for p.waiting(id) && slices.Contains(p.pubsub.ListPeers(""), id) && time.Now().Before(deadline) {
		<-ticker.C
	}
}

// Evict takes id out of the view, as if it had disconnected, and closes its
// connections. The peer may come back, in probation.
func (p *Peer) Evict(id peer.ID) {
	p.transition.Lock()
	p.mu.Lock()
	s := p.sessions[id]
	if s == nil {
		p.mu.Unlock()
		p.transition.Unlock()
		return
	}
	was, conns := s.state, p.endLocked(s)
	p.mu.Unlock()
	if was == isAuthorised {
		p.leave(id, conns[0])
	}
	p.transition.Unlock()
	closeAll(conns)
}

func closeAll(conns []network.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// Connected says whether id is connected, in probation or authorised.
func (p *Peer) Connected(id peer.ID) bool { return p.session(id) != nil }

// IsAuthorised says whether id is connected and authorised.
func (p *Peer) IsAuthorised(id peer.ID) bool { return p.authorised(id) != nil }

// Authorised are the authorised peers, sorted.
func (p *Peer) Authorised() []peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]peer.ID, 0, len(p.sessions))
	for id, s := range p.sessions {
		if s.state == isAuthorised {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Waiting is how many connected peers are in probation.
func (p *Peer) Waiting() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sessions {
		if s.state == inProbation {
			n++
		}
	}
	return n
}

func (p *Peer) session(id peer.ID) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[id]
}

// waiting says whether id is connected and in probation.
func (p *Peer) waiting(id peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	return s != nil && s.state == inProbation
}

// authorised returns id's session if it is authorised.
func (p *Peer) authorised(id peer.ID) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sessions[id]; s != nil && s.state == isAuthorised {
		return s
	}
	return nil
}
