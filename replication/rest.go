package replication

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// A Space in which nothing happens need not stay connected. A host asks the others whether it may rest; those that
// have the same entries, and lack no value, agree, and don't dial it again when it leaves. What is new to one of
// them ends that: it dials those that rest, as it would dial a host that comes back.

const (
	restTime    = time.Hour       // after which a host that rests is dialed all the same, less up to a half by chance
	restTimeout = 5 * time.Second // for one host to answer
	arrivalWait = 5 * time.Second // of a reader, for a host that rested
)

// Rest is what the hosts of a Space agreed on.
type Rest struct {
	Hosts []PeerStatus // that know of it, or rest themselves
	Until time.Time    // when they are to be compared with all the same
	stirs uint64
}

// Quiet returns for how long nothing was new in the Space.
func (r *Replica) Quiet() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.stirred)
}

// stirrings counts what was new in the Space.
func (r *Replica) stirrings() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stirs
}

// Alone reports whether all hosts that were connected rest.
func (r *Replica) Alone() bool {
	r.mu.Lock()
	n := len(r.remotes)
	r.mu.Unlock()
	return n == 0 && len(r.dialer.resting()) > 0
}

// Rest asks every connected host whether this one may leave until there is something new. The error is of class
// [tinycloud.ErrUnavailable] when one of them, or this one, has something to do. The caller makes sure with [Replica.Rests]
// that nothing came in between, and ends Run.
func (r *Replica) Rest(ctx context.Context) (Rest, error) {
	rest := Rest{stirs: r.stirrings(), Until: time.Now().Add(jitter(restTime))}
	hash, err := r.calm(ctx)
	if err != nil {
		return Rest{}, err
	}
	partners := r.partners()
	r.mu.Lock()
	strangers := len(r.remotes) - len(partners)
	r.mu.Unlock()
	if strangers > 0 {
		return Rest{}, fmt.Errorf("a handshake is under way: %w", tinycloud.ErrUnavailable)
	}
	for _, m := range partners {
		if err := r.askRest(ctx, m, hash); err != nil {
			return Rest{}, err
		}
	}
	for _, p := range r.Status().Peers {
		if p.Connected && r.dialer.reaches(p.Peer) {
			rest.Hosts = append(rest.Hosts, p)
		}
	}
	if len(rest.Hosts) < max(1, len(partners)) {
		return Rest{}, fmt.Errorf("a host could not be dialed again: %w", tinycloud.ErrUnavailable)
	}
	return rest, nil
}

// Rests reports whether nothing was new since the hosts agreed.
func (r *Replica) Rests(rest Rest) bool {
	return r.stirrings() == rest.stirs
}

func (r *Replica) askRest(ctx context.Context, m *remote, hash tinycloud.Hash) error {
	ctx, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	answer, err := r.ask(ctx, m, &wire.Message{Rest: &wire.Rest{Hash: hash}}, wire.MaxRequest)
	if err != nil {
		return err
	}
	if answer.Rest == nil || answer.Rest.Hash != hash {
		return fmt.Errorf("host %s does not agree: %w", m.id, tinycloud.ErrUnavailable)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.markEqualLocked(m) // also if a round with it is still due
	return nil
}

// serveRest lets a host leave without being dialed again, if all that either has is on both sides.
func (r *Replica) serveRest(ctx context.Context, m *remote, f *wire.Framer, q *wire.Rest) error {
	stirs := r.stirrings()
	hash, err := r.calm(ctx)
	if err != nil || hash != q.Hash || !r.dialer.reaches(m.id) || !r.letRest(m, stirs) {
		hash = tinycloud.Hash{}
	}
	return f.Put(&wire.Message{Rest: &wire.Rest{Hash: hash}})
}

// letRest notes that a peer may leave, unless something was new since.
func (r *Replica) letRest(m *remote, stirs uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stirs != stirs {
		return false
	}
	m.rests = true
	return true
}

// calm returns the hash of the tips when this host neither waits for anything nor is about to take it.
func (r *Replica) calm(ctx context.Context) (tinycloud.Hash, error) {
	r.mu.Lock()
	busy := r.joining || r.turnOf != nil
	r.mu.Unlock()
	wanting, err := r.o.Store.Wanting(ctx, r.space)
	if err != nil {
		return tinycloud.Hash{}, err
	}
	if busy || wanting || r.wants.inFlight() > 0 {
		return tinycloud.Hash{}, fmt.Errorf("entries or values are still to come: %w", tinycloud.ErrUnavailable)
	}
	tips, err := r.o.Store.Tips(ctx, r.space)
	if err != nil {
		return tinycloud.Hash{}, err
	}
	return wire.HashTips(tips), nil
}

// stir says that there is something new: nobody may leave in the belief to have all, and those that rest are dialed.
func (r *Replica) stir() {
	r.mu.Lock()
	r.stirs, r.stirred = r.stirs+1, time.Now()
	for _, m := range r.remotes {
		m.rests = false
	}
	r.mu.Unlock()
	r.dialer.rouse()
}

// Rouse has the hosts that rest dialed, as when the connection of their nodes was lost.
func (r *Replica) Rouse() { r.dialer.rouse() }

// awaitHost waits a while for a host, and reports whether one is connected. Hosts are dialed for who comes when there is
// none: one that rests, or has just lain down, doesn't dial this host.
func (r *Replica) awaitHost(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, arrivalWait)
	defer cancel()
	for first := true; ; first = false {
		r.mu.Lock()
		arrival := r.arrival
		r.mu.Unlock()
		if r.running() && r.anyAuthorised() {
			return true
		}
		if first && !r.dialer.rouse() {
			r.dialer.now(false)
		}
		until, _ := ctx.Deadline()
		ended := r.trying(until)
		if ended == nil {
			return false
		}
		select {
		case <-arrival:
		case <-ended:
		case <-r.stopped:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// rest has a host dialed much later, which left because there is nothing new.
func (d *dialer) rest(id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.targets[id]; x != nil {
		x.rests, x.next = true, now().Add(jitter(restTime))
		d.wake.Give()
	}
}

// rouse makes the hosts that rest due; it reports whether there are any.
func (d *dialer) rouse() (any bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.targets {
		if x.rests {
			x.rests, x.next, any = false, now(), true
		}
	}
	if any {
		d.wake.Give()
	}
	return any
}

// resting are the hosts that left because there is nothing new.
func (d *dialer) resting() (ids []peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, x := range d.targets {
		if x.rests {
			ids = append(ids, id)
		}
	}
	return ids
}

// reaches reports whether an address of a host is known.
func (d *dialer) reaches(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.targets[id] != nil
}
