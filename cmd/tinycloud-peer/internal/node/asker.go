package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
)

// The asker asks every named node for its peer of every Space here, until that is known. Spaces that are joining come
// first and at once, and no owner waits for all Spaces of another; the others are asked about one by one.

const (
	askTimeout   = 15 * time.Second
	askAgain     = 2 * time.Second        // likewise, of a node that gave no answer lately
	askFirst     = time.Second            // until a node without a use for a Space is asked again; doubles
	askLongest   = time.Hour              // likewise, at most
	joinAskFirst = 100 * time.Millisecond // likewise, while the Space is joining and the node gives no answer
	joinAskMost  = time.Second
	joinAskSoon  = 20 // failures after which a joining Space is no more urgent than others
	asksAtOnce   = 8  // questions to one node; more are reset by it
	asksReserved = 16 // of what a node allows at once, for Spaces that are joining
)

// What a node allows: strangers 64 questions at once and 8 a second; paired nodes, if it paired this one too, 128 and 64.
const (
	askRate, askBurst       = 7, 48
	pairedRate, pairedBurst = 32, 64
)

// asked is the state of a question nobody answered yet.
const asked = "asked"

// asker asks the named nodes. It lives as long as the node; run works while this process replicates.
type asker struct {
	*spaces
	wake wait.Signal // something may be due

	mu    sync.Mutex
	stale bool                       // guarded by mu; the named nodes may be others
	known bool                       // guarded by mu; they are read, and as they are now
	nodes map[peer.ID]*askedNode     // guarded by mu; by the node's peer
	views map[tinycloud.SpaceID]look // guarded by mu; of joining Spaces
}

// askedNode is what is known of a named node. Guarded by asker.mu.
type askedNode struct {
	named
	silent  time.Time // since when it gives no answer; zero: it does, or was not asked
	heard   time.Time // when it last gave one, or was connected; zero: never
	answers map[tinycloud.SpaceID]*reply
	served  map[tinycloud.Principal]int // questions about joining Spaces by owner, since there were none
	limit   *rate.Limiter
	busy    int
}

// reply is what a node said of a Space.
type reply struct {
	state    string  // replication.Join…, or asked; "" before the first question
	host     peer.ID // its Space peer, once it told
	settled  bool    // it needs no more questions
	at       time.Time
	tried    time.Time // when the last question began
	refused  time.Time // since when it gave no answer about this Space
	next     time.Time
	failures int
	busy     bool
	err      string
}

func newAsker(s *spaces) *asker {
	return &asker{spaces: s, wake: wait.NewSignal(), stale: true, nodes: map[peer.ID]*askedNode{}, views: map[tinycloud.SpaceID]look{}}
}

// renew has the named nodes read again.
func (a *asker) renew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stale, a.known = true, false
	a.wake.Give()
}

// about has a Space asked about at once.
func (a *asker) about(space tinycloud.SpaceID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.nodes {
		if old := x.answers[space]; old != nil && !old.busy && old.host == "" {
			delete(x.answers, space)
		}
	}
	delete(a.views, space)
	a.wake.Give()
}

// trusts reports whether a node may ask without the delay that strangers get. It is paired. Entrances trust nobody: who
// is trusted by two would know that they are of one node.
func (a *asker) trusts(id peer.ID) bool {
	return !a.n.cfg.P2P.Isolated && a.n.store.PairedWith(id.String())
}

// run asks until ctx ends.
func (a *asker) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		a.renew()
		for idle := time.Duration(0); a.wake.Within(ctx, idle); {
			a.refresh(ctx, g)
			idle = a.askDue(ctx, g)
			idle = min(idle, a.considerDue(ctx))
		}
		return nil
	})
	return g.Wait()
}

// refresh reads which nodes are named, and finds out which of the new ones are out of reach.
func (a *asker) refresh(ctx context.Context, g *errgroup.Group) {
	a.mu.Lock()
	stale := a.stale
	a.stale = false
	a.mu.Unlock()
	if !stale {
		return
	}
	list, err := a.n.namedNodes(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "cannot read the paired nodes, trying again", "error", err)
			time.AfterFunc(time.Second, a.renew)
		}
		return
	}
	a.n.recheck()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = !a.stale
	for id := range a.nodes {
		if !slices.ContainsFunc(list, func(x named) bool { return x.front.ID == id }) {
			delete(a.nodes, id)
		}
	}
	for _, x := range list {
		if old := a.nodes[x.front.ID]; old != nil {
			old.named = x
			each, burst := a.pace(x.paired)
			old.limit.SetLimit(each)
			old.limit.SetBurst(burst)
			continue
		}
		limit := rate.NewLimiter(a.pace(x.paired))
		node := &askedNode{named: x, answers: map[tinycloud.SpaceID]*reply{}, served: map[tinycloud.Principal]int{}, limit: limit}
		a.nodes[x.front.ID] = node
		if !a.n.cfg.P2P.Isolated {
			g.Go(func() error { a.probe(ctx, node); return nil })
		}
	}
}

// pace is how often a node may be asked: its processes share what a node is allowed.
func (a *asker) pace(paired bool) (each rate.Limit, burst int) {
	each, burst = askRate, askBurst
	if paired {
		each, burst = pairedRate, pairedBurst
	}
	members := max(1, int(a.members.Load()))
	return each / rate.Limit(members), max(1, burst/members)
}

// probe finds out whether a node is in reach, so that the first Space need not wait for that.
func (a *asker) probe(ctx context.Context, x *askedNode) {
	front := a.n.front.Load()
	if front == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	began := time.Now()
	a.mu.Lock()
	to := x.front
	a.mu.Unlock()
	err := front.Connect(ctx, to)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		x.heard = time.Now()
	case !errors.Is(err, context.Canceled) && x.silent.IsZero():
		x.silent = began
	}
}

// askDue begins the questions that are due and returns how long none is.
func (a *asker) askDue(ctx context.Context, g *errgroup.Group) time.Duration {
	joining, all := a.led(a.n.store.JoiningSpaces()), a.led(a.n.store.Spaces())
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := askLongest
	for _, x := range a.nodes {
		if len(joining) == 0 {
			clear(x.served)
		}
		wait = min(wait, a.askNode(ctx, g, x, joining, all))
	}
	return wait
}

// askNode begins questions to one node. a.mu is held.
func (a *asker) askNode(ctx context.Context, g *errgroup.Group, x *askedNode, joining, all []tinycloud.SpaceID) time.Duration {
	now, wait := time.Now(), askLongest
	for x.busy < asksAtOnce {
		space, ok, later := x.pick(now, joining, true)
		wait = later
		if !ok {
			break
		}
		if !x.limit.Allow() {
			return time.Second / askRate
		}
		x.served[space.Owner()]++
		a.begin(ctx, g, x, space)
	}
	if x.busy > 0 {
		return wait // its end wakes
	}
	space, ok, later := x.pick(now, all, false)
	switch {
	case !ok:
		return min(wait, later)
	case x.limit.Tokens() < asksReserved || !x.limit.Allow():
		return min(wait, time.Second)
	}
	a.begin(ctx, g, x, space)
	return wait
}

// pick returns a Space that the node is to be asked about: of the owner whose Spaces it was asked least about, the one
// that is due longest. later is how long none is due.
func (x *askedNode) pick(now time.Time, of []tinycloud.SpaceID, urgent bool) (best tinycloud.SpaceID, ok bool, later time.Duration) {
	later = askLongest
	var due time.Time
	for _, space := range of {
		var next time.Time
		if old := x.answers[space]; old != nil {
			switch {
			case old.busy, old.settled && (old.host != "" || !urgent), urgent && old.state == replication.JoinNone:
				continue
			}
			next = old.due(urgent)
		}
		if d := next.Sub(now); d > 0 {
			later = min(later, d)
			continue
		}
		owner := space.Owner()
		if !ok || x.served[owner] < x.served[best.Owner()] || x.served[owner] == x.served[best.Owner()] && next.Before(due) {
			best, due, ok = space, next, true
		}
	}
	return best, ok, later
}

func (w *reply) due(urgent bool) time.Time {
	if urgent && w.failures > 0 && w.failures < joinAskSoon {
		return w.at.Add(min(joinAskMost, joinAskFirst<<min(w.failures-1, 10)))
	}
	return w.next
}

// begin asks one question. a.mu is held.
func (a *asker) begin(ctx context.Context, g *errgroup.Group, x *askedNode, space tinycloud.SpaceID) {
	w := x.answers[space]
	if w == nil {
		w = &reply{}
		x.answers[space] = w
	}
	w.busy, w.tried = true, time.Now()
	if w.state == "" {
		w.state = asked
	}
	x.busy++
	node, timeout := x.named, min(askTimeout, max(askAgain, a.n.cfg.P2P.JoinTimeout/2))
	if !x.silent.IsZero() {
		timeout = askAgain
	}
	g.Go(func() error {
		asking, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		host, settled, err := a.ask(asking, node, space)
		a.mu.Lock()
		x.busy--
		w.ended(x, host, settled, err, ctx.Err() != nil)
		a.mu.Unlock()
		if err == nil && host != "" {
			if err := a.meet(ctx, node, host, space); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "cannot join a space at a named node", "space", space, "error", err)
			}
		} else if err != nil && ctx.Err() == nil {
			a.log.DebugContext(ctx, "a named node is of no use to a space yet", "node", node.front.ID, "space", space, "error", err)
		}
		a.mu.Lock()
		delete(a.views, space)
		a.mu.Unlock()
		a.wake.Give()
		return nil
	})
}

// errNothing says that what failed tells nothing about the node.
var errNothing = errors.New("not asked")

// ended notes how a question ended; its caller holds asker.mu.
func (w *reply) ended(x *askedNode, host peer.ID, settled bool, err error, over bool) {
	w.busy, w.at = false, time.Now()
	if over {
		return
	}
	w.settled, w.err = settled, ""
	switch {
	case err == nil && host != "":
		w.state, w.host, w.failures = replication.JoinConnected, host, 0
	case err == nil:
		w.failures = 0
	case errors.Is(err, locate.ErrNone):
		w.state, w.err = replication.JoinNone, err.Error()
	case errors.Is(err, errNothing):
		w.failures++
	default:
		w.state, w.err = replication.JoinRefused, err.Error()
		if errors.Is(err, p2p.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
			w.state = replication.JoinUnreachable
		}
		if w.failures++; w.refused.IsZero() {
			w.refused = w.tried
		}
		if x.silent.IsZero() {
			x.silent = w.tried
		}
		w.next = w.at.Add(min(askLongest, askFirst<<min(w.failures-1, 16)))
		return
	}
	if !errors.Is(err, errNothing) && !(err == nil && host == "") {
		x.silent, w.refused, x.heard = time.Time{}, time.Time{}, w.at
	}
	if w.state == replication.JoinNone {
		w.failures++
	}
	w.next = w.at.Add(min(askLongest, askFirst<<min(max(w.failures-1, 0), 16)))
}

// ask finds out a node's peer of a Space. settled without one means that there is no need to know it.
//
// A host that the history names needs no question. Otherwise a Space that knows no other host, or is joining, asks the
// node; it shows its id to a node that has the same Space, and to others a text by which a guess of it can be tested. A
// Space that has met another host has a rendezvous secret, and asks with that, which shows nothing.
func (a *asker) ask(ctx context.Context, x named, space tinycloud.SpaceID) (host peer.ID, settled bool, err error) {
	if x.front.ID == a.n.entranceID(space) {
		return "", true, nil // it is this node's
	}
	joining, err := a.n.store.Joining(ctx, space)
	if err != nil {
		return "", false, errors.Join(errNothing, err)
	}
	hosts, err := a.n.store.Hosts(ctx, space)
	if err != nil {
		return "", false, errors.Join(errNothing, err)
	}
	joins, err := a.n.store.Joins(ctx, space)
	if err != nil {
		return "", false, errors.Join(errNothing, err)
	}
	if !joining && slices.ContainsFunc(joins, func(j hostlog.Join) bool { return x.has(j.Addr) }) {
		return "", true, nil
	}
	if host := x.knownAmong(hosts); host != "" {
		return host, true, nil
	}
	private := len(hosts) > 1 && !joining
	host, err = a.n.locate(ctx, space, x.front, private)
	switch {
	case errors.Is(err, tinycloud.ErrNotFound) && private: // it has met nobody yet
		host, err = a.n.locate(ctx, space, x.front, false)
	case errors.Is(err, tinycloud.ErrUnavailable) && !errors.Is(err, p2p.ErrUnreachable):
		return "", false, errors.Join(errNothing, err)
	}
	switch {
	case err != nil:
		return "", false, err
	case !x.names(host), host == a.n.spacePeer(space):
		return "", false, locate.ErrNone // the peer of another Space there, or this node's own key
	}
	return host, true, nil
}

// told returns the Space peer that a node has just told, "" for none.
func (a *asker) told(space tinycloud.SpaceID, front peer.ID) peer.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.nodes {
		if w := x.answers[space]; w != nil && x.front.ID == front && w.host != "" && time.Since(w.at) < askTimeout {
			return w.host
		}
	}
	return ""
}

// knownAmong returns the Space peer that a named node is known to have.
func (x *named) knownAmong(hosts []hostlog.Host) peer.ID {
	for _, h := range hosts {
		id, err := p2p.PeerIDFromEd25519(h.Host[:])
		switch {
		case err != nil || h.Self:
		case slices.ContainsFunc(x.addrs, func(a namedAddr) bool { return a.space == id }):
			return id
		case x.whole() && slices.ContainsFunc(h.Addrs, func(a string) bool { return leadsTo(a, x.front.ID) && spacePeerOf(a) == id }):
			return id
		}
	}
	return ""
}

// meet has a Space replicate with a named node.
func (a *asker) meet(ctx context.Context, x named, host peer.ID, space tinycloud.SpaceID) error {
	a.log.InfoContext(ctx, "a named node is a host of a space", "node", x.front.ID, "space", space)
	if err := a.n.store.AddFound(ctx, space, x.addrsOf(host)); err != nil {
		return err
	}
	a.joined(ctx, space)
	return nil
}
