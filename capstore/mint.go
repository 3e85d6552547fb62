package capstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// next is what this node's next epoch of a Space builds on.
type next struct {
	parents []tinycloud.Hash // sorted by bytes
	past    judge.Clock
	floor   int64
	limited bool // what is dated in the future was left aside
	fork    bool // likewise, and with it the end of this node's own log
	own     tail // what the entry follows
}

// tail is the entry that the next one of this node follows: none at all with digest zero.
type tail struct {
	n      uint64
	digest tinycloud.Hash
	at     int64
}

// own returns this node's branch that it goes on with, nil when it has none: the one with the greatest entry,
// of those that are due when there are such.
func (sp *space) own() (best *branch) {
	for _, b := range sp.branches {
		if b.host != sp.host {
			continue
		}
		if best == nil || b.due(sp.limit) && !best.due(sp.limit) || b.due(sp.limit) == best.due(sp.limit) && b.n > best.n {
			best = b
		}
	}
	return best
}

// upcoming returns what the next epoch builds on: the greatest heads, and this node's own tip unless a
// head follows it.
func (t *tx) upcoming(sp *space) (*next, error) {
	if sp.next != nil && sp.next.ahead(t.now) <= judge.Slack {
		return sp.next, nil
	}
	sp.next, sp.limit = nil, 0
	x, err := t.build(sp, slices.Clone(sp.heads), sp.ownTips())
	if err != nil {
		return nil, err
	}
	if own := sp.own(); own != nil {
		x.own = tail{own.n, own.digest, own.at}
	}
	if sp.aheadOfSelf(t.now) || x.ahead(t.now) > judge.Slack {
		return t.limit(sp, x)
	}
	sp.next = x
	return x, nil
}

// build makes the parents of an epoch out of heads and what must be among their ancestors.
func (t *tx) build(sp *space, named []*node, tips []*node) (*next, error) {
	if len(named) > hostlog.MaxParents {
		named = named[:hostlog.MaxParents]
	}
	for _, tip := range tips {
		if !slices.ContainsFunc(named, func(h *node) bool { return h.id == tip.id || tip.before(h.past) }) {
			named = append(named[:min(len(named), hostlog.MaxParents-1)], tip)
		}
	}
	x := &next{}
	for _, h := range named {
		x.parents = append(x.parents, h.id)
	}
	slices.SortFunc(x.parents, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	g, err := t.ground(sp, x.parents)
	x.past, x.floor = g.past, g.floor
	return x, err
}

// mint makes an epoch of one event and places it with this node's entry. It does nothing, and returns nil, when another
// host already made the very same epoch.
func (t *tx) mint(sp *space, tok *Token, ops []dag.Operation, values []hostlog.Value) (*node, error) {
	x, err := t.upcoming(sp)
	if err != nil {
		return nil, err
	}
	if x.limited {
		if x, ops, err = t.aside(sp, x, ops); err != nil {
			return nil, err
		}
	}
	p := &hostlog.Parsed{Own: true, ValueOf: map[tinycloud.Hash][]byte{}}
	e := hostlog.Event{ID: tok.ID, Bytes: tok.Bytes, Token: tok, Ops: ops}
	ref := dag.EventRef{Event: tok.ID}
	for _, op := range ops {
		if len(op.Bytes) > dag.MaxOpSize {
			return nil, errOpSize()
		}
		p.Ops, ref.Ops = append(p.Ops, op.Bytes), append(ref.Ops, op.ID())
	}
	p.DecodedEpoch = dag.Epoch{Parents: x.parents, Events: []dag.EventRef{ref}}
	p.DecodedEvents = []hostlog.Event{e}
	p.Epoch, p.Events, p.Values = p.DecodedEpoch.Encode(), [][]byte{tok.Bytes}, values
	for _, v := range values {
		p.ValueOf[v.Hash] = v.Bytes
	}
	p.Entry = hostlog.Entry{Space: sp.id, Host: sp.host, Epoch: tinycloud.Sum(p.Epoch)}
	known, err := t.made(sp, p.Entry.Epoch, tok.ID)
	if err != nil || known != nil && !(sp.forking && known.t > sp.limit) {
		return nil, err
	}
	if err := t.date(sp, p, x); err != nil {
		return nil, err
	}
	p.New, p.Digest = known == nil, p.Entry.Digest()
	p.Sig = hostlog.Sign(sp.key, p.Digest)
	if err := t.place(sp, p); err != nil {
		return nil, fmt.Errorf("own epoch: %w", err)
	}
	if known != nil { // left behind, and the very same again
		sp.todo.all = true
		known.t = max(x.floor, p.Entry.At)
		if err := t.exec("UPDATE epochs SET t = ? WHERE eid = ?", known.t, known.eid); err != nil {
			return nil, err
		}
	}
	if sp.todo.removals { // what comes next in this transaction may depend on it
		if err := t.revise(sp); err != nil {
			return nil, err
		}
	}
	c := t.touch(sp)
	c.Local = append(c.Local, p.Bundle)
	c.Own++
	return t.node(sp, p.Entry.Epoch)
}

// made returns the stored epoch of an event of an id, nil when it is not stored. Nearly always the event stands nowhere, as
// is known since its token was found not to be used.
func (t *tx) made(sp *space, id, event tinycloud.Hash) (*node, error) {
	if n, err := t.places(sp.sid, event); err != nil || n == 0 {
		return nil, err
	}
	return t.node(sp, id)
}

// date numbers and dates this node's next entry. Its time is not before what it builds on, beyond the
// slack that clocks are allowed.
func (t *tx) date(sp *space, p *hostlog.Parsed, x *next) error {
	if sp.state == stateRestored {
		return errRestored()
	}
	if t.s.awaitsOwn(sp.id) {
		return tinycloud.Refuse(tinycloud.ErrUnavailable, "This host is fetching later entries of its own")
	}
	if ahead := x.ahead(t.now); ahead > judge.Slack {
		return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space's history is %s ahead of this host's clock", ahead.Round(time.Second))
	}
	p.Entry.At = x.time(t.now)
	if !x.own.digest.IsZero() {
		p.Entry.N, p.Entry.Prev = x.own.n+1, x.own.digest
	}
	t.s.unsigned.sign(sp.id)
	return nil
}

// admitted reports whether this node's own host delegation lets it extend a Space now.
func (t *tx) admitted(sp *space) error {
	if sp.state == stateRestored {
		return errRestored()
	}
	_, err := t.inForce(sp)
	return err
}

func trimClass(err error) string {
	text := err.Error()
	if inner := errors.Unwrap(err); inner != nil {
		if n := len(text) - len(inner.Error()) - 2; n > 0 {
			return text[:n]
		}
	}
	return text
}

// root makes sure that the delegations an event in this Space rests on stand in its causal past, so
// that every host can judge it.
func (t *tx) root(sp *space, tok *Token, depth int) error {
	if depth > judge.MaxChain {
		return nil
	}
	for _, id := range tok.Proofs {
		if err := t.ensure(sp, id, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// ensure gives a known delegation or revocation an epoch of its own in the Space, after those it rests
// on, unless it stands in the causal past already or grants nothing here.
func (t *tx) ensure(sp *space, id tinycloud.Hash, depth int) error {
	if sp.placed[id] {
		return nil
	}
	tok, err := t.s.token(t.ctx, t, id)
	if err != nil || tok == nil {
		return err
	}
	if tok.Kind == token.Delegation && !slices.Contains(tok.Places(), sp.id) {
		return nil
	}
	x, err := t.upcoming(sp)
	if err != nil {
		return err
	}
	if !sp.facts.Seen(id, x.past) {
		if err := t.root(sp, tok, depth); err != nil {
			return err
		}
		if _, err := t.mint(sp, tok, nil, nil); err != nil {
			return err
		}
	}
	t.touch(sp)
	sp.placed[id] = true
	return nil
}
