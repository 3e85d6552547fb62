package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	seekFirst   = time.Second     // until the hosts of a sleeping Space are looked for again; doubles
	seekLongest = 5 * time.Minute // likewise, at most
	seeksAtOnce = 16              // sleeping Spaces that look for their hosts, or have just found one
	seekTimeout = 15 * time.Second
	seekFronts  = 16              // fronts of one Space that are tried
	frontSilent = 3 * time.Second // for which a front that did not answer one Space is not tried for others
	maxSilent   = 4096
)

// sleeper is a Space that has met another host and whose peer is not open.
type sleeper struct {
	next     time.Time       // when its hosts are looked for
	failures int             // times they were not found, or did not take it
	busy     bool            // they are being looked for
	found    []peer.AddrInfo // nodes that a finder met, to be told to the replica
	rest     *rest           // with the hosts that know; nil: none
}

// backedOff is a sleeper after a number of failures.
func backedOff(failures int) *sleeper {
	d := min(seekLongest, seekFirst<<min(max(failures-1, 0), 16))
	return &sleeper{failures: failures, next: time.Now().Add(d/2 + rand.N(d/2))}
}

// Failures that a Space begins to sleep with.
const (
	longAlone  = 10 // its hosts are looked for as seldom as ever
	failedOnce = 5  // its replica ended: within half a minute
)

// loadMet has the Spaces that met another host, and whose peers are not open, look for it.
func (s *spaces) loadMet(ctx context.Context) {
	met, err := s.n.store.Met(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot tell which spaces to replicate, trying again", "error", err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, space := range met {
		if s.active[space] == nil && s.asleep[space] == nil && s.leads(space) {
			s.asleep[space] = &sleeper{}
		}
	}
	s.turn.Give()
}

// startWoken starts the Spaces that have something to tell.
func (s *spaces) startWoken(ctx context.Context, g *errgroup.Group) {
	s.mu.Lock()
	due := map[tinycloud.SpaceID]time.Duration{}
	for space, rest := range s.woken {
		if a := s.active[space]; a == nil || !a.stopping {
			due[space] = rest
			delete(s.woken, space)
		}
	}
	s.mu.Unlock()
	for space, rest := range due {
		s.start(ctx, g, space, rest)
	}
}

// wakeUp has run start a Space that sleeps, for a time without peers. It does not block.
func (s *spaces) wakeUp(space tinycloud.SpaceID, rest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.active[space]; s.asleep[space] != nil || a != nil && a.stopping {
		s.woken[space] = max(s.woken[space], rest)
		s.look.Give()
	}
}

// found tells a Space, asleep or not, of a node that a finder met under its name. It does not block.
func (s *spaces) found(space tinycloud.SpaceID, node peer.AddrInfo) {
	if a := s.get(space); a != nil {
		a.replica.Found(node)
		return
	}
	s.mu.Lock()
	z := s.asleep[space]
	connected := z != nil && z.rest.over(node.ID)
	if z != nil && !connected && len(z.found) < seekFronts {
		z.found = append(z.found, node)
	}
	s.mu.Unlock()
	if !connected {
		s.wakeUp(space, s.trialAfter)
	}
}

// met are the Spaces that have met another host, or whose peer is open.
func (s *spaces) met() map[tinycloud.SpaceID]struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[tinycloud.SpaceID]struct{}, len(s.active)+len(s.asleep))
	for space := range s.active {
		out[space] = struct{}{}
	}
	for space := range s.asleep {
		out[space] = struct{}{}
	}
	return out
}

// seekDue has sleeping Spaces look for their hosts, those first that are due longest, and returns how long
// none is due. When there are too many at once, the end of one signals turn.
func (s *spaces) seekDue(ctx context.Context, g *errgroup.Group) time.Duration {
	type due struct {
		space tinycloud.SpaceID
		*sleeper
	}
	var list []due
	wait, now := seekLongest, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for space, z := range s.asleep {
		if d := z.next.Sub(now); d > 0 {
			wait = min(wait, d)
		} else if !z.busy {
			list = append(list, due{space, z})
		}
	}
	slices.SortFunc(list, func(a, b due) int { return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.failures, b.failures)) })
	for _, d := range list {
		select {
		case s.seeks <- struct{}{}:
		default:
			return wait
		}
		d.busy = true
		g.Go(func() error {
			defer s.turn.Give()
			defer func() { <-s.seeks }()
			s.seek(ctx, d.space)
			return nil
		})
	}
	return wait
}

// seek looks for the hosts of a sleeping Space. When a node of one answers, the Space's peer is opened, and
// the next Space's turn is when that has met one of them.
func (s *spaces) seek(ctx context.Context, space tinycloud.SpaceID) {
	ctx, cancel := context.WithTimeout(ctx, seekTimeout)
	defer cancel()
	err := s.answered(ctx, space)
	if err != nil {
		s.log.DebugContext(ctx, "no other host answers", "space", space, "error", err)
	} else if s.ask(ctx, request{space: space, rest: s.trialAfter}) {
		if a := s.get(space); a != nil {
			select {
			case <-a.replica.Tried():
			case <-a.done:
			case <-ctx.Done():
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if z := s.asleep[space]; z != nil && z.busy { // it still sleeps
		next := backedOff(z.failures + 1)
		next.found, next.rest = z.found, z.rest
		if z.rest != nil && errors.Is(err, errResting) {
			next.next = z.rest.Until
		}
		s.asleep[space] = next
	}
}

// answered returns nil when a node of another host of a Space is connected or answers.
func (s *spaces) answered(ctx context.Context, space tinycloud.SpaceID) error {
	front := s.n.entrance(ctx, space).front
	fronts, err := s.frontsOf(ctx, space)
	if err != nil {
		return err
	}
	if fronts = s.absent(space, fronts); len(fronts) == 0 && s.rests(space) {
		return errResting
	}
	if front == nil || len(fronts) == 0 {
		return fmt.Errorf("nobody to ask: %w", tinycloud.ErrUnavailable)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var any atomic.Bool
	var wg sync.WaitGroup
	errs := make([]error, len(fronts))
	for i, to := range fronts {
		wg.Go(func() {
			if errs[i] = s.silent.try(to.ID, func() error { return front.Connect(ctx, to) }); errs[i] == nil {
				any.Store(true)
				cancel() // one is enough
			}
		})
	}
	wg.Wait()
	if any.Load() {
		return nil
	}
	return errors.Join(errs...)
}

// errResting says that all hosts of a Space that could be looked for are connected and rest.
var errResting = fmt.Errorf("all hosts rest: %w", tinycloud.ErrUnavailable)

// frontsOf returns the nodes of the other hosts of a Space, as far as addresses are known.
func (s *spaces) frontsOf(ctx context.Context, space tinycloud.SpaceID) ([]peer.AddrInfo, error) {
	hosts, err := s.n.store.Hosts(ctx, space)
	if err != nil {
		return nil, err
	}
	joins, err := s.n.store.Joins(ctx, space)
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, h := range hosts {
		if !h.Self {
			addrs = append(addrs, h.Addrs...)
		}
	}
	for _, j := range joins {
		addrs = append(addrs, j.Addr)
	}
	var fronts []peer.AddrInfo
	for _, a := range addrs {
		to, err := parseTarget(a)
		if err != nil || to.front.ID == s.n.entranceID(space) || !s.n.admits(to.front.ID) {
			continue // a signed record stands among the addresses
		}
		i := slices.IndexFunc(fronts, func(f peer.AddrInfo) bool { return f.ID == to.front.ID })
		switch {
		case i >= 0:
			fronts[i].Addrs = append(fronts[i].Addrs, to.front.Addrs...)
		case len(fronts) < seekFronts:
			fronts = append(fronts, to.front)
		}
	}
	return fronts, nil
}

// silent are the nodes that did not answer a moment ago: the Spaces that look for hosts there share a try.
type silent struct {
	mu    sync.Mutex
	until map[peer.ID]time.Time // guarded by mu
}

var errSilent = fmt.Errorf("did not answer a moment ago: %w", tinycloud.ErrUnavailable)

// try calls connect, unless it failed for that node lately.
func (q *silent) try(node peer.ID, connect func() error) error {
	q.mu.Lock()
	until := q.until[node]
	q.mu.Unlock()
	if time.Now().Before(until) {
		return fmt.Errorf("node %s: %w", node, errSilent)
	}
	err := connect()
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err == nil:
		delete(q.until, node)
	case errors.Is(err, context.Canceled): // nobody waited for the answer
	default:
		if len(q.until) >= maxSilent {
			clear(q.until)
		}
		q.until[node] = time.Now().Add(frontSilent)
	}
	return err
}
