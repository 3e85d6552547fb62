package capstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// errGap says that what an entry builds on is not here yet.
var errGap = errors.New("history is missing")

var (
	errKnown  = errors.New("entry is known")
	errParked = errors.New("entry is of the future")
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

// place adds an entry, and its epoch if new, to a Space's history.
func (t *tx) place(sp *space, p *hostlog.Parsed) error {
	if sp.closed {
		return errClosed()
	}
	br, err := t.branchFor(sp, p)
	if err != nil {
		return err
	}
	if !p.Own && p.Entry.At > t.now.Add(judge.Slack).UnixMilli() {
		return errParked
	}
	if len(p.Parts) > 0 {
		return t.placeImport(sp, p, br)
	}
	if p.New || t.expected.newEpoch(p.Entry.Epoch) {
		return t.first(sp, p, br)
	}
	n, err := t.node(sp, p.Entry.Epoch)
	if err != nil {
		return err
	}
	if n != nil {
		return t.second(sp, p, n, br)
	}
	return t.first(sp, p, br)
}

// slot is where an entry goes: at the end of a branch, or as the first of a new one.
type slot struct {
	index int
	b     *branch // nil: a new branch
	base  int
	prev  *node    // epoch of the entry before; nil also when that is an import entry
	chain *chainOf // of an imported epoch: what it extends, nil for a new chain
}

func (t *tx) branchFor(sp *space, p *hostlog.Parsed) (slot, error) {
	e := p.Entry
	last := -1
	for i, b := range sp.branches {
		if b.host != e.Host {
			continue
		}
		last = i
		switch {
		case b.n == e.N && b.digest == p.Digest:
			return slot{}, errKnown
		case e.N > 0 && b.n == e.N-1 && b.digest == e.Prev:
			return slot{index: i, b: b, base: -1, prev: b.tip}, nil
		}
	}
	if last < 0 {
		if e.N > 0 {
			return slot{}, errGap
		}
		return slot{index: len(sp.branches), base: -1}, nil
	}
	return t.fork(sp, p)
}

// fork handles an entry that continues no tip of its host: it is known, or proves that the host signed
// two entries of one number.
func (t *tx) fork(sp *space, p *hostlog.Parsed) (slot, error) {
	e, out := p.Entry, slot{index: len(sp.branches), base: -1}
	if known, err := t.stands(sp, p); err != nil || known {
		return out, firstOf(err, errKnown)
	}
	found, rival := e.N == 0, -1
	for i, b := range sp.branches { // of which there may be thousands, so only those are asked that have the numbers
		if b.host != e.Host {
			continue
		}
		if rival < 0 && b.holds(e.N) {
			rival = i
		}
		if found || b.n == e.N-1 || !b.holds(e.N-1) { // it is no tip
			continue
		}
		var eid int64
		ok, err := t.one([]any{&eid}, "SELECT eid FROM entries WHERE sid = ? AND branch = ? AND n = ? AND digest = ?", sp.sid, i, int64(e.N)-1, e.Prev[:])
		if err != nil {
			return out, err
		}
		if ok {
			found, out.base = true, i
			if out.prev, err = t.nodeBy(sp, "eid = ?", eid); err != nil {
				return out, err
			}
		}
	}
	if !found {
		return out, errGap
	}
	other := []byte{}
	if rival >= 0 {
		digest, err := t.digestAt(sp, rival, e.N)
		if err != nil {
			return out, err
		}
		other = digest[:]
	}
	t.touch(sp)
	t.tally.equivocations++
	return out, t.add(db.Insert{Into: "equivocations", Columns: "sid host n first second", Key: "sid host n second"}, sp.sid, e.Host[:], e.N, other, p.Digest[:])
}

// stands reports whether an entry is stored: then its epoch is, and has it among its entries.
func (t *tx) stands(sp *space, p *hostlog.Parsed) (bool, error) {
	if !p.Entry.Import.IsZero() {
		_, known := sp.imports[p.Digest]
		return known, nil
	}
	n, err := t.node(sp, p.Entry.Epoch)
	if err != nil || n == nil {
		return false, err
	}
	for _, s := range n.spots {
		if s.N != p.Entry.N || s.Branch >= chainBase || sp.branches[s.Branch].host != p.Entry.Host {
			continue
		}
		digest, err := t.digestAt(sp, int(s.Branch), s.N)
		if err != nil || digest == p.Digest {
			return true, err
		}
	}
	return false, nil
}

// digestAt returns the digest of the entry of a number in a branch, which has one.
func (t *tx) digestAt(sp *space, branch int, n uint64) (digest tinycloud.Hash, err error) {
	if b := sp.branches[branch]; b.n == n {
		return b.digest, nil
	}
	var b []byte
	_, err = t.one([]any{&b}, "SELECT digest FROM entries WHERE sid = ? AND branch = ? AND n = ?", sp.sid, branch, int64(n))
	copy(digest[:], b)
	return digest, err
}

// holds reports whether an entry of a number belongs to the branch, and not to what it forked from.
func (b *branch) holds(n uint64) bool { return n <= b.n && (b.base < 0 || n > b.baseN) }

// extend puts the entry at its place in its log, or an imported epoch at its place in a chain.
func (t *tx) extend(sp *space, p *hostlog.Parsed, s slot, n *node) judge.Spot {
	spot := judge.Spot{Branch: uint32(s.index), N: s.number(p)}
	if p.ImportedAt != 0 {
		sp.extendChain(p, n, s)
	} else {
		sp.advance(p, s, n)
	}
	n.spots = append(n.spots, spot)
	return spot
}

// advance makes an entry the tip of its branch.
func (sp *space) advance(p *hostlog.Parsed, s slot, n *node) {
	b := s.b
	if b == nil {
		b = &branch{host: p.Entry.Host, base: s.base}
		if s.base >= 0 {
			b.baseN = p.Entry.N - 1
		}
		sp.branches = append(sp.branches, b)
	}
	b.n, b.digest, b.at, b.tip, b.dirty = p.Entry.N, p.Digest, p.Entry.At, n, true
}

// recordEntry stores an entry, or an imported epoch, that was put at its place.
func (t *tx) recordEntry(sp *space, p *hostlog.Parsed, n *node, is standing) error {
	spot, sig := n.spots[len(n.spots)-1], p.Sig[:]
	if p.ImportedAt != 0 {
		sig = []byte{}
	}
	sp.history += entryWeight
	return t.add(intoEntries, sp.sid, int64(spot.Branch), spot.N, p.Digest[:], p.Entry.At, n.eid, sig, is, len(n.spots)-1)
}

// second adds a further entry of a known epoch.
func (t *tx) second(sp *space, p *hostlog.Parsed, n *node, s slot) error {
	if s.prev != nil && !s.prev.before(n.past) {
		return fmt.Errorf("entry %d of %s does not build on the one before: %w", p.Entry.N, p.Entry.Host, tinycloud.ErrInvalid)
	}
	t.deepen(sp)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.next = nil
	g, err := t.groundOf(sp, n)
	if err != nil {
		return err
	}
	floor := g.floor
	spot := t.extend(sp, p, s, n)
	is, _ := sp.entryStanding(witness{p.Entry.Host, p.ImportedAt}, p.Entry.At, floor, n)
	// A further witness can make an epoch earlier or more valid. Only the former reaches what follows.
	if is == entryValid {
		var void int
		if _, err := t.one([]any{&void}, "SELECT count(*) FROM events WHERE eid = ? AND valid = 0", n.eid); err != nil {
			return err
		}
		if !n.valid || void > 0 {
			sp.todo.epochs[n.eid] = struct{}{}
		}
	}
	switch is {
	case entryValid:
		sp.vouch(n, p.Entry.Host)
	case entryCut:
		sp.noteCut(n, p.Entry.Host, spot)
	}
	sp.todo.removals = sp.todo.removals || sp.cutHere(n)
	if err := t.recordEntry(sp, p, n, is); err != nil {
		return err
	}
	if err := t.doubtPlaces(sp, "e.eid = ?", n.eid); err != nil {
		return err
	}
	return t.suspect(sp, n)
}

// ground is what an epoch with some parents stands on.
type ground struct {
	parents []*node
	past    judge.Clock
	floor   int64 // greatest t of the parents, 0 without any
	seq     uint64
}

// ground fails with errGap when a parent is not here.
func (t *tx) ground(sp *space, ids []tinycloud.Hash) (g ground, err error) {
	g.past = judge.Clock{}
	for _, id := range ids {
		n, err := t.node(sp, id)
		if err != nil {
			return g, err
		}
		if n == nil {
			return g, errGap
		}
		for b, k := range n.past {
			g.past.Add(judge.Spot{Branch: b, N: k})
		}
		for _, s := range n.spots {
			g.past.Add(s)
		}
		g.parents = append(g.parents, n)
		g.floor, g.seq = max(g.floor, n.t), max(g.seq, n.seq+1)
	}
	return g, nil
}

// groundOf is the ground of a stored epoch.
func (t *tx) groundOf(sp *space, n *node) (g ground, err error) {
	var b []byte
	if _, err := t.one([]any{&b}, "SELECT bytes FROM epochs WHERE eid = ?", n.eid); err != nil {
		return g, err
	}
	e, err := dag.DecodeEpoch(b)
	if err != nil {
		return g, err
	}
	return t.ground(sp, e.Parents)
}

// first adds a new epoch with its first entry.
func (t *tx) first(sp *space, p *hostlog.Parsed, s slot) error {
	g, err := t.ground(sp, p.DecodedEpoch.Parents)
	if err != nil {
		return err
	}
	if s.prev != nil && !s.prev.before(g.past) {
		return fmt.Errorf("entry %d of %s does not build on the one before: %w", p.Entry.N, p.Entry.Host, tinycloud.ErrInvalid)
	}
	t.touch(sp)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	n := &node{id: p.Entry.Epoch, seq: g.seq, t: max(g.floor, p.Entry.At), past: g.past}
	if err := t.learn(sp, p, judge.Spot{Branch: uint32(s.index), N: s.number(p)}); err != nil {
		return err
	}
	t.extend(sp, p, s, n)
	is, reason := sp.entryStanding(witness{p.Entry.Host, p.ImportedAt}, p.Entry.At, g.floor, n)
	n.valid = is == entryValid
	n.age = sp.firstAge(p, n.valid, g)
	n.eid, err = t.addEpoch(
		sp.sid, n.id[:], n.seq, n.t, n.age.Time, n.age.Encode(), n.valid, reason, encodeClock(n.past), p.Epoch)
	if err != nil {
		return err
	}
	if t.supposed != nil {
		t.supposed.made = append(t.supposed.made, n)
	}
	if err := t.link(g.parents, n); err != nil {
		return err
	}
	if err := t.recordEntry(sp, p, n, is); err != nil {
		return err
	}
	sp.nodes.Add(n.id, n)
	sp.next = nil
	sp.epochs++
	sp.history += weigh(p)
	t.tally.count(p, n.valid, t.now)
	if !p.Own || s.b == nil || !n.valid || len(sp.facts.Removals()) > 0 {
		t.deepen(sp)
	}
	if n.valid {
		sp.newHead(n)
		sp.vouch(n, p.Entry.Host)
	}
	return t.judgeEvents(sp, n, p)
}

// newHead makes a valid epoch a head in place of those it follows.
func (sp *space) newHead(n *node) {
	sp.heads = slices.DeleteFunc(slices.Clone(sp.heads), func(h *node) bool { return h.before(n.past) })
	sp.heads = append(sp.heads, n)
	sortHeads(sp.heads)
}

func sortHeads(heads []*node) {
	slices.SortFunc(heads, func(a, b *node) int {
		return Position{Seq: b.seq, Epoch: b.id}.Compare(Position{Seq: a.seq, Epoch: a.id})
	})
}

// learn takes the epoch's delegations and revocations into the Space's facts.
func (t *tx) learn(sp *space, p *hostlog.Parsed, spot judge.Spot) error {
	news := false
	for i := range p.DecodedEvents {
		e := &p.DecodedEvents[i]
		if e.Token == nil || e.Token.Kind == token.Invocation {
			continue
		}
		news = true
		if sp.facts.Add(e.Token, judge.Place{Spot: spot, Epoch: p.Entry.Epoch, Index: i}) {
			sp.todo.all = true
		}
		sp.todo.removals = sp.todo.removals || sp.facts.Concerns(e.Token)
		if err := t.saveToken(e.Token); err != nil {
			return err
		}
		if err := t.hostedNow(e.Token.ID); err != nil {
			return err
		}
	}
	if !news {
		return nil
	}
	t.deepen(sp)
	if err := t.question(sp); err != nil {
		return err
	}
	return t.enforce(sp)
}

// judgeEvents stores the events of a new epoch with their verdicts and folds the valid operations.
func (t *tx) judgeEvents(sp *space, n *node, p *hostlog.Parsed) error {
	times := []time.Time{at(p.Entry.At)}
	before := 0 // operations
	for i := range p.DecodedEvents {
		e := &p.DecodedEvents[i]
		ops := t.s.readAll(e.Ops)
		reason := t.verdict(sp, n, i, e, ops, times)
		valid := reason == "" && n.valid
		if !valid {
			t.deepen(sp) // what it waits for is known here
		}
		err := t.add(db.Insert{Into: "events", Columns: "eid idx sid id kind bytes valid reason"},
			n.eid, i, sp.sid, e.ID[:], e.Kind(), e.Bytes, valid, reason)
		if err != nil {
			return err
		}
		sp.events++
		t.expected.added(e.ID, n.eid)
		if err := t.fold(sp, n, i, e, ops, valid, before, p); err != nil {
			return err
		}
		before += len(e.Ops)
	}
	return nil
}

// verdict says why an event of an epoch is void, "" when it is valid.
func (t *tx) verdict(sp *space, n *node, i int, e *hostlog.Event, ops []operation, times []time.Time) string {
	if e.Token == nil {
		return e.Bad
	}
	var err error
	switch e.Token.Kind {
	case token.Invocation:
		err = sp.facts.Invoked(e.Token, asked(ops), times, judge.Here{Epoch: n.id, Index: i, Past: n.past})
	case token.Delegation:
		err = sp.facts.Delegated(e.Token)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
