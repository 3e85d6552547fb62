package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/keys"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	restEvery  = time.Minute      // between looks for Spaces that may sleep, and for some that were met elsewhere
	restAfter  = 15 * time.Minute // without peers
	trialAfter = time.Minute      // likewise, of a Space that was started because a node of another host answered
)

// spaces starts and stops the replicas. A Space's peer is open while it is connected with another host, and
// for some time before and after: from a local write when another host was met, from a join, from the
// connection of a peer, and from the moment a node of another host answers. Else the Space sleeps, and costs
// no more than the look for its hosts (sleep.go). When many are open, those in which nothing happens rest (rest.go).
type spaces struct {
	n       *Node
	log     *slog.Logger
	look    wait.Signal   // a Space may have to start
	turn    wait.Signal   // a sleeping Space may look for its hosts
	seeks   chan struct{} // one for each that does
	silent  silent
	memory  *replication.Budget
	metrics *replication.Metrics

	keyMetrics *keys.Metrics
	asker      *asker
	coming     sync.Map // of *coming, by Space

	dealt   atomic.Uint64 // shards of Spaces that this process may replicate
	members atomic.Int64  // processes among which all are dealt
	redealt wait.Signal   // dealt is another

	mu        sync.RWMutex
	starting  tinycloud.SpaceID                   // guarded by mu; being started
	active    map[tinycloud.SpaceID]*active       // guarded by mu; changed by run and its goroutines
	asleep    map[tinycloud.SpaceID]*sleeper      // guarded by mu; those that have met another host
	woken     map[tinycloud.SpaceID]time.Duration // guarded by mu; those of asleep, or stopping, that have to start, see active.rest
	strangers map[tinycloud.SpaceID]p2p.Caller    // guarded by mu; who woke a Space that is open, and is not known in it
	term      *term                               // guarded by mu; nil while this process does not replicate

	restAfter, trialAfter, unproven, restEvery, quiet time.Duration
	awake                                             int // Spaces that may stay open while nothing happens
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
	keeper  *keys.Keeper // of encryption networks; nil but for a Space of secrets
	stop    context.CancelFunc
	done    chan struct{} // closed when the peer is closed

	// Guarded by spaces.mu:
	since    time.Time     // it last had a peer, or began
	alone    time.Duration // without peers, until it sleeps
	failures int           // of looking for its hosts before
	stopping bool
	rest     *rest // why it is stopping; nil for any other reason
}

// request asks run for a Space's replica.
type request struct {
	space tinycloud.SpaceID
	rest  time.Duration // see active
	done  chan bool     // capacity 1
}

func newSpaces(n *Node) *spaces {
	rest := cmp.Or(n.o.Rest, restAfter)
	s := &spaces{
		n: n, log: n.log.With("part", "replication"),
		look: wait.NewSignal(), turn: wait.NewSignal(), redealt: wait.NewSignal(), seeks: make(chan struct{}, seeksAtOnce),
		silent: silent{until: map[peer.ID]time.Time{}},
		memory: replication.NewBudget(replication.MemoryLimit), metrics: replication.NewMetrics(), keyMetrics: keys.NewMetrics(),
		active: map[tinycloud.SpaceID]*active{}, asleep: map[tinycloud.SpaceID]*sleeper{}, woken: map[tinycloud.SpaceID]time.Duration{},
		restAfter: rest, trialAfter: min(trialAfter, rest), unproven: min(unproven, rest), strangers: map[tinycloud.SpaceID]p2p.Caller{}, restEvery: min(restEvery, rest),
		awake: max(0, cmp.Or(n.o.Awake, awake)), quiet: cmp.Or(n.o.Quiet, quiet),
	}
	s.asker = newAsker(s)
	s.dealt.Store(uint64(allShards))
	s.members.Store(1)
	return s
}

// run starts replicas until the context ends, then waits for all of them. It may be called again.
func (s *spaces) run(ctx context.Context) error {
	now := &term{asked: make(chan request), ended: make(chan struct{})}
	s.begin(now)
	g, ctx := errgroup.WithContext(ctx)
	s.n.openEntrances(ctx)
	s.loadMet(ctx)
	g.Go(func() error { return s.asker.run(ctx) })
	g.Go(func() error { return s.calmDown(ctx) })
	for _, f := range s.finders() {
		g.Go(func() error { return f.run(ctx) })
	}
	rest := time.NewTicker(s.restEvery)
	defer rest.Stop()
	trial := time.NewTicker(strangersEvery)
	defer trial.Stop()
	seek := time.NewTimer(0)
	defer seek.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case q := <-now.asked:
			q.done <- s.start(ctx, g, q.space, q.rest)
		case <-s.look:
			s.n.openEntrances(ctx)
			s.startWoken(ctx, g)
			s.loadMet(ctx)
		case <-s.redealt:
			s.letGo()
			s.loadMet(ctx)
			s.asker.renew()
		case <-s.turn:
			seek.Reset(s.seekDue(ctx, g))
		case <-seek.C:
			seek.Reset(s.seekDue(ctx, g))
		case <-trial.C:
			s.stopUnproven()
			s.proveStrangers(ctx)
		case <-rest.C:
			s.stopIdle()
			s.n.openEntrances(ctx)
			s.loadMet(ctx)
		}
	}
	s.begin(nil)
	close(now.ended) // who asks waits for nothing more
	err := g.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, z := range s.asleep {
		z.rest.release()
	}
	clear(s.asleep)
	clear(s.woken)
	return err
}

func (s *spaces) begin(t *term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = t
}

// stopIdle stops Spaces that have had no peers for a while.
func (s *spaces) stopIdle() { s.stopAlone(func(*active) bool { return true }) }

// stopAlone is the same of some.
func (s *spaces) stopAlone(of func(*active) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.active {
		switch {
		case !of(a):
		case a.stopping, a.replica.Joining():
		case len(a.peer.Authorised()) > 0:
			a.since, a.alone, a.failures = time.Now(), s.restAfter, longAlone
		case time.Since(a.since) >= a.alone:
			a.stopping = true
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
func (s *spaces) start(ctx context.Context, g *errgroup.Group, space tinycloud.SpaceID, rest time.Duration) bool {
	if s.n.alone() || !s.begins(space) {
		return false
	}
	defer s.begun()
	if running, open := s.prolong(space, rest); running {
		return open
	}
	a, err := s.open(ctx, space)
	if err != nil {
		s.log.WarnContext(ctx, "space not replicated, trying again", "space", space, "error", err)
		return false
	}
	own, stop := context.WithCancel(ctx)
	a.stop, a.since, a.alone = stop, time.Now(), rest
	s.mu.Lock()
	if z := s.asleep[space]; z != nil {
		a.failures = z.failures
		z.rest.release()
		for _, node := range z.found {
			a.replica.Found(node)
		}
	}
	s.active[space] = a
	delete(s.asleep, space)
	s.mu.Unlock()
	g.Go(func() error {
		defer close(a.done)
		defer stop()
		kept := a.keep(own)
		err := a.replica.Run(own, replication.Net{Peer: a.peer, Blocks: a.peer, Topic: a.topic})
		err = errors.Join(err, a.topic.Close(), a.peer.Close())
		failed := err != nil && own.Err() == nil
		stop()
		kept.Wait()
		if failed {
			s.log.WarnContext(ctx, "replica ended, starting it again", "space", space, "error", err)
		}
		s.ended(ctx, space, failed)
		return nil // of one Space; the others go on
	})
	return true
}

// prolong says whether a Space has a replica and whether that stays; then it does for a time without peers.
func (s *spaces) prolong(space tinycloud.SpaceID, rest time.Duration) (running, stays bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.active[space]
	switch {
	case a == nil:
		return false, false
	case a.stopping:
		s.woken[space] = max(s.woken[space], rest) // once it has ended
		return true, false
	}
	a.alone = max(a.alone, rest)
	return true, true
}

// ended lays a Space whose replica has ended to sleep if it has met another host.
func (s *spaces) ended(ctx context.Context, space tinycloud.SpaceID, failed bool) {
	met, err := s.n.store.HasMet(ctx, space)
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.active[space]
	failures := was.failures + 1
	if failed {
		failures = min(failures, failedOnce)
	}
	delete(s.active, space)
	if _, woken := s.strangers[space]; woken {
		failures = max(1, was.failures) // it says nothing of the Space's hosts
		delete(s.strangers, space)
	}
	if (met || err != nil) && s.leads(space) {
		s.laid(space, backedOff(failures), was.rest)
	} else {
		was.rest.release()
	}
	if _, woken := s.woken[space]; woken {
		s.look.Give()
	}
}

// open makes a Space's replica and its presence in the network.
func (s *spaces) open(ctx context.Context, space tinycloud.SpaceID) (_ *active, err error) {
	n, a := s.n, &active{done: make(chan struct{})}
	if err := s.openKeeper(space, a); err != nil {
		return nil, err
	}
	a.replica, err = replication.New(replication.Options{
		Space: space, Key: n.keys.SpaceKey(space), Store: replicated{n.store, n.room}, Values: fetched{n}, Hello: n.store.Hello(),
		Addrs: func() []ma.Multiaddr { return n.spaceAddrs(space) },
		Locate: func(ctx context.Context, front peer.AddrInfo, private bool) (peer.ID, error) {
			if id := s.asker.told(space, front.ID); id != "" {
				return id, nil
			}
			return n.locate(ctx, space, front, private)
		},
		Named:       func(ctx context.Context) ([]replication.NamedNode, error) { return s.asker.namedOf(ctx, space) },
		JoinTimeout: n.cfg.P2P.JoinTimeout, Peers: a.peers(),
		Memory: s.memory, Metrics: s.metrics, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	front := n.entrance(ctx, space).front
	if front == nil {
		return nil, fmt.Errorf("this process does not lead: %w", tinycloud.ErrUnavailable)
	}
	a.peer, err = front.Open(ctx, p2p.PeerOptions{
		Key: n.keys.SpaceKey(space), HelloProtocols: wire.HelloProtocols(), Hello: a.replica.ServeHello,
		Connected: a.replica.Connected, Disconnected: a.replica.Disconnected,
		Blocks: n.blocks.Blocks(space), BlockBytes: s.metrics.Blocks, Log: s.log.With("space", space),
	})
	if err != nil {
		return nil, err
	}
	a.peer.Handle(wire.SyncProtocol, a.replica.ServeSync)
	a.serveKeys(ctx)
	a.topic, err = a.peer.Join(wire.Topic, func(ctx context.Context, from peer.ID, data []byte) p2p.Verdict {
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

// ask has run start a Space's replica, unless this process does not replicate now or ctx ends.
func (s *spaces) ask(ctx context.Context, q request) bool {
	s.mu.RLock()
	now := s.term
	s.mu.RUnlock()
	if now == nil {
		return false
	}
	q.done = make(chan bool, 1)
	select {
	case now.asked <- q:
	case <-now.ended:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case ok := <-q.done:
		return ok
	case <-now.ended:
		return false
	}
}

// fetch brings a value of a Space here that another host has.
func (s *spaces) fetch(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash) error {
	if r, err := s.n.store.Room(ctx, space); err == nil && r.NoValues() {
		return r.RefuseValue()
	}
	a := s.get(space)
	if a == nil && s.rests(space) && s.ask(ctx, request{space: space, rest: s.trialAfter}) {
		a = s.get(space)
	}
	if a != nil {
		return a.replica.Fetch(ctx, hostlog.Want{Hash: value})
	}
	if ask := s.elsewhere(space); ask != nil {
		return ask(ctx, processCall{Space: space.String(), Value: value[:]})
	}
	s.wakeUp(space, s.restAfter)
	return fmt.Errorf("value %s: the space is not being replicated: %w", value, tinycloud.ErrUnavailable)
}

// joined begins, or goes on, with the addresses a Space is to be joined through, whether or not ctx ends: they are stored.
func (s *spaces) joined(ctx context.Context, space tinycloud.SpaceID) {
	if s.ask(context.WithoutCancel(ctx), request{space: space, rest: s.restAfter}) {
		if a := s.get(space); a != nil {
			a.replica.Kick()
		}
	}
}

// committed hands a commit to the Space's replica. It runs on the database's writer and must not block. A
// Space that has met no other host has nobody to tell.
func (s *spaces) committed(c capstore.Commit) {
	a := s.get(c.Space)
	if a != nil {
		a.replica.Committed(c.Commit)
		if c.Joins {
			a.replica.Kick()
		}
	}
	if c.Own > 0 || c.Joins || c.Wants > 0 && s.rests(c.Space) {
		s.wakeUp(c.Space, s.restAfter)
	}
	if a == nil && c.Joins && s.leads(c.Space) { // another process was told to
		s.look.Give()
	}
	if c.Pairs {
		s.asker.renew()
	}
	if c.Pairs || c.Beside {
		s.stirKeepers()
	}
	if !c.Created {
		return
	}
	if s.n.cfg.P2P.Isolated {
		s.look.Give() // it needs an entrance
	}
	s.asker.about(c.Space)
}

// status is what the Space's replica sees of the other hosts; zero when there is no replica.
func (s *spaces) status(space tinycloud.SpaceID) replication.Status {
	if a := s.get(space); a != nil {
		return a.replica.Status()
	}
	return s.restStatus(space)
}
