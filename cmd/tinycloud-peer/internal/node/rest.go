package node

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// A connected Space costs some 300 KiB, nearly all of it goroutines of gossip and multiplexers. When more Spaces than
// awake are open, those in which nothing has happened for longest rest: with the agreement of their hosts the peer
// is closed, while the connection of the nodes stays. A local write, a request of a host, a lost connection of the nodes
// and, to be sure, some time wake them.

const (
	awake       = 128         // Spaces that stay open although nothing happens in them
	quiet       = time.Minute // without anything new, until a Space may rest
	restsAtOnce = 16          // Spaces that ask their hosts
	manyLaid    = 32          // Spaces that rest since memory was given back
)

// rest is what a Space agreed on with its hosts. A nil one is no agreement.
type rest struct {
	replication.Rest
	fronts map[peer.ID]func() // of the hosts; each lets go of a connection
}

func (r *rest) release() {
	if r == nil {
		return
	}
	for _, release := range r.fronts {
		release()
	}
}

// over says whether a host that rests is reached by a front.
func (r *rest) over(front peer.ID) bool {
	if r == nil {
		return false
	}
	_, ok := r.fronts[front]
	return ok
}

// calmDown has Spaces rest, from time to time, until the context ends.
func (s *spaces) calmDown(ctx context.Context) error {
	if s.n.cfg.P2P.Isolated { // a Space's connections are its own
		return nil
	}
	ticker := time.NewTicker(min(s.restEvery, s.quiet))
	defer ticker.Stop()
	var laid atomic.Int64
	for before := int64(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var g errgroup.Group
		g.SetLimit(restsAtOnce)
		for space, a := range s.tooMany() {
			g.Go(func() error {
				if err := s.layDown(ctx, space, a); err != nil {
					s.log.DebugContext(ctx, "space does not rest", "space", space, "error", err)
				} else {
					laid.Add(1)
				}
				return nil
			})
		}
		_ = g.Wait() // none fails
		// What they used goes back to the system only when the collector runs, which nothing makes it do in a quiet node.
		if now := laid.Swap(0); now > 0 {
			before += now
		} else if before >= manyLaid {
			debug.FreeOSMemory()
			before = 0
		}
	}
}

// tooMany are the Spaces that may rest: those whose hosts all do and, of the others, as many as are open too many.
func (s *spaces) tooMany() map[tinycloud.SpaceID]*active {
	type candidate struct {
		space tinycloud.SpaceID
		quiet time.Duration
	}
	open, chosen := s.snapshot(), map[tinycloud.SpaceID]*active{}
	var list []candidate
	for space, a := range open {
		if d := a.replica.Quiet(); d < s.quiet {
			continue
		} else if a.replica.Alone() {
			chosen[space] = a
		} else {
			list = append(list, candidate{space, d})
		}
	}
	// By a rule that the other hosts of the Spaces, if they are the same, follow as well: two nodes then lay down the same.
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.quiet/time.Minute, a.quiet/time.Minute), strings.Compare(a.space.String(), b.space.String()))
	})
	for _, c := range list[:max(0, min(len(list), len(open)-len(chosen)-s.awake))] {
		chosen[c.space] = open[c.space]
	}
	return chosen
}

// layDown stops a Space if its hosts agree.
func (s *spaces) layDown(ctx context.Context, space tinycloud.SpaceID, a *active) error {
	agreed, err := a.replica.Rest(ctx)
	if err != nil {
		return err
	}
	r, err := s.keep(ctx, space, agreed)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A commit is told to the replica before it looks whether the Space is stopping.
	if a.stopping || s.active[space] != a || !a.replica.Rests(agreed) {
		r.release()
		return nil
	}
	a.stopping, a.rest = true, r
	a.stop()
	return nil
}

// keep holds on to the connections with the nodes of the hosts that rest.
func (s *spaces) keep(ctx context.Context, space tinycloud.SpaceID, agreed replication.Rest) (*rest, error) {
	known, err := s.n.store.Hosts(ctx, space)
	if err != nil {
		return nil, err
	}
	front := s.n.entrance(ctx, space).front
	if front == nil {
		return nil, fmt.Errorf("this process does not lead: %w", tinycloud.ErrUnavailable)
	}
	r := &rest{agreed, map[peer.ID]func(){}}
	for _, host := range agreed.Hosts {
		i := slices.IndexFunc(known, func(k hostlog.Host) bool { return k.Host == host.Host })
		if i < 0 || !r.connected(front, known[i].Addrs) {
			r.release()
			return nil, fmt.Errorf("no connection with the node of host %s: %w", host.Host, tinycloud.ErrUnavailable)
		}
	}
	return r, nil
}

// connected holds on to the connection with a node that is reached by some of a host's addresses; it reports false
// when there is none.
func (r *rest) connected(front *p2p.Front, addrs []string) bool {
	for _, a := range addrs {
		to, err := parseTarget(a)
		if err != nil {
			continue // a signed record stands among the addresses
		}
		if r.over(to.front.ID) {
			return true
		}
		if release, ok := front.Keep(to.front.ID); ok {
			r.fronts[to.front.ID] = release
			return true
		}
	}
	return false
}

// intact reports whether the nodes are still connected.
func (r *rest) intact(front *p2p.Front) bool {
	for id := range r.fronts {
		release, ok := front.Keep(id)
		if !ok {
			return false
		}
		release()
	}
	return true
}

// laid has a Space sleep that has stopped, with what it agreed on if the nodes are still connected. s.mu is held.
func (s *spaces) laid(space tinycloud.SpaceID, z *sleeper, r *rest) {
	if front := s.n.opened(space).front; r != nil && front != nil && r.intact(front) {
		z.rest = r
	} else {
		r.release()
	}
	s.asleep[space] = z
	s.turn.Give()
}

// lost ends the rest of Spaces whose hosts were reached by a front: it may be that only the connection is gone.
func (s *spaces) lost(front peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for space, z := range s.asleep {
		if z.rest.over(front) {
			z.rest.release()
			s.asleep[space] = &sleeper{found: z.found, busy: z.busy}
		}
	}
	for _, a := range s.active {
		a.replica.Rouse()
	}
	s.turn.Give()
}

// rests reports whether a Space sleeps while its hosts are connected.
func (s *spaces) rests(space tinycloud.SpaceID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	z := s.asleep[space]
	return z != nil && z.rest != nil
}

// resting is how many Spaces sleep while their hosts are connected.
func (s *spaces) resting() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, z := range s.asleep {
		if z.rest != nil {
			n++
		}
	}
	return n
}

// absent are those of a Space's fronts whose hosts don't rest; all, once the time of rest is over.
func (s *spaces) absent(space tinycloud.SpaceID, fronts []peer.AddrInfo) []peer.AddrInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	z := s.asleep[space]
	if z == nil || z.rest == nil || !time.Now().Before(z.rest.Until) {
		return fronts
	}
	return slices.DeleteFunc(fronts, func(f peer.AddrInfo) bool { return z.rest.over(f.ID) })
}

// restStatus is what is known of the hosts of a Space that rests; zero of any other that sleeps.
func (s *spaces) restStatus(space tinycloud.SpaceID) (st replication.Status) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if z := s.asleep[space]; z != nil && z.rest != nil {
		for _, p := range z.rest.Hosts {
			p.LastSeen = time.Now()
			st.Peers = append(st.Peers, p)
		}
	}
	return st
}
