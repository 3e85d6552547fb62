package capstore

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// revise brings the verdicts of a Space up to date with what the transaction added.
func (t *tx) revise(sp *space) error {
	if sp.closed {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	settled := false
	if sp.todo.removals || sp.todo.all || sp.todo.times || len(sp.todo.epochs) > 0 {
		t.deepen(sp)
	}
	if sp.todo.removals && !sp.todo.all {
		before := sp.facts.EndedHosts()
		if err := t.settleRemovals(sp); err != nil {
			return err
		}
		if err := t.redateEnded(sp, before); err != nil {
			return err
		}
		settled = true
	}
	if len(sp.todo.epochs) > 0 && !sp.todo.all {
		if err := t.reconsider(sp); err != nil {
			return err
		}
	}
	if err := t.redate(sp); err != nil {
		return err
	}
	if sp.todo.all {
		if t.tooLong(sp) {
			return nil
		}
		if err := t.rejudge(sp); err != nil {
			return err
		}
		settled = true
	}
	if settled {
		return t.enforce(sp)
	}
	return nil
}

// rejudge makes every verdict of a Space again, in causal order, and folds the operations anew. It is
// for the rare arrival that reaches into the past: a delegation that others waited for. Of a long history it is done
// in parts, see review.go.
func (t *tx) rejudge(sp *space) error {
	r := &review{}
	for !r.over() {
		if err := t.reviewSome(sp, r, forever); err != nil {
			return err
		}
	}
	return nil
}

// dateEntries computes the time of an epoch by which its entries are judged, and judges these as if no host had been
// removed.
func (t *tx) dateEntries(sp *space, eid int64) error {
	n, err := t.nodeBy(sp, "eid = ?", eid)
	if err != nil {
		return err
	}
	g, err := t.groundOf(sp, n)
	if err != nil {
		return err
	}
	if err := t.link(g.parents, n); err != nil {
		return err
	}
	rows, err := t.entriesOf(n)
	if err != nil {
		return err
	}
	was := n.t
	for i, r := range rows {
		if i == 0 {
			n.t = max(g.floor, r.at)
		}
		is := entryVoid
		if r.at >= judge.Earliest(g.floor) && sp.able(sp.witness(r.branch, r.digest), r.at, n) == nil {
			is = entryValid
		}
		if is == r.is {
			continue
		}
		if err := t.exec("UPDATE entries SET valid = ? WHERE sid = ? AND branch = ? AND n = ?", is, sp.sid, r.branch, int64(r.n)); err != nil {
			return err
		}
	}
	if n.t == was {
		return nil
	}
	return t.exec("UPDATE epochs SET t = ? WHERE eid = ?", n.t, eid)
}

// entryRow is a stored entry of an epoch.
type entryRow struct {
	branch uint32
	n      uint64
	at     int64
	is     standing
	digest tinycloud.Hash
}

// entriesOf reads the entries of an epoch, the earliest first.
func (t *tx) entriesOf(n *node) (rows []entryRow, err error) {
	err = t.each(func(scan db.Scan) error {
		var r entryRow
		var digest []byte
		err := scan(&r.branch, &r.n, &r.at, &r.is, &digest)
		copy(r.digest[:], digest)
		rows = append(rows, r)
		return err
	}, "SELECT branch, n, at, valid, digest FROM entries WHERE eid = ? ORDER BY at, ord", n.eid)
	return rows, err
}

// rejudgeEpoch makes the verdicts on an epoch and its events again, from those on its entries, and computes its age. It
// adds the subjects of its operations, and reports whether its age is another.
func (t *tx) rejudgeEpoch(sp *space, n *node, subjects map[subject]struct{}) (aged bool, err error) {
	rows, err := t.entriesOf(n)
	if err != nil {
		return false, err
	}
	g, err := t.groundOf(sp, n)
	if err != nil {
		return false, err
	}
	events, err := t.storedEvents(n)
	if err != nil {
		return false, err
	}
	d := judge.Dating{Space: sp.id}
	var times []time.Time
	for _, r := range rows {
		if r.is == entryValid {
			times = append(times, at(r.at))
			d.Entries = append(d.Entries, sp.dated(r, n))
		}
	}
	was, reason := *n, ""
	if n.valid = len(times) > 0; !n.valid {
		_, reason = sp.entryStanding(sp.witness(rows[0].branch, rows[0].digest), rows[0].at, g.floor, n)
	}
	for i := range events {
		d.Add(events[i].Token)
		for _, op := range events[i].ops {
			subjects[op.subject()] = struct{}{}
		}
	}
	n.age = d.Age(g.ages())
	if aged = n.age != was.age; aged || n.valid != was.valid || !n.valid {
		err := t.exec("UPDATE epochs SET valid = ?, reason = ?, written = ?, begin_of = ? WHERE eid = ?", n.valid, reason, n.age.Time, n.age.Encode(), n.eid)
		if err != nil {
			return false, err
		}
	}
	before := 0 // operations
	for i := range events {
		if err := t.rejudgeEvent(sp, n, i, &events[i], times, before); err != nil {
			return false, err
		}
		before += len(events[i].ops)
	}
	return aged, nil
}

// rejudgeEvent makes the verdict on an event again, and those on its operations, of which so many of the epoch come
// before. Some are judged when their subject is folded.
func (t *tx) rejudgeEvent(sp *space, n *node, i int, e *storedEvent, times []time.Time, before int) error {
	reason := t.verdict(sp, n, i, &e.Event, e.ops, times)
	valid := reason == "" && n.valid
	if valid != e.valid || reason != e.Bad {
		if err := t.exec("UPDATE events SET valid = ?, reason = ? WHERE eid = ? AND idx = ?", valid, reason, n.eid, i); err != nil {
			return err
		}
	}
	for k, op := range e.ops {
		v := &revisited{n: n, e: &e.Event, was: e.was[k], now: valid, index: before + k}
		v.p = placedOp{op: op, at: Position{Seq: n.seq, Epoch: n.id, Index: uint64(i)}, n: k, event: e.ID}
		if err := t.setPending(sp, n.eid, v.p); err != nil {
			return err
		}
		if valid && !op.pending {
			var err error
			if v.now, err = op.by.Stands(t.at(sp, n, op.Service), v.p.placed(n), v.was); err != nil {
				return err
			}
		}
		if v.was == v.now {
			continue
		}
		if err := t.setValid(n.eid, int64(i), k, v.now); err != nil {
			return err
		}
		if err := t.reannounced(sp, v); err != nil {
			return err
		}
	}
	return nil
}

// storedEvent is an event with the last verdicts on it, why it is void in bad, and on its operations.
type storedEvent struct {
	hostlog.Event
	ops   []operation
	valid bool
	was   []bool
}

// storedEvents reads the events of an epoch with their operations.
func (t *tx) storedEvents(n *node) ([]storedEvent, error) {
	var out []storedEvent
	err := t.each(func(scan db.Scan) error {
		var e storedEvent
		var id []byte
		var kind token.Kind
		if err := scan(&id, &kind, &e.Bytes, &e.valid, &e.Bad); err != nil {
			return err
		}
		e.ID = tinycloud.Hash(id)
		if kind != 0 {
			tok, err := token.Decode(e.Bytes, kind == token.Invocation)
			if err != nil {
				return fmt.Errorf("stored event %s: %w", e.ID.EventID(), err)
			}
			e.Token = tok
		}
		out = append(out, e)
		return nil
	}, "SELECT id, kind, bytes, valid, reason FROM events WHERE eid = ? ORDER BY idx", n.eid)
	if err != nil {
		return nil, err
	}
	err = t.each(func(scan db.Scan) error {
		var idx int
		var b []byte
		var was bool
		if err := scan(&idx, &b, &was); err != nil {
			return err
		}
		op, _, err := dag.ReadOperation(b)
		if err != nil {
			return err
		}
		e := &out[idx]
		e.ops, e.was = append(e.ops, t.s.read(op)), append(e.was, was)
		return nil
	}, "SELECT idx, bytes, valid FROM ops WHERE eid = ? ORDER BY idx, n", n.eid)
	return out, err
}

// question has a Space with void events judged anew at its first news since it was loaded: what those events
// waited for was known in memory only.
func (t *tx) question(sp *space) error {
	if !sp.todo.unsure || sp.todo.all {
		return nil
	}
	sp.todo.unsure = false
	for _, query := range []string{
		"SELECT 1 FROM events WHERE sid = ? AND valid = 0 AND kind <> 0 LIMIT 1", "SELECT 1 FROM epochs WHERE sid = ? AND valid = 0 LIMIT 1",
	} {
		var one int
		found, err := t.one([]any{&one}, query, sp.sid)
		if err != nil {
			return err
		}
		sp.todo.all = sp.todo.all || found
	}
	return nil
}
