package replication

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

const (
	roundEvery   = 60 * time.Second      // between comparisons, ± 50 %
	roundSpacing = 50 * time.Millisecond // between rounds that gaps ask for
	maxSkew      = 60 * time.Second      // of a peer's clock, before it is worth a warning
	seenEvery    = 10 * time.Minute      // between two notes of when a host was seen
	flushTime    = 250 * time.Millisecond
	liveRate     = 5000 // bundles a second that one peer may push
)

// remote is one connected peer.
type remote struct {
	id     peer.ID
	host   capstore.HostKey
	pull   chan struct{} // a round is due
	calm   chan struct{} // a round of theirs found no difference
	rate   *rate.Limiter // of bundles by gossip
	opened *rate.Limiter // of streams

	// Guarded by Replica.mu.
	authorised bool
	revoked    bool
	gone       bool
	synced     bool
	expires    time.Time
	streams    int
	sent       tinycloud.Hash // of the host records it has from us
	cancels    map[*int]context.CancelFunc
}

func newRemote(id peer.ID, host capstore.HostKey) *remote {
	return &remote{
		id: id, host: host, pull: make(chan struct{}, 1), calm: make(chan struct{}, 1),
		rate: rate.NewLimiter(liveRate, liveRate), opened: rate.NewLimiter(streamsPerSec, 2*streamsPerSec),
		cancels: map[*int]context.CancelFunc{},
	}
}

// Connected says that a peer is connected. dir is DirOutbound for whoever has to begin the handshake.
func (r *Replica) Connected(id peer.ID, dir network.Direction) {
	host, err := hostOf(id)
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
	if expires, ok := r.proofs[id]; ok && authorised {
		r.begin(m, expires) // its handshake was quicker than this call
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
		m.gone = true
		for _, cancel := range m.cancels {
			cancel()
		}
		if m.authorised {
			r.sawLocked(m)
		}
	}
	r.mu.Unlock()
	r.dialer.lost(id)
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
func (r *Replica) admit(id peer.ID, expires time.Time) {
	r.net.Peer.Authorise(id)
	still := r.net.Peer.IsAuthorised(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !still {
		return
	}
	r.proofs[id] = expires
	if m := r.remotes[id]; m != nil {
		r.begin(m, expires)
	}
}

// begin starts the work with an authorised peer. r.mu is held.
func (r *Replica) begin(m *remote, expires time.Time) {
	m.expires = expires
	if m.authorised {
		return
	}
	m.authorised = true
	r.sawLocked(m)
	if !r.spawn(func(ctx context.Context) { r.session(ctx, m) }) {
		m.authorised = false
	}
}

// session compares and catches up with a peer for as long as it is connected.
func (r *Replica) session(ctx context.Context, m *remote) {
	ctx, end := r.scoped(ctx, m)
	defer end()
	r.log.InfoContext(ctx, "host connected", "peer", m.id)
	r.met(ctx, m.id, nil)
	if err := r.o.Store.Hurry(ctx, r.space); err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "cannot hurry what is wanted", "error", err)
	}
	signal(r.wants.wake)
	expiry := time.NewTimer(r.untilExpiry(m))
	defer expiry.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	for {
		pull := m.pull
		if failures > 0 {
			pull = nil // what failed is tried again later, whoever asks
		}
		select {
		case <-ctx.Done():
			r.log.InfoContext(ctx, "host disconnected", "peer", m.id)
			return
		case <-expiry.C:
			if left := r.untilExpiry(m); left > 0 {
				expiry.Reset(left) // renewed
				continue
			}
			r.log.InfoContext(ctx, "host delegation expired", "peer", m.id)
			r.net.Peer.Evict(m.id)
			return
		case <-m.calm:
			timer.Reset(untilRound())
			continue
		case <-pull:
		case <-timer.C:
		}
		began := time.Now()
		if r.visit(ctx, m) {
			failures = 0
			timer.Reset(untilRound())
		} else {
			failures++
			timer.Reset(backoff(failures, roundEvery))
		}
		if !pause(ctx, roundSpacing-time.Since(began)) {
			return
		}
	}
}

// visit runs a round and, when something changed, exchanges addresses.
func (r *Replica) visit(ctx context.Context, m *remote) bool {
	_, err := r.round(ctx, m)
	switch {
	case err == nil:
		r.saw(ctx, m)
	case ctx.Err() != nil:
		return false
	case errors.Is(err, errWait):
		return true // woken when it is its turn
	case errors.Is(err, errTurn):
		r.gap(m)
		return true
	default:
		r.judge(ctx, m, err)
		return false
	}
	if err := r.exchange(ctx, m); err != nil && ctx.Err() == nil {
		r.judge(ctx, m, err)
	}
	return true
}

func untilRound() time.Duration {
	return time.Duration(float64(roundEvery) * (0.5 + rand.Float64()))
}

// backoff doubles from a second to most, less up to a half of it by chance.
func backoff(failures int, most time.Duration) time.Duration {
	d := min(most, time.Second<<min(failures-1, 16))
	return d - time.Duration(rand.Int64N(int64(d/2)))
}

// pause waits; it reports false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (r *Replica) untilExpiry(m *remote) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.expires.IsZero() {
		return 1 << 62
	}
	return time.Until(m.expires)
}

// enter admits one more stream of an authorised peer, nil when it has too many. leave undoes it.
func (r *Replica) enter(id peer.ID) *remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.remotes[id]
	if m == nil || !m.authorised || m.revoked || m.streams >= streamsPerPeer || !m.opened.Allow() {
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
	if m := r.remotes[id]; m != nil && m.authorised && !m.revoked {
		return m
	}
	return nil
}

func (r *Replica) anyAuthorised() bool { return len(r.partners()) > 0 }

// partners are the peers that may take part, by key.
func (r *Replica) partners() []*remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*remote
	for _, m := range r.remotes {
		if m.authorised && !m.revoked {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *remote) int { return bytes.Compare(a.host[:], b.host[:]) })
	return out
}

// gap asks for a round with a peer: it has something that is not here.
func (r *Replica) gap(m *remote) {
	r.mu.Lock()
	m.synced = false
	r.mu.Unlock()
	signal(m.pull)
}

// quiet puts the next round with a peer off, whose own round found no difference.
func (r *Replica) quiet(m *remote) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.synced = true
	if !r.joining { // a joining host has to hear the state of its peers itself
		signal(m.calm)
	}
}

// equal notes that everything a peer had is here, and that the Space is, if the peer has all of it.
func (r *Replica) equal(ctx context.Context, m *remote, joining bool) {
	r.mu.Lock()
	m.synced = true
	was := r.joining
	r.mu.Unlock()
	if joining || !was {
		return
	}
	if err := r.o.Store.Synced(ctx, r.space); err != nil {
		r.log.WarnContext(ctx, "cannot record that the space is here", "error", err)
		return
	}
	r.mu.Lock()
	r.joining = false
	r.mu.Unlock()
	r.log.InfoContext(ctx, "space is here")
}

// turn lets one stream at a time catch the Space up, so that nothing is sent twice.
func (r *Replica) turn(m *remote) (end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turnOf != nil {
		r.waiting[m] = struct{}{}
		return nil, errWait
	}
	r.turnOf = m
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.turnOf = nil
		for m := range r.waiting {
			signal(m.pull)
		}
		clear(r.waiting)
	}), nil
}

func (r *Replica) othersWait() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) > 0
}

// clock notes a peer's time.
func (r *Replica) clock(m *remote, now int64) {
	skew := time.Until(time.UnixMilli(now)).Round(time.Millisecond)
	r.mu.Lock()
	s := r.seen[m.host]
	warn := skew.Abs() > maxSkew && s.skew.Abs() <= maxSkew
	s.skew = skew
	r.seen[m.host] = s
	r.mu.Unlock()
	if warn {
		r.log.Warn("clocks differ", "peer", m.id, "difference", skew)
	}
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
func (r *Replica) revoke(host capstore.HostKey) {
	r.mu.Lock()
	m := r.remotes[peerOf(host)]
	if m == nil {
		r.mu.Unlock()
		return
	}
	m.revoked = true
	for _, cancel := range m.cancels {
		cancel()
	}
	r.mu.Unlock()
	r.spawn(func(ctx context.Context) {
		pause(ctx, flushTime)
		r.log.InfoContext(ctx, "host revoked", "peer", m.id)
		r.net.Peer.Evict(m.id)
	})
}

// Status returns the other hosts that are or were connected.
func (r *Replica) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Joining: r.joining}
	for host, seen := range r.seen {
		p := PeerStatus{Host: host, Peer: peerOf(host), LastSeen: seen.at, Skew: seen.skew}
		if m := r.remotes[p.Peer]; m != nil && m.authorised && !m.revoked {
			p.Connected, p.Synced, p.Expires, p.LastSeen = true, m.synced, m.expires, time.Now()
		}
		s.Peers = append(s.Peers, p)
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int { return bytes.Compare(a.Host[:], b.Host[:]) })
	return s
}
