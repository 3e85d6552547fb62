package capstore

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// revise brings the verdicts of a Space up to date with what the transaction added.
func (t *tx) revise(sp *space) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	settled := false
	if sp.unsettled && !sp.again {
		if err := t.settleRemovals(sp); err != nil {
			return err
		}
		settled = true
	}
	if sp.again {
		if err := t.rejudge(sp); err != nil {
			return err
		}
		settled = true
	}
	if len(sp.redo) > 0 {
		if err := t.reconsider(sp); err != nil {
			return err
		}
	}
	if settled {
		return t.enforce(sp)
	}
	return nil
}

// rejudge makes every verdict of a Space again, in causal order, and folds the operations anew. It is
// for the rare arrival that reaches into the past: a delegation that others waited for, or an earlier
// witness of an epoch.
func (t *tx) rejudge(sp *space) error {
	sp.again, sp.unsure, sp.folding = false, false, true
	defer func() { sp.folding = false }()
	sp.facts.Forget()
	sp.heads = nil
	var eids []int64
	err := t.each(func(scan func(...any) error) error {
		var eid int64
		err := scan(&eid)
		eids = append(eids, eid)
		return err
	}, "SELECT eid FROM epochs WHERE sid = ? ORDER BY seq, id", sp.sid)
	if err != nil {
		return err
	}
	if err := t.exec("DELETE FROM kv WHERE sid = ?", sp.sid); err != nil {
		return err
	}
	sp.nodes.Purge() // times change
	for _, eid := range eids {
		if err := t.redate(sp, eid); err != nil {
			return err
		}
	}
	if err := t.settleRemovals(sp); err != nil {
		return err
	}
	clear(sp.redo) // all are
	for _, eid := range eids {
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return err
		}
		times, err := t.rejudgeEpoch(sp, n)
		if err != nil {
			return err
		}
		if n.valid {
			sp.newHead(n)
		}
		if err := t.rejudgeEvents(sp, n, times); err != nil {
			return err
		}
	}
	sp.next = nil
	if err := t.sweep(sp); err != nil {
		return err
	}
	return t.enforce(sp)
}

// redate computes the time of an epoch and judges its entries as if no host had been removed.
func (t *tx) redate(sp *space, eid int64) error {
	n, err := t.nodeBy(sp, "eid = ?", eid)
	if err != nil {
		return err
	}
	floor, err := t.parentTime(sp, n)
	if err != nil {
		return err
	}
	rows, err := t.entriesOf(n)
	if err != nil {
		return err
	}
	for i, r := range rows {
		if i == 0 {
			n.t = max(floor, r.at)
		}
		is := entryVoid
		if r.at >= floor-judge.Slack.Milliseconds() && sp.able(sp.witness(r.branch, r.digest), r.at, n) == nil {
			is = entryValid
		}
		if is == r.is {
			continue
		}
		if err := t.exec("UPDATE entries SET valid = ? WHERE sid = ? AND branch = ? AND n = ?", is, sp.sid, r.branch, int64(r.n)); err != nil {
			return err
		}
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
	err = t.each(func(scan func(...any) error) error {
		var r entryRow
		var digest []byte
		err := scan(&r.branch, &r.n, &r.at, &r.is, &digest)
		copy(r.digest[:], digest)
		rows = append(rows, r)
		return err
	}, "SELECT branch, n, at, valid, digest FROM entries WHERE eid = ? ORDER BY at, ord", n.eid)
	return rows, err
}

// rejudgeEpoch follows the verdicts on an epoch's entries. It returns the times of the valid ones.
func (t *tx) rejudgeEpoch(sp *space, n *node) (times []time.Time, err error) {
	rows, err := t.entriesOf(n)
	if err != nil {
		return nil, err
	}
	reason := ""
	for _, r := range rows {
		if r.is == entryValid {
			times = append(times, at(r.at))
		}
	}
	if n.valid = len(times) > 0; !n.valid {
		floor, err := t.parentTime(sp, n)
		if err != nil {
			return nil, err
		}
		_, reason = sp.entryStanding(sp.witness(rows[0].branch, rows[0].digest), rows[0].at, floor, n)
	}
	return times, t.exec("UPDATE epochs SET valid = ?, reason = ? WHERE eid = ?", n.valid, reason, n.eid)
}

func (t *tx) rejudgeEvents(sp *space, n *node, times []time.Time) error {
	events, err := t.storedEvents(sp, n)
	if err != nil {
		return err
	}
	before := 0 // operations
	for i := range events {
		e := &events[i]
		valid, err := t.rejudgeEvent(sp, n, i, e, times)
		if err != nil {
			return err
		}
		if err := t.rejudgeOps(sp, n, i, e, valid, before); err != nil {
			return err
		}
		before += len(e.ops)
	}
	return nil
}

// rejudgeEvent stores the verdict on an event, and the same on its operations.
func (t *tx) rejudgeEvent(sp *space, n *node, i int, e *storedEvent, times []time.Time) (valid bool, err error) {
	reason := t.verdict(sp, n, i, &e.event, times)
	valid = reason == "" && n.valid
	if err := t.exec("UPDATE events SET valid = ?, reason = ? WHERE eid = ? AND idx = ?", valid, reason, n.eid, i); err != nil || len(e.ops) == 0 {
		return valid, err
	}
	return valid, t.exec("UPDATE ops SET valid = ? WHERE eid = ? AND idx = ?", valid, n.eid, i)
}

// rejudgeOps folds the operations of an event anew. So many operations of the epoch came before.
func (t *tx) rejudgeOps(sp *space, n *node, i int, e *storedEvent, valid bool, before int) error {
	if len(e.ops) == 0 {
		return nil
	}
	var places int
	if valid {
		if _, err := t.one([]any{&places}, "SELECT count(*) FROM events WHERE sid = ? AND id = ?", sp.sid, e.id[:]); err != nil {
			return err
		}
	}
	for k, op := range e.ops {
		p := placedOp{op: op, at: Position{Seq: n.seq, Epoch: n.id, Index: uint64(i)}, n: k, event: e.id}
		counts := false
		if valid {
			var err error
			if counts, err = t.apply(sp, n, p, places > 1); err != nil {
				return err
			}
		}
		if e.was[k] && !counts { // an earlier operation's key may have been folded with it
			if err := t.refold(sp, op.Key); err != nil {
				return err
			}
		}
		if err := t.reannounce(sp, n, &e.event, p, e.was[k], counts, places > 1, before+k); err != nil {
			return err
		}
	}
	return nil
}

// storedEvent is an event with the last verdicts on its operations.
type storedEvent struct {
	event
	was []bool
}

// storedEvents reads the events of an epoch with their operations.
func (t *tx) storedEvents(sp *space, n *node) ([]storedEvent, error) {
	var out []storedEvent
	err := t.each(func(scan func(...any) error) error {
		var e storedEvent
		var id []byte
		var kind judge.Kind
		if err := scan(&id, &kind, &e.bytes, &e.bad); err != nil {
			return err
		}
		e.id = tinycloud.Hash(id)
		if kind != 0 {
			tok, err := judge.Decode(e.bytes, kind == judge.Invocation)
			if err != nil {
				return fmt.Errorf("stored event %s: %w", e.id.EventID(), err)
			}
			e.token = tok
		}
		out = append(out, e)
		return nil
	}, "SELECT id, kind, bytes, reason FROM events WHERE eid = ? ORDER BY idx", n.eid)
	if err != nil {
		return nil, err
	}
	err = t.each(func(scan func(...any) error) error {
		var idx int
		var b []byte
		var was bool
		if err := scan(&idx, &b, &was); err != nil {
			return err
		}
		op, err := dag.DecodeOp(b)
		if err != nil {
			return err
		}
		e := &out[idx]
		e.ops, e.raw, e.was = append(e.ops, op), append(e.raw, b), append(e.was, was)
		return nil
	}, "SELECT idx, bytes, valid FROM ops WHERE eid = ? ORDER BY idx, n", n.eid)
	return out, err
}

// question has a Space with void events judged anew at its first news since it was loaded: what those events
// waited for was known in memory only.
func (t *tx) question(sp *space) error {
	if !sp.unsure || sp.again {
		return nil
	}
	sp.unsure = false
	for _, query := range []string{
		"SELECT 1 FROM events WHERE sid = ? AND valid = 0 AND kind <> 0 LIMIT 1", "SELECT 1 FROM epochs WHERE sid = ? AND valid = 0 LIMIT 1",
	} {
		var one int
		found, err := t.one([]any{&one}, query, sp.sid)
		if err != nil {
			return err
		}
		sp.again = sp.again || found
	}
	return nil
}
