package node

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
)

const (
	findTick      = 2 * time.Second // between looks at what is due
	findsAtOnce   = 4
	findTimeout   = time.Minute // of one search or announcement
	findFirst     = 5 * time.Second
	findLongest   = 10 * time.Minute // between searches for hosts of a Space that stay away
	announceEvery = time.Hour
)

// finder announces this node under the rendezvous names of its Spaces and looks there for hosts that are
// known but not connected. It serves all Spaces of a node.
type finder struct {
	*spaces
	means  string // what the names are for
	way    way
	states map[tinycloud.SpaceID]*finding
}

// way is how nodes are found under names.
type way interface {
	// announce says that this node is to be found under a name of a Space for [announceEvery] and longer.
	announce(ctx context.Context, name p2p.Name, secret tinycloud.Hash, found func(peer.AddrInfo)) error
	find(ctx context.Context, name p2p.Name, found func(peer.AddrInfo))
}

// finding is what was done for a Space.
type finding struct {
	secret    tinycloud.Hash
	names     [][32]byte
	announced time.Time
	next      time.Time // of the search
	failures  int
	busy      chan struct{} // capacity 1
}

// run works until ctx ends.
func (f *finder) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(findsAtOnce + 1)
	g.Go(func() error {
		tick := time.NewTicker(findTick)
		defer tick.Stop()
		for {
			f.look(ctx, g)
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return g.Wait()
}

// look starts what is due.
func (f *finder) look(ctx context.Context, g *errgroup.Group) {
	met := f.met()
	maps.DeleteFunc(f.states, func(space tinycloud.SpaceID, _ *finding) bool { _, ok := met[space]; return !ok })
	if len(met) == 0 {
		return
	}
	secrets, err := f.n.store.Rendezvouses(ctx)
	if err != nil {
		if ctx.Err() == nil {
			f.log.WarnContext(ctx, "cannot read the names to be found under", "error", err)
		}
		return
	}
	now := time.Now()
	for space := range met {
		secret, ok := secrets[space]
		if !ok {
			continue
		}
		x := f.states[space]
		if x == nil {
			x = &finding{busy: make(chan struct{}, 1)}
			f.states[space] = x
		}
		select {
		case x.busy <- struct{}{}:
		default:
			continue
		}
		names := locate.RendezvousNames(secret, f.means, now)
		if !slices.Equal(names, x.names) {
			*x = finding{secret: secret, names: names, busy: x.busy}
		}
		if now.Sub(x.announced) < announceEvery && now.Before(x.next) || !g.TryGo(func() error {
			defer func() { <-x.busy }()
			f.work(ctx, space, x)
			return nil
		}) {
			<-x.busy
		}
	}
}

// work announces and searches for one Space. x is busy, and so this goroutine's.
func (f *finder) work(ctx context.Context, space tinycloud.SpaceID, x *finding) {
	found := func(node peer.AddrInfo) { f.found(space, node) }
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	if time.Since(x.announced) >= announceEvery {
		for _, name := range x.names {
			if err := f.way.announce(ctx, name, x.secret, found); err != nil {
				return // nobody to tell yet: tried again at the next look
			}
		}
		x.announced = time.Now().Add(-rand.N(announceEvery / 4)) // not all at once
	}
	if time.Now().Before(x.next) {
		return
	}
	if !f.lonely(ctx, space) {
		x.failures, x.next = 0, time.Now().Add(findFirst)
		return
	}
	for _, name := range x.names {
		f.way.find(ctx, name, found)
	}
	x.failures++
	x.next = time.Now().Add(min(findLongest, findFirst<<min(x.failures-1, 10)))
}

// lonely says whether a known host of a Space is not connected.
func (f *finder) lonely(ctx context.Context, space tinycloud.SpaceID) bool {
	hosts, err := f.n.store.Hosts(ctx, space)
	if err != nil {
		return false
	}
	connected := 0
	for _, p := range f.status(space).Peers {
		if p.Connected {
			connected++
		}
	}
	return connected < len(hosts)-1
}

// finders are those that were asked for.
func (s *spaces) finders() []*finder {
	var out []*finder
	add := func(means string, w way) {
		out = append(out, &finder{spaces: s, means: means, way: w, states: map[tinycloud.SpaceID]*finding{}})
	}
	front := s.n.front.Load()
	if front != nil && s.n.cfg.P2P.DHT {
		add("dht", byDHT{front})
	}
	if lan := s.n.lan.Load(); front != nil && lan != nil {
		add("mdns", byLAN{front, lan, s.log})
	}
	return out
}

type byDHT struct{ front *p2p.Front }

func (w byDHT) announce(ctx context.Context, name p2p.Name, _ tinycloud.Hash, _ func(peer.AddrInfo)) error {
	return w.front.Provide(ctx, name)
}

func (w byDHT) find(ctx context.Context, name p2p.Name, found func(peer.AddrInfo)) {
	for ai := range w.front.Providers(ctx, name) {
		found(ai)
	}
}
