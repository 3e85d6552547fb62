package replication

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	seenEvery = 10 * time.Minute       // between two notes of when a host was seen
	flushTime = 250 * time.Millisecond // for a revocation to leave before its host is cut off
	liveRate  = 5000                   // bundles a second that one peer may push
)

// remote is one connected peer.
type remote struct {
	id     peer.ID
	host   hostlog.Key
	pull   wait.Signal   // it seems to have something that is not here
	due    wait.Signal   // a round is due at once
	calm   wait.Signal   // a round of theirs found no difference
	rate   *rate.Limiter // of bundles by gossip
	opened *rate.Limiter // of streams

	compared func()         // says that it is known whether the peer has later entries of this node's own; set once authorised
	arrived  func()         // says that those are here; nil unless they are waited for. Of the session's goroutine
	told     tinycloud.Hash // of its tips in this round, while this host is joining; likewise
	brought  int            // new entries of the round. Of the session's goroutine and those it waits for

	// Guarded by Replica.mu.
	authorised bool
	revoked    bool
	gone       bool
	synced     bool
	whole      bool           // all it had once is here
	joins      bool           // it was joining then
	held       tinycloud.Hash // of its tips then, see told
	expires    time.Time
	streams    int
	rules      uint64         // that it told, 0 for none
	rests      bool           // it may leave without being dialed again, see rest.go
	sent       tinycloud.Hash // of the host records it has from us
	cancels    map[*int]context.CancelFunc
}

func newRemote(id peer.ID, host hostlog.Key) *remote {
	return &remote{
		id: id, host: host, pull: wait.NewSignal(), due: wait.NewSignal(), calm: wait.NewSignal(),
		rate: rate.NewLimiter(liveRate, liveRate), opened: rate.NewLimiter(streamsPerSec, 2*streamsPerSec),
		cancels: map[*int]context.CancelFunc{},
	}
}

// Connected says that a peer is connected. dir is DirOutbound for whoever has to begin the handshake.
func (r *Replica) Connected(id peer.ID, dir network.Direction) {
	host, err := wire.HostOf(id)
	if err != nil {
		r.spawn(func(context.Context) { r.net.Peer.Evict(id) })
		return
	}
	authorised := r.running() && r.net.Peer.IsAuthorised(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.remotes) >= maxRemotes {
		r.spawn(func(context.Context) { r.net.Peer.Evict(id) })
		return
	}
	m := newRemote(id, host)
	r.remotes[id] = m
	if proven, ok := r.proofs[id]; ok && authorised {
		r.begin(m, proven) // its handshake was quicker than this call
		return
	}
	if dir == network.DirOutbound {
		r.spawn(func(ctx context.Context) { r.greet(ctx, m) })
	}
}

// Disconnected says that a peer's last connection is gone.
func (r *Replica) Disconnected(id peer.ID) {
	authorised := r.running() && r.net.Peer.IsAuthorised(id) // by its next connection
	r.mu.Lock()
	m := r.remotes[id]
	delete(r.remotes, id)
	if !authorised {
		delete(r.proofs, id)
	}
	if m != nil {
		if r.o.Peers != nil {
			r.o.Peers.Lost(id)
		}
		m.gone = true
		for _, cancel := range m.cancels {
			cancel()
		}
		if m.authorised {
			r.sawLocked(m)
		}
	}
	rests := m != nil && m.rests && !m.revoked && !authorised
	r.mu.Unlock()
	if rests {
		r.dialer.rest(id)
	} else {
		r.dialer.lost(id)
		r.dialer.rouse() // the way to it may lead through one that rests
	}
}

func (r *Replica) running() bool {
	select {
	case <-r.started:
		return true
	default:
		return false
	}
}

// scoped returns a context that also ends with the peer's connection.
func (r *Replica) scoped(ctx context.Context, m *remote) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	key := new(int)
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.gone {
		cancel()
	}
	m.cancels[key] = cancel
	return ctx, func() {
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(m.cancels, key)
	}
}

// greet runs the handshake with a peer that this side dialed.
func (r *Replica) greet(ctx context.Context, m *remote) {
	ctx, end := r.scoped(ctx, m)
	defer end()
	err := r.sayHello(ctx, m.id)
	if r.net.Peer.IsAuthorised(m.id) { // it may have called at the same time
		return
	}
	if err == nil {
		err = errGone
	}
	if ctx.Err() == nil {
		r.met(ctx, m.id, err)
	}
	r.o.Metrics.refuse("hello")
	r.log.InfoContext(ctx, "handshake ended without agreement", "peer", m.id, "error", err)
	r.net.Peer.Evict(m.id)
}

var errGone = errors.New("connection closed")

// admit opens the Space to a peer that has proven its delegation.
func (r *Replica) admit(id peer.ID, proven proven) {
	r.net.Peer.Authorise(id)
	still := r.net.Peer.IsAuthorised(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !still {
		return
	}
	r.proofs[id] = proven
	if m := r.remotes[id]; m != nil {
		r.begin(m, proven)
	}
}

// begin starts the work with an authorised peer. r.mu is held.
func (r *Replica) begin(m *remote, proven proven) {
	m.expires, m.rules = proven.expires, proven.hello.Rules
	if m.authorised {
		return
	}
	m.authorised, m.compared = true, r.o.Store.Comparing(r.space)
	close(r.arrival)
	r.arrival = make(chan struct{})
	r.sawLocked(m)
	if !r.spawn(func(ctx context.Context) { r.session(ctx, m) }) {
		m.compared()
		m.authorised = false
		return
	}
	if r.o.Peers != nil {
		r.o.Peers.Greeted(m.id)
	}
	r.spawn(func(ctx context.Context) { r.compareOften(ctx, m) })
	r.spawn(func(ctx context.Context) { r.know(ctx, m, proven.hello) }) // beside the session, which waits for nothing
}

// knowsServices reports whether a peer takes operations that are no key-value ones for what they are.
func (r *Replica) knowsServices(m *remote) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return m.rules >= hostlog.RulesOfServices
}

// onlyNewer reports whether all peers that may take part know services.
func (r *Replica) onlyNewer() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.remotes {
		if m.mayTakePart() && m.rules < hostlog.RulesOfServices {
			return false
		}
	}
	return true
}

// know keeps what a peer told of its release, and has the operator know of one that is not like this.
func (r *Replica) know(ctx context.Context, m *remote, hello hostlog.Hello) {
	changed, err := r.o.Store.SaveHello(ctx, r.space, m.host, hello)
	switch {
	case err != nil && ctx.Err() == nil:
		r.log.WarnContext(ctx, "cannot record the rules of a host", "peer", m.id, "error", err)
	case err != nil || !changed:
	case hello.OlderThan(r.o.Hello.Rules):
		r.log.WarnContext(ctx, "host has an older version: until it is upgraded no past value is freed, and writes at the same time may end in another order there",
			"peer", m.id, "rules", hello.Rules, "own", r.o.Hello.Rules)
	case hello.Rules > r.o.Hello.Rules:
		r.log.WarnContext(ctx, "host has a newer version: this one should be upgraded", "peer", m.id, "rules", hello.Rules, "own", r.o.Hello.Rules)
	}
}

// enter admits one more stream of an authorised peer, nil when it has too many. leave undoes it.
func (r *Replica) enter(id peer.ID) *remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.remotes[id]
	if m == nil || !m.mayTakePart() || m.streams >= streamsPerPeer || !m.opened.Allow() {
		return nil
	}
	m.streams++
	return m
}

func (r *Replica) leave(m *remote) {
	if m == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m.streams--
}

// authorised returns a peer that may take part, nil if it may not.
func (r *Replica) authorised(id peer.ID) *remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.remotes[id]; m != nil && m.mayTakePart() {
		return m
	}
	return nil
}

// mayTakePart says so; Replica.mu is held.
func (m *remote) mayTakePart() bool { return m.authorised && !m.revoked }

func (r *Replica) anyAuthorised() bool { return len(r.partners()) > 0 }

// partners are the peers that may take part, by key.
func (r *Replica) partners() []*remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*remote
	for _, m := range r.remotes {
		if m.mayTakePart() {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *remote) int { return bytes.Compare(a.host[:], b.host[:]) })
	return out
}

func (r *Replica) sawLocked(m *remote) {
	s := r.seen[m.host]
	s.at = time.Now()
	r.seen[m.host] = s
}

// saw notes that a peer answered, in the store now and then.
func (r *Replica) saw(ctx context.Context, m *remote) {
	r.mu.Lock()
	r.sawLocked(m)
	s := r.seen[m.host]
	save := s.at.Sub(s.saved) > seenEvery
	if save {
		s.saved = s.at
		r.seen[m.host] = s
	}
	r.mu.Unlock()
	if !save {
		return
	}
	if err := r.o.Store.Seen(ctx, r.space, m.host); err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "cannot record when a host was seen", "error", err)
	}
}

// revoke cuts a host off. What revokes it was handed to gossip before, and gets the time to leave.
func (r *Replica) revoke(host hostlog.Key) {
	r.dialer.refresh()
	r.mu.Lock()
	m := r.remotes[wire.PeerOf(host)]
	for _, other := range r.remotes {
		if other != m {
			other.due.Give() // the rendezvous secret is another from now on
		}
	}
	if m == nil {
		r.mu.Unlock()
		return
	}
	m.revoked = true
	for _, cancel := range m.cancels {
		cancel()
	}
	r.mu.Unlock()
	done := r.live.cut()
	if !r.spawn(func(ctx context.Context) {
		defer done()
		wait.For(ctx, flushTime)
		r.log.InfoContext(ctx, "host revoked", "peer", m.id)
		r.net.Peer.Evict(m.id)
	}) {
		done()
	}
}

// Status returns the other hosts that are or were connected.
func (r *Replica) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Joining: r.joining, CatchUp: r.caught.view(time.Now())}
	resting := r.dialer.resting()
	for host, seen := range r.seen {
		p := PeerStatus{Host: host, Peer: wire.PeerOf(host), LastSeen: seen.at, Skew: seen.skew, Trip: seen.trip, Equal: seen.equal}
		if m := r.remotes[p.Peer]; m != nil && m.mayTakePart() {
			p.Connected, p.Synced, p.Expires, p.LastSeen = true, m.synced, m.expires, time.Now()
		} else if slices.Contains(resting, p.Peer) {
			p.Connected, p.Synced = true, true
		}
		s.Peers = append(s.Peers, p)
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int { return bytes.Compare(a.Host[:], b.Host[:]) })
	return s
}
