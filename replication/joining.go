package replication

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Answer is what a named node has said of a joining Space.
type Answer int

// The answers.
const (
	AnswerNot  Answer = iota // nothing yet, or only refusals
	AnswerNone               // that it has no part in the Space
	AnswerHost               // which Space peer is its host of it
)

// NamedNode is a node that was named, and may be a host of a joining Space.
type NamedNode struct {
	Answer Answer
	Host   peer.ID // its Space peer, with AnswerHost; of an address of a Space peer known without one
	// Silent is for how long it has been out of reach, or has refused, also before the Space was joining. It is
	// zero until it has done so since.
	Silent time.Duration
}

// JoinPeer is a host that is connected and authorised.
type JoinPeer struct {
	ID peer.ID
	// Whole says that all it had at some moment of its connection is here; Joining, that it was joining then.
	Whole, Joining bool
	// Equal says that it had nothing less than is here now.
	Equal bool
}

// JoinView is what the decision rests on whether a joining Space opens.
type JoinView struct {
	Self     peer.ID
	Restored bool // from a backup: it is known to have had a history
	Others   bool // a part of another host's log is here
	// Writers are the other hosts in force whose logs are here, in part or whole.
	Writers []peer.ID
	Named   []NamedNode
	Peers   []JoinPeer
	Timeout time.Duration // after which silence is an answer
}

// MayOpen decides whether a joining Space opens before its time (docs/replication.md, "Joining"), and why: it is the
// one place where this is decided. The endings by time and by the operator are the store's.
func MayOpen(v JoinView) (why hostlog.Ending, may bool) {
	if !v.settled() {
		return "", false
	}
	if slices.ContainsFunc(v.Peers, func(p JoinPeer) bool { return p.Whole && !p.Joining }) {
		return hostlog.EndedByHistory, true
	}
	if v.least() {
		return hostlog.EndedByLeast, true
	}
	if v.none() {
		return hostlog.EndedByNone, true
	}
	return "", false
}

// settled reports whether every named node has answered, or was silent for long enough. One that told its Space
// peer has answered with its history.
func (v *JoinView) settled() bool {
	return !slices.ContainsFunc(v.Named, func(n NamedNode) bool {
		switch {
		case n.Answer == AnswerNone, n.Silent >= v.Timeout:
			return false
		case n.Host == "":
			return true
		}
		p := v.peer(n.Host)
		return p == nil || !p.Whole
	})
}

// least reports whether nobody has more, and this host is the one of those that all wait for.
func (v *JoinView) least() bool {
	if len(v.Peers) == 0 {
		return false
	}
	for _, p := range v.Peers {
		if !p.Whole || !p.Joining || !p.Equal || bytes.Compare([]byte(p.ID), []byte(v.Self)) <= 0 {
			return false
		}
	}
	return !slices.ContainsFunc(v.Writers, func(id peer.ID) bool { return v.peer(id) == nil })
}

// none reports whether no named node is a host as far as they answer: who was silent for long before keeps no user
// from signing in.
func (v *JoinView) none() bool {
	return !v.Restored && !v.Others && len(v.Peers) == 0 && len(v.Named) > 0 &&
		!slices.ContainsFunc(v.Named, func(n NamedNode) bool { return n.Answer == AnswerHost })
}

func (v *JoinView) peer(id peer.ID) *JoinPeer {
	if i := slices.IndexFunc(v.Peers, func(p JoinPeer) bool { return p.ID == id }); i >= 0 {
		return &v.Peers[i]
	}
	return nil
}

// Rounds of a joining host with a peer, which may be joining no more.
const (
	joinFirst   = 100 * time.Millisecond
	joinLongest = 2 * time.Second
)

func joinRound(before int) time.Duration { return min(joinLongest, joinFirst<<min(before, 10)) }

func (r *Replica) setJoining(joining bool) {
	r.mu.Lock()
	if joining && !r.joining {
		for _, m := range r.remotes {
			m.whole = false // it counts from now on
		}
	}
	r.joining = joining
	r.mu.Unlock()
	r.dialer.hurry(joining)
}

// Joining reports whether the Space waits for its history.
func (r *Replica) Joining() bool { return r.isJoining() }

// Consider says that named nodes have answered, or were silent for longer. It never blocks.
func (r *Replica) Consider() {
	if r.isJoining() {
		r.spawn(r.consider)
	}
}

// consider opens the Space if it may.
func (r *Replica) consider(ctx context.Context) {
	if err := r.tryOpen(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, tinycloud.ErrUnavailable) {
		r.log.WarnContext(ctx, "cannot tell whether the space is here", "error", err)
	}
}

func (r *Replica) tryOpen(ctx context.Context) error {
	v, tips, err := r.joinView(ctx)
	if err != nil {
		return err
	}
	why, may := MayOpen(v)
	if !may {
		return nil
	}
	if _, err := r.o.Store.EndJoin(ctx, r.space, why, tips); err != nil {
		return err
	}
	joining, err := r.o.Store.Joining(ctx, r.space)
	if err == nil {
		r.setJoining(joining)
	}
	return err
}

// joinView collects what the decision rests on, and the tips it is for.
func (r *Replica) joinView(ctx context.Context) (v JoinView, tips []hostlog.Tip, err error) {
	v = JoinView{Self: r.self, Restored: r.o.Store.Restored(r.space), Timeout: r.o.JoinTimeout}
	if r.o.Named != nil {
		if v.Named, err = r.o.Named(ctx); err != nil {
			return v, nil, err
		}
	}
	if tips, err = r.o.Store.Tips(ctx, r.space); err != nil {
		return v, nil, err
	}
	hosts, err := r.o.Store.Hosts(ctx, r.space)
	if err != nil {
		return v, nil, err
	}
	wrote := map[hostlog.Key]bool{}
	for _, t := range tips {
		wrote[t.Host] = true
	}
	v.Others = len(wrote) > 1 || len(wrote) == 1 && !wrote[r.host]
	for _, h := range hosts {
		if !h.Self && wrote[h.Host] {
			v.Writers = append(v.Writers, wire.PeerOf(h.Host))
		}
	}
	v.Peers = r.joinPeers(wire.HashTips(tips))
	return v, tips, nil
}

// joinPeers are the peers that may take part. ours is the hash of the tips here.
func (r *Replica) joinPeers(ours tinycloud.Hash) (out []JoinPeer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.remotes {
		if m.mayTakePart() {
			out = append(out, JoinPeer{ID: m.id, Whole: m.whole, Joining: m.joins, Equal: m.whole && m.held == ours})
		}
	}
	return out
}
