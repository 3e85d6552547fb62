package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	dialTimeout = 15 * time.Second
	dialEvery   = 5 * time.Minute // longest wait before a host is dialed again
	dialJoining = 2 * time.Second // likewise, while the Space is joining
	dialsAtOnce = 8
	hurryEvery  = time.Second // between dials that local writes ask for
	maxTargets  = 1024
	addrsPerTry = 16
)

// States of a join.
const (
	JoinConnected   = "connected"
	JoinUnreachable = "unreachable"
	JoinRefused     = "refused"
	JoinNone        = "none" // the node says that it has no part in the Space
	JoinInvalid     = "invalid"
)

// dialer knows whom to dial and when.
type dialer struct {
	wake  wait.Signal
	slots chan struct{}

	mu      sync.Mutex
	reload  bool                       // guarded by mu; the store knows more
	urgent  bool                       // guarded by mu; clients wait for a host to be met
	hurried time.Time                  // guarded by mu
	targets map[peer.ID]*target        // guarded by mu
	finds   map[peer.ID][]ma.Multiaddr // guarded by mu; nodes that a finder met under the Space's name
	outcome chan struct{}              // guarded by mu; closed, and another, when a try or a connection has ended or hosts were read
}

// target is a host to stay connected with or, while its Space peer is not known, its node.
type target struct {
	addrs    []ma.Multiaddr
	joins    []string    // addresses of joins that name it
	node     *nodeTarget // nil: a Space peer
	next     time.Time
	failures int
	busy     bool
	greeting bool // connected, and the handshake is to come
	rests    bool // it left because there is nothing new, see rest.go
}

func newDialer() dialer {
	return dialer{
		wake: wait.NewSignal(), slots: make(chan struct{}, dialsAtOnce),
		reload: true, targets: map[peer.ID]*target{}, finds: map[peer.ID][]ma.Multiaddr{}, outcome: make(chan struct{}),
	}
}

// now makes every host due; with reload, what the store knows is read before.
func (d *dialer) now(reload bool) {
	t := now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !reload && t.Sub(d.hurried) < hurryEvery {
		return
	}
	d.hurried = t
	d.reload = d.reload || reload
	for _, x := range d.targets {
		if x.next.After(t) {
			x.next = t
		}
	}
	d.wake.Give()
}

// refresh has what the store knows read again; hosts that are new, or have new addresses, are due then.
func (d *dialer) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reload = true
	d.wake.Give()
}

// lost makes a host due soon after its connection ended.
func (d *dialer) lost(id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.targets[id]
	if x == nil {
		return
	}
	if again := now().Add(backoff(x.failures+1, d.longest())); x.next.Before(again) {
		x.next = again
	}
	d.ended(x, false)
}

// ended notes that a try to be connected with a host has ended, unless the handshake is to come. d.mu is held.
func (d *dialer) ended(x *target, greeting bool) {
	if x.greeting = greeting; !greeting {
		d.tell()
	}
	d.wake.Give()
}

// tell has those look again who wait for the end of a try. d.mu is held.
func (d *dialer) tell() {
	close(d.outcome)
	d.outcome = make(chan struct{})
}

// trying returns a channel that is closed when the next try ends or other hosts are known, nil when no host is being tried or will be until a time.
// Who failed more than once in a row is not waited for again.
func (r *Replica) trying(until time.Time) <-chan struct{} {
	t, d := now(), &r.dialer
	d.mu.Lock()
	outcome, reload := d.outcome, d.reload
	d.mu.Unlock()
	if reload {
		return outcome
	}
	for _, id := range d.ids() {
		if !r.passes(id) && d.tries(id, t, until) {
			return outcome
		}
	}
	return nil
}

// tries reports whether a host is being tried at a time, or will be until another. One that lies down refuses once.
func (d *dialer) tries(id peer.ID, t, until time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.targets[id]
	return x != nil && (x.busy || x.greeting || !x.next.After(t) || x.failures == 1 && x.next.Before(until))
}

// longest is the longest wait before a host is dialed again. d.mu is held.
func (d *dialer) longest() time.Duration {
	if d.urgent {
		return dialJoining
	}
	return dialEvery
}

// hurry says whether clients wait for a host to be met.
func (d *dialer) hurry(urgent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.urgent = urgent
}

// greeted notes how a handshake ended and returns the joins that it answers.
func (d *dialer) greeted(id peer.ID, err error) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.targets[id]
	if x == nil {
		return nil
	}
	if err == nil {
		x.failures, x.rests, x.greeting = 0, false, false
		return x.joins
	}
	x.failures++
	x.next = now().Add(backoff(x.failures, d.longest()))
	d.ended(x, false)
	return x.joins
}

// dial keeps this host connected with the others, for ever.
func (r *Replica) dial(ctx context.Context) error {
	idle := time.Duration(0)
	for r.dialer.wake.Within(ctx, idle) {
		if err := r.loadTargets(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.log.WarnContext(ctx, "cannot read the hosts of the space", "error", err)
			idle = time.Second
			continue
		}
		idle = r.dialDue(ctx)
	}
	return ctx.Err()
}

// passes reports whether a host is not dialed now: it is connected, banned or, as a node, not needed.
func (r *Replica) passes(id peer.ID) bool {
	host, err := wire.HostOf(id)
	return err != nil || r.offences.banned(host) || r.authorised(id) != nil || r.located(id)
}

// dialDue starts dialing the hosts that are due and returns when the next one is.
func (r *Replica) dialDue(ctx context.Context) time.Duration {
	t, wait := now(), dialEvery
	for _, id := range r.dialer.ids() {
		if r.passes(id) {
			continue
		}
		ai, due := r.dialer.due(id, t)
		if due > 0 {
			wait = min(wait, due)
			continue
		}
		select {
		case r.dialer.slots <- struct{}{}:
		case <-ctx.Done():
			return wait
		}
		if !r.spawn(func(ctx context.Context) {
			defer func() { <-r.dialer.slots }()
			r.connect(ctx, ai)
		}) {
			<-r.dialer.slots
			r.dialer.tried(id, nil, false)
		}
	}
	return wait
}

func (d *dialer) ids() []peer.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]peer.ID, 0, len(d.targets))
	for id := range d.targets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// due returns how long a host is not due; when it is, the caller dials and then calls tried.
func (d *dialer) due(id peer.ID, t time.Time) (peer.AddrInfo, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.targets[id]
	if x == nil || x.busy {
		return peer.AddrInfo{}, dialEvery
	}
	if wait := x.next.Sub(t); wait > 0 {
		return peer.AddrInfo{}, wait
	}
	x.busy = true
	x.next = t.Add(dialTimeout)
	return peer.AddrInfo{ID: id, Addrs: x.addrs}, 0
}

// tried notes how dialing ended, and whether the handshake follows.
func (d *dialer) tried(id peer.ID, err error, greeting bool) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.targets[id]
	if x == nil {
		return nil
	}
	x.busy = false
	if err != nil {
		x.failures++
		x.next = now().Add(backoff(x.failures, d.longest()))
	}
	d.ended(x, greeting)
	return x.joins
}

func (r *Replica) connect(ctx context.Context, ai peer.AddrInfo) {
	if node := r.dialer.nodeTarget(ai.ID); node != nil {
		r.askNode(ctx, ai, node)
		return
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := r.net.Peer.Connect(dialCtx, ai)
	joins := r.dialer.tried(ai.ID, err, err == nil)
	if err == nil || ctx.Err() != nil {
		return
	}
	r.hasTried()
	r.log.DebugContext(ctx, "host does not answer", "peer", ai.ID, "error", err)
	r.setJoins(ctx, joins, JoinUnreachable, err)
}

// met notes how the handshake with a host ended.
func (r *Replica) met(ctx context.Context, id peer.ID, err error) {
	r.hasTried()
	joins := r.dialer.greeted(id, err)
	if err == nil {
		r.setJoins(ctx, joins, JoinConnected, nil)
		return
	}
	r.setJoins(ctx, joins, JoinRefused, err)
}

func (r *Replica) setJoins(ctx context.Context, addrs []string, state string, cause error) {
	for _, addr := range addrs {
		j := hostlog.Join{Addr: addr, State: state, LastTry: now()}
		if cause != nil {
			j.LastError = cause.Error()
		}
		if err := r.o.Store.SetJoin(ctx, r.space, j); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "cannot record how a join went", "error", err)
		}
	}
}

// loadTargets reads joins and known hosts when something may have changed.
func (r *Replica) loadTargets(ctx context.Context) error {
	r.dialer.mu.Lock()
	reload := r.dialer.reload
	r.dialer.reload = false
	r.dialer.mu.Unlock()
	if !reload {
		return nil
	}
	hosts, err := r.o.Store.Hosts(ctx, r.space)
	joins, joinErr := r.o.Store.Joins(ctx, r.space)
	if err = errors.Join(err, joinErr); err != nil {
		r.dialer.mu.Lock()
		r.dialer.reload = true
		r.dialer.mu.Unlock()
		return err
	}
	found := targets{}
	for _, j := range joins {
		ai, err := peer.AddrInfoFromString(j.Addr)
		if err == nil {
			_, err = wire.HostOf(ai.ID)
		}
		ofNode := err == nil && !viaFront(*ai)
		if ofNode && r.o.Locate == nil {
			err = fmt.Errorf("address of a node: %w", tinycloud.ErrInvalid)
		}
		if err != nil {
			if j.State != JoinInvalid {
				r.setJoins(ctx, []string{j.Addr}, JoinInvalid, err)
			}
			continue
		}
		x := found.at(ai.ID)
		x.joins = append(x.joins, j.Addr)
		x.addrs = append(x.addrs, ai.Addrs...)
		if ofNode {
			x.node = &nodeTarget{}
		}
	}
	for _, h := range hosts {
		if h.Self {
			continue
		}
		addrs, _ := splitRecord(h.Addrs)
		for _, a := range addrs {
			if ai, err := peer.AddrInfoFromString(a); err == nil && ai.ID == wire.PeerOf(h.Host) {
				x := found.at(ai.ID)
				x.addrs = append(x.addrs, ai.Addrs...)
			}
		}
	}
	r.dialer.set(found, r.self)
	return nil
}

type targets map[peer.ID]*target

func (t targets) at(id peer.ID) *target {
	if t[id] == nil {
		t[id] = &target{}
	}
	return t[id]
}

// set takes over what was found and keeps what is known of each host.
func (d *dialer) set(found targets, self peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lead(found)
	for id, x := range found {
		slices.SortFunc(x.addrs, func(a, b ma.Multiaddr) int { return a.Compare(b) })
		x.addrs = slices.CompactFunc(x.addrs, ma.Multiaddr.Equal)
		x.addrs = x.addrs[:min(addrsPerTry, len(x.addrs))]
		old := d.targets[id]
		switch {
		case id == self || len(x.addrs) == 0:
		case old != nil:
			if !slices.EqualFunc(old.addrs, x.addrs, ma.Multiaddr.Equal) {
				old.addrs, old.next = x.addrs, time.Time{}
			}
			old.joins, old.node = x.joins, x.node
		case len(d.targets) < maxTargets:
			d.targets[id] = x
		}
	}
	for id := range d.targets {
		if found[id] == nil {
			delete(d.targets, id)
		}
	}
	d.tell()
}

func now() time.Time { return time.Now() }
