package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

const (
	lookEvery  = 200 * time.Millisecond // at whether a joining Space may open; silence becomes an answer
	lookSeldom = 5 * time.Second        // likewise, of one that has been joining for long
	lookLong   = 30 * time.Second
)

// look is when a joining Space was first looked at, and is next.
type look struct{ first, next time.Time }

// considerDue has the joining Spaces opened that may be, and returns how long none is to be looked at.
func (a *asker) considerDue(ctx context.Context) time.Duration {
	joining := a.led(a.n.store.JoiningSpaces())
	now, wait := time.Now(), askLongest
	var due []tinycloud.SpaceID
	a.mu.Lock()
	views := make(map[tinycloud.SpaceID]look, len(joining))
	for _, space := range joining {
		v := a.views[space]
		if v.first.IsZero() {
			v.first = now
		}
		if !now.Before(v.next) {
			due = append(due, space)
			v.next = now.Add(lookEvery)
			if now.Sub(v.first) > lookLong {
				v.next = now.Add(lookSeldom)
			}
		}
		views[space] = v
		wait = min(wait, v.next.Sub(now))
	}
	a.views = views
	a.mu.Unlock()
	for _, space := range due {
		a.consider(ctx, space)
	}
	return wait
}

// consider opens a joining Space if it may be. Its replica knows more, if it has met anybody.
func (a *asker) consider(ctx context.Context, space tinycloud.SpaceID) {
	if r := a.get(space); r != nil {
		r.replica.Consider()
		return
	}
	a.wakeUp(space, a.restAfter) // it does not sleep
	nodes, err := a.namedOf(ctx, space)
	if err == nil {
		why, may := replication.MayOpen(replication.JoinView{
			Self: a.n.spacePeer(space), Restored: a.n.store.Restored(space), Named: nodes, Timeout: a.n.cfg.P2P.JoinTimeout,
		})
		if !may {
			return
		}
		_, err = a.n.store.EndJoin(ctx, space, why, nil)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errNotRead) {
		a.log.WarnContext(ctx, "cannot tell whether a space may open", "space", space, "error", err)
	}
}

// errNotRead says that it is not known which nodes are named.
var errNotRead = fmt.Errorf("the named nodes are being read: %w", tinycloud.ErrUnavailable)

// namedOf are the nodes that may be hosts of a Space: those that were named, and those that it is to be joined through.
func (a *asker) namedOf(ctx context.Context, space tinycloud.SpaceID) ([]replication.NamedNode, error) {
	joins, err := a.n.store.Joins(ctx, space)
	if err != nil {
		return nil, err
	}
	peers := a.status(space).Peers
	began, now := a.n.store.JoinBegan(space), time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known {
		return nil, errNotRead
	}
	var out []replication.NamedNode
	for _, x := range a.nodes {
		w := x.answers[space]
		if x.front.ID == a.n.entranceID(space) {
			continue
		}
		out = append(out, w.said(x.silent, peers, now))
	}
	for _, j := range joins {
		to, err := parseTarget(j.Addr)
		if err != nil || slices.ContainsFunc(slices.Collect(maps.Values(a.nodes)), func(x *askedNode) bool {
			return x.front.ID == to.front.ID && (x.whole() || to.space != "" && x.names(to.space))
		}) {
			continue
		}
		n := replication.NamedNode{Host: to.space, Silent: now.Sub(began)}
		switch j.State {
		case replication.JoinNone:
			n.Answer = replication.AnswerNone
		case replication.JoinConnected:
			n.Answer = replication.AnswerHost
		}
		out = append(out, n)
	}
	return out, nil
}

// said is what an answer means for the Space, nil for none yet. silent is since when the node gives no answer at all.
func (w *reply) said(silent time.Time, peers []replication.PeerStatus, now time.Time) (n replication.NamedNode) {
	switch {
	case w == nil:
		return n
	case w.host != "":
		n.Answer, n.Host = replication.AnswerHost, w.host
		n.Silent = awayFor(w.host, w.at, peers, now)
	case w.state == replication.JoinNone, w.settled:
		n.Answer = replication.AnswerNone
	case w.refused.IsZero():
	case !silent.IsZero() && silent.Before(w.refused):
		n.Silent = now.Sub(silent)
	default:
		n.Silent = now.Sub(w.refused)
	}
	return n
}

// awayFor is for how long a host that is known has not been connected.
func awayFor(id peer.ID, since time.Time, peers []replication.PeerStatus, now time.Time) time.Duration {
	i := slices.IndexFunc(peers, func(p replication.PeerStatus) bool { return p.Peer == id })
	if i >= 0 && peers[i].Connected {
		return 0
	}
	if i >= 0 && peers[i].LastSeen.After(since) {
		since = peers[i].LastSeen
	}
	return now.Sub(since)
}

// joinViews are what is shown of the nodes that were named, by the address of each.
func (a *asker) joinViews(space tinycloud.SpaceID, joins []hostlog.Join) (out []JoinView) {
	for _, j := range joins {
		out = append(out, JoinView{Addr: j.Addr, State: j.State, LastTry: stamp(j.LastTry), LastError: j.LastError})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.nodes {
		w := x.answers[space]
		if w == nil || w.host != "" || x.front.ID == a.n.entranceID(space) {
			continue
		}
		for _, addr := range x.addrs {
			if !slices.ContainsFunc(joins, func(j hostlog.Join) bool { return j.Addr == addr.text }) {
				state := w.state
				if state == "" || w.settled {
					state = "waiting"
				}
				out = append(out, JoinView{Addr: addr.text, State: state, LastTry: stamp(w.tried), LastError: w.err, Named: true})
			}
		}
	}
	slices.SortFunc(out, func(x, y JoinView) int { return strings.Compare(x.Addr, y.Addr) })
	return out
}
