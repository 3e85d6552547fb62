package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

const (
	restEvery = time.Minute      // between looks for Spaces that may stop or have to start again
	restAfter = 15 * time.Minute // without peers, of a Space that never met another host
)

// spaces starts and stops the replicas. A Space has one while it has someone to replicate with: another
// host was met or is to be joined, or a peer is connecting.
type spaces struct {
	n       *Node
	log     *slog.Logger
	look    chan struct{} // signalled when a Space may have to start
	memory  *replication.Budget
	metrics *replication.Metrics
	created []chan struct{} // capacity 1; told of new Spaces, one for each address of p2p.bootstrap

	mu     sync.RWMutex
	active map[tinycloud.SpaceID]*active // guarded by mu; changed by run and its goroutines
	term   *term                         // guarded by mu; nil while this process does not replicate
}

// term is a time during which this process replicates.
type term struct {
	asked chan request
	ended chan struct{} // closed when there are no more replicas to ask for
}

// active is a Space whose peer is open.
type active struct {
	peer    *p2p.Peer
	topic   *p2p.Topic
	replica *replication.Replica
	stop    context.CancelFunc
	done    chan struct{} // closed when the peer is closed
	since   time.Time     // it last had a peer, or began; used by run alone
}

// request asks run for a Space's replica.
type request struct {
	space tinycloud.SpaceID
	done  chan bool // capacity 1
}

func newSpaces(n *Node) *spaces {
	created := make([]chan struct{}, len(n.cfg.P2P.Bootstrap))
	for i := range created {
		created[i] = make(chan struct{}, 1)
	}
	return &spaces{
		n: n, log: n.log.With("part", "replication"), look: make(chan struct{}, 1), created: created,
		memory: replication.NewBudget(replication.MemoryLimit), metrics: replication.NewMetrics(),
		active: map[tinycloud.SpaceID]*active{},
	}
}

// run starts replicas until the context ends, then waits for all of them. It may be called again.
func (s *spaces) run(ctx context.Context) error {
	now := &term{asked: make(chan request), ended: make(chan struct{})}
	s.begin(now)
	defer s.begin(nil)
	defer close(now.ended) // who asks the front waits for nothing more
	g, ctx := errgroup.WithContext(ctx)
	s.startMet(ctx, g)
	g.Go(func() error { return s.bootstrap(ctx) })
	for _, f := range s.finders() {
		g.Go(func() error { return f.run(ctx) })
	}
	rest := time.NewTicker(restEvery)
	defer rest.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case q := <-now.asked:
			q.done <- s.start(ctx, g, q.space)
		case <-s.look:
			s.startMet(ctx, g)
		case <-rest.C:
			s.stopIdle(ctx)
			s.startMet(ctx, g) // those that failed
		}
	}
	return g.Wait()
}

func (s *spaces) begin(t *term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = t
}

// startMet starts the Spaces that have met another host.
func (s *spaces) startMet(ctx context.Context, g *errgroup.Group) {
	met, err := s.n.store.Met(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("cannot tell which spaces to replicate, trying again", "error", err)
		}
		return
	}
	for _, space := range met {
		if ctx.Err() != nil {
			return
		}
		s.start(ctx, g, space)
	}
}

// stopIdle stops Spaces that were woken by somebody who turned out to be no host.
func (s *spaces) stopIdle(ctx context.Context) {
	for space, a := range s.snapshot() {
		if len(a.peer.Authorised()) > 0 {
			a.since = time.Now()
		}
		if time.Since(a.since) < restAfter {
			continue
		}
		if met, err := s.n.store.HasMet(ctx, space); err == nil && !met {
			a.stop()
		}
	}
}

func (s *spaces) snapshot() map[tinycloud.SpaceID]*active {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[tinycloud.SpaceID]*active, len(s.active))
	for space, a := range s.active {
		out[space] = a
	}
	return out
}

func (s *spaces) get(space tinycloud.SpaceID) *active {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.active[space]
}

// start opens a Space's peer and runs its replica. It reports whether the peer is open.
func (s *spaces) start(ctx context.Context, g *errgroup.Group, space tinycloud.SpaceID) bool {
	if s.get(space) != nil {
		return true
	}
	a, err := s.open(space)
	if err != nil {
		s.log.Warn("space not replicated, trying again", "space", space, "error", err)
		return false
	}
	own, stop := context.WithCancel(ctx)
	a.stop, a.since = stop, time.Now()
	s.mu.Lock()
	s.active[space] = a
	s.mu.Unlock()
	g.Go(func() error {
		defer close(a.done)
		defer stop()
		err := a.replica.Run(own, replication.Net{Peer: a.peer, Blocks: a.peer, Topic: a.topic})
		err = errors.Join(err, a.topic.Close(), a.peer.Close())
		s.mu.Lock()
		delete(s.active, space)
		s.mu.Unlock()
		if err != nil && own.Err() == nil {
			s.log.Warn("replica ended, starting it again", "space", space, "error", err)
		}
		return nil // of one Space; the others go on
	})
	return true
}

// open makes a Space's replica and its presence in the network.
func (s *spaces) open(space tinycloud.SpaceID) (_ *active, err error) {
	n, a := s.n, &active{done: make(chan struct{})}
	a.replica, err = replication.New(replication.Options{
		Space: space, Key: n.keys.SpaceKey(space), Store: n.store, Values: fetched{n},
		Addrs: func() []ma.Multiaddr { return n.spaceAddrs(space) },
		Locate: func(ctx context.Context, front peer.AddrInfo, private bool) (peer.ID, error) {
			return n.locate(ctx, space, front, private)
		},
		Memory: s.memory, Metrics: s.metrics, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	front := n.front.Load()
	if front == nil {
		return nil, fmt.Errorf("this process does not lead: %w", tinycloud.ErrUnavailable)
	}
	a.peer, err = front.Open(p2p.PeerOptions{
		Key: n.keys.SpaceKey(space), HelloProtocol: replication.HelloProtocol, Hello: a.replica.ServeHello,
		Connected: a.replica.Connected, Disconnected: a.replica.Disconnected,
		Blocks: n.blocks.Blocks(space), Log: s.log.With("space", space),
	})
	if err != nil {
		return nil, err
	}
	a.peer.Handle(replication.SyncProtocol, a.replica.ServeSync)
	a.topic, err = a.peer.Join(replication.Topic, func(ctx context.Context, from peer.ID, data []byte) p2p.Verdict {
		return verdict(a.replica.Check(ctx, from, data))
	})
	if err != nil {
		return nil, errors.Join(err, a.peer.Close())
	}
	return a, nil
}

// verdict tells gossip what an error of the replica means.
func verdict(err error) p2p.Verdict {
	switch {
	case err == nil:
		return p2p.Accept
	case errors.Is(err, tinycloud.ErrInvalid), errors.Is(err, tinycloud.ErrForged):
		return p2p.Reject
	}
	return p2p.Ignore
}

// ask has run start a Space's replica, unless this process does not replicate now.
func (s *spaces) ask(space tinycloud.SpaceID) bool {
	s.mu.RLock()
	now := s.term
	s.mu.RUnlock()
	if now == nil {
		return false
	}
	q := request{space, make(chan bool, 1)}
	select {
	case now.asked <- q:
	case <-now.ended:
		return false
	}
	select {
	case ok := <-q.done:
		return ok
	case <-now.ended:
		return false
	}
}

// wake answers the front when somebody asks for a Space's peer that is not open.
func (s *spaces) wake(id peer.ID) bool {
	key, err := p2p.Ed25519FromPeerID(id)
	if err != nil {
		return false
	}
	space, ok := s.n.store.SpaceOf(capstore.HostKey(key))
	return ok && s.ask(space)
}

// fetch brings a value of a Space here that another host has.
func (s *spaces) fetch(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash) error {
	if a := s.get(space); a != nil {
		return a.replica.Fetch(ctx, capstore.Want{Hash: value})
	}
	return fmt.Errorf("value %s: the space is not being replicated: %w", value, tinycloud.ErrUnavailable)
}

// joined begins, or goes on, with the addresses a Space is to be joined through.
func (s *spaces) joined(space tinycloud.SpaceID) {
	if s.ask(space) {
		if a := s.get(space); a != nil {
			a.replica.Kick()
		}
	}
}

// committed hands a commit to the Space's replica. It runs on the database's writer and must not block. A
// Space without a replica has nobody to tell.
func (s *spaces) committed(c capstore.Commit) {
	a := s.get(c.Space)
	switch {
	case a != nil:
		a.replica.Committed(c)
		if c.Joins {
			a.replica.Kick()
		}
	case c.Joins: // another process was told to
		select {
		case s.look <- struct{}{}:
		default:
		}
	}
	if !c.Created {
		return
	}
	for _, wake := range s.created {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// status is what the Space's replica sees of the other hosts; none when there is no replica.
func (s *spaces) status(space tinycloud.SpaceID) map[capstore.HostKey]replication.PeerStatus {
	out := map[capstore.HostKey]replication.PeerStatus{}
	if a := s.get(space); a != nil {
		for _, p := range a.replica.Status().Peers {
			out[p.Host] = p
		}
	}
	return out
}

// collectors are the metrics of replication.
func (s *spaces) collectors() []prometheus.Collector {
	active := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tinycloud", Name: "active_spaces", Help: "Spaces whose peer is open.",
	}, func() float64 { return float64(len(s.snapshot())) })
	hosted := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tinycloud", Name: "hosted_spaces", Help: "Spaces this node is a host of.",
	}, func() float64 { return float64(len(s.n.store.Spaces())) })
	peers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tinycloud", Name: "authorised_peers", Help: "Connected hosts, counted per Space.",
	}, func() float64 {
		total := 0
		for _, a := range s.snapshot() {
			total += len(a.peer.Authorised())
		}
		return float64(total)
	})
	return append(s.metrics.Collectors(), active, hosted, peers)
}
