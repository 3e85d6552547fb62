package capstore

import (
	"math"
	"slices"
	"sort"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Removed hosts. What survives a removal is a clock: the pasts of the epochs that protect (judge.Removal).
// A new epoch only adds its own past to it. When that reaches an entry that was cut off, or when what is
// removed or where the cut is may have changed, settleRemovals computes the clocks anew from the ends of the logs, and
// looks at those entries alone that are behind them.

// verdict on an entry, as stored.
type standing int

const (
	entryVoid  standing = iota // for another reason
	entryValid                 // or would be, if its host had not been removed
	entryCut                   // its host was removed
)

// trailing is an entry of a removed host that does not survive for certain.
type trailing struct {
	branch  int
	n       uint64
	at, eid int64
	was, is standing
	digest  tinycloud.Hash
}

// survey computes what survives the removals of a Space's hosts and returns the entries that were to be
// looked at.
func (t *tx) survey(sp *space) ([]trailing, error) {
	ended := map[hostlog.Key]bool{}
	note := func(removals []*judge.Removal) {
		for _, b := range sp.logs() {
			for _, r := range removals {
				ended[b.host] = ended[b.host] || r.Ends(b.host)
			}
		}
	}
	note(sp.facts.Removals())
	removals := sp.facts.FindRemovals()
	note(removals)
	sp.todo.cuts = nil
	if len(ended) == 0 {
		return nil, nil
	}
	for _, r := range removals {
		if err := t.cut(sp, r); err != nil {
			return nil, err
		}
		for _, b := range sp.logs() {
			if sp.facts.Removed(b.host) {
				continue
			}
			if err := t.protect(sp, r, b, b.n); err != nil {
				return nil, err
			}
		}
	}
	var rows []trailing
	for _, b := range sp.logs() {
		if !ended[b.host] {
			continue
		}
		more, err := t.trail(sp, removals, b)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, t.spread(sp, removals, rows)
}

// cut finds the cut of a removal: the least epoch that holds it and has an entry of another host, or else of
// any.
func (t *tx) cut(sp *space, r *judge.Removal) error {
	var best *node
	byOther := false
	for _, place := range r.Places() {
		n, err := t.node(sp, place.Epoch)
		if err != nil || n == nil {
			return err
		}
		able, other := false, false
		err = t.each(func(scan db.Scan) error {
			var branch uint32
			err := scan(&branch)
			able = true
			other = other || sp.facts.Other(r, sp.witness(branch, tinycloud.Hash{}).host, judge.Here{Epoch: n.id, Past: n.past})
			return err
		}, "SELECT branch FROM entries WHERE eid = ? AND valid <> 0", n.eid)
		if err != nil {
			return err
		}
		less := best == nil || Position{Seq: n.seq, Epoch: n.id}.Compare(Position{Seq: best.seq, Epoch: best.id}) < 0
		if able && (other && !byOther || other == byOther && less) {
			best, byOther = n, other
		}
	}
	if best != nil {
		r.Protect(nil, best.past, best.spots)
	}
	return nil
}

// protect adds the last entry of a branch, up to a number, that would be valid and did not know of the
// removal.
func (t *tx) protect(sp *space, r *judge.Removal, b logRef, limit uint64) error {
	first := b.first
	if limit < first {
		return nil
	}
	var failed error
	unaware := sort.Search(int(limit-first)+1, func(i int) bool {
		n, err := t.entryNode(sp, b.branch, limit-uint64(i))
		failed = firstOf(failed, err)
		return n == nil || !r.In(n.past) // an import entry has no epoch
	})
	if failed != nil || unaware > int(limit-first) {
		return failed
	}
	var eid int64
	ok, err := t.one([]any{&eid}, "SELECT eid FROM entries WHERE sid = ? AND branch = ? AND n <= ? AND valid <> 0 AND eid <> 0 ORDER BY n DESC LIMIT 1",
		sp.sid, b.branch, int64(limit)-int64(unaware))
	if err != nil || !ok {
		return err
	}
	n, err := t.nodeBy(sp, "eid = ?", eid)
	if err == nil {
		r.Protect(&b.host, n.past, n.spots)
	}
	return err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// entryNode returns the epoch of an entry.
func (t *tx) entryNode(sp *space, branch int, n uint64) (*node, error) {
	return t.nodeBy(sp, "eid = (SELECT eid FROM entries WHERE sid = ? AND branch = ? AND n = ?)", sp.sid, branch, int64(n))
}

// trail returns the entries of a branch of a removed host that are behind what survives for certain, and
// those that were cut off before. What survives for certain protects others.
func (t *tx) trail(sp *space, removals []*judge.Removal, b logRef) (rows []trailing, err error) {
	safe := int64(b.n) // greatest number that survives all removals
	for _, r := range removals {
		if !r.Ends(b.host) {
			continue
		}
		n, ok := r.Prefix(b.host, uint32(b.branch))
		if !ok {
			safe = -1
			break
		}
		safe = min(safe, int64(n))
	}
	if safe >= 0 {
		for _, r := range removals {
			if err := t.protect(sp, r, b, uint64(safe)); err != nil {
				return nil, err
			}
		}
	}
	err = t.each(func(scan db.Scan) error {
		r := trailing{branch: b.branch}
		var digest []byte
		err := scan(&r.n, &r.at, &r.eid, &r.was, &digest)
		copy(r.digest[:], digest)
		rows = append(rows, r)
		return err
	}, "SELECT n, at, eid, valid, digest FROM entries WHERE sid = ? AND branch = ? AND valid <> 0 AND eid <> 0 AND (n > ? OR valid = 2) ORDER BY n", sp.sid, b.branch, safe)
	return rows, err
}

// spread finds which of the entries survive, each of which may protect others, until nothing changes.
func (t *tx) spread(sp *space, removals []*judge.Removal, rows []trailing) error {
	for again := true; again; {
		again = false
		for i := range rows {
			row := &rows[i]
			if row.is == entryValid {
				continue
			}
			n, err := t.nodeBy(sp, "eid = ?", row.eid)
			if err != nil {
				return err
			}
			w := sp.witness(uint32(row.branch), row.digest)
			row.is = entryCut
			if sp.vouches(w, row.at, n) != nil {
				continue
			}
			row.is = entryValid
			for _, r := range removals {
				if !r.In(n.past) && r.Protect(&w.host, n.past, n.spots) {
					again = true
				}
			}
		}
	}
	return nil
}

// settleRemovals finds out what survives the removals of hosts, and notes the epochs whose verdicts change.
func (t *tx) settleRemovals(sp *space) error {
	sp.todo.removals = false
	rows, err := t.survey(sp)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.is == entryCut {
			n, err := t.nodeBy(sp, "eid = ?", row.eid)
			if err != nil {
				return err
			}
			sp.noteCut(n, sp.witness(uint32(row.branch), row.digest).host, judge.Spot{Branch: uint32(row.branch), N: row.n})
		}
		if row.is == row.was {
			continue
		}
		if err := t.exec("UPDATE entries SET valid = ? WHERE sid = ? AND branch = ? AND n = ?", row.is, sp.sid, row.branch, int64(row.n)); err != nil {
			return err
		}
		t.touch(sp)
		sp.todo.epochs[row.eid] = struct{}{}
	}
	return nil
}

// lateCut is an entry that was cut off and came after others of its epoch: the clocks of epochs that follow it
// may not name it.
type lateCut struct {
	n    *node
	host hostlog.Key
}

func (sp *space) noteCut(n *node, host hostlog.Key, spot judge.Spot) {
	if len(n.spots) > 0 && n.spots[0] != spot {
		sp.todo.cuts = append(sp.todo.cuts, lateCut{n, host})
	}
}

// vouch adds an epoch that an entry of a host makes valid to what protects. When an entry that was cut off
// survives by it, all has to be settled anew.
func (sp *space) vouch(n *node, host hostlog.Key) {
	for _, r := range sp.facts.Removals() {
		if r.In(n.past) {
			continue
		}
		for _, b := range sp.logs() {
			k, ok := n.past[uint32(b.branch)]
			if ok && b.host != host && r.Ends(b.host) && !r.Survives(b.host, []judge.Spot{{Branch: uint32(b.branch), N: k}}) {
				sp.todo.removals = true
			}
		}
		for _, c := range sp.todo.cuts {
			if c.host != host && r.Ends(c.host) && (c.n == n || c.n.before(n.past)) && !r.Survives(c.host, c.n.spots) {
				sp.todo.removals = true
			}
		}
		for _, s := range n.spots {
			if other := sp.witness(s.Branch, tinycloud.Hash{}).host; other != host && r.Ends(other) && !r.Survives(other, n.spots) {
				sp.todo.removals = true
			}
		}
		r.Protect(&host, n.past, n.spots)
	}
}

// cutHere reports whether a removal stands in an epoch, so that a further entry of it may move the cut.
func (sp *space) cutHere(n *node) bool {
	for _, r := range sp.facts.Removals() {
		if slices.ContainsFunc(r.Places(), func(p judge.Place) bool { return p.Epoch == n.id }) {
			return true
		}
	}
	return false
}

// findHeads finds the valid epochs without valid descendants.
func (t *tx) findHeads(sp *space) (err error) {
	sp.next = nil
	sp.heads, err = t.lastValid(sp, math.MaxInt64)
	return err
}

// lastValid returns the valid epochs up to a time without valid descendants up to it, the greatest first: each
// is the last one of some log.
func (t *tx) lastValid(sp *space, limit int64) (heads []*node, err error) {
	var last []*node
	for _, b := range sp.logs() {
		var eid int64
		ok, err := t.one([]any{&eid}, `SELECT e.eid FROM entries e JOIN epochs p ON p.eid = e.eid
			WHERE e.sid = ? AND e.branch = ? AND e.valid = 1 AND p.t <= ? ORDER BY e.n DESC LIMIT 1`, sp.sid, b.branch, limit)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(last, n) {
			last = append(last, n)
		}
	}
	for _, n := range last {
		if !slices.ContainsFunc(last, func(o *node) bool { return n.before(o.past) }) {
			heads = append(heads, n)
		}
	}
	sortHeads(heads)
	return heads, nil
}

// entryStanding is the verdict on an entry whose spot the epoch has already.
func (sp *space) entryStanding(w witness, ms, floor int64, n *node) (standing, string) {
	if ms < judge.Earliest(floor) {
		return entryVoid, "its entry is older than what it builds on"
	}
	err := sp.vouches(w, ms, n)
	switch {
	case err == nil:
		return entryValid, ""
	case sp.able(w, ms, n) == nil:
		return entryCut, err.Error()
	}
	return entryVoid, err.Error()
}

// logRef is a branch of a log, or a chain of imported epochs.
type logRef struct {
	branch   int
	host     hostlog.Key
	first, n uint64 // numbers of the first and the last
}

func (sp *space) logs() []logRef {
	out := make([]logRef, 0, len(sp.branches)+len(sp.chains))
	for i, b := range sp.branches {
		l := logRef{branch: i, host: b.host, n: b.n}
		if b.base >= 0 {
			l.first = b.baseN + 1
		}
		out = append(out, l)
	}
	for i, c := range sp.chains {
		out = append(out, logRef{branch: chainBase + i, host: c.host, n: c.n})
	}
	return out
}
