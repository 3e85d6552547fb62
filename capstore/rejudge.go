package capstore

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// rejudge makes every verdict of a Space again, in causal order, and folds the operations anew. It is
// for the rare arrival that reaches into the past: a delegation that others waited for, or an earlier
// witness of an epoch.
func (t *tx) rejudge(sp *space) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
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
		if err := t.rejudgeEpoch(sp, eid); err != nil {
			return err
		}
	}
	sp.next = nil
	if err := t.sweep(sp); err != nil {
		return err
	}
	return t.enforce(sp)
}

func (t *tx) rejudgeEpoch(sp *space, eid int64) error {
	n, err := t.nodeBy(sp, "eid = ?", eid)
	if err != nil {
		return err
	}
	var b []byte
	if _, err := t.one([]any{&b}, "SELECT bytes FROM epochs WHERE eid = ?", eid); err != nil {
		return err
	}
	e, err := dag.DecodeEpoch(b)
	if err != nil {
		return err
	}
	_, floor, _, err := t.parents(sp, e.Parents)
	if err != nil {
		return err
	}
	times, least, reason, err := t.rejudgeEntries(sp, n, floor)
	if err != nil {
		return err
	}
	n.t, n.valid = max(floor, least), len(times) > 0
	if n.valid {
		reason = ""
		sp.newHead(n)
	}
	if err := t.exec("UPDATE epochs SET t = ?, valid = ?, reason = ? WHERE eid = ?", n.t, n.valid, reason, eid); err != nil {
		return err
	}
	return t.rejudgeEvents(sp, n, times)
}

// rejudgeEntries returns the times of an epoch's valid entries and the least time of all.
func (t *tx) rejudgeEntries(sp *space, n *node, floor int64) (times []time.Time, least int64, reason string, err error) {
	type row struct {
		branch uint32
		n      uint64
		at     int64
		digest []byte
	}
	var rows []row
	err = t.each(func(scan func(...any) error) error {
		var r row
		err := scan(&r.branch, &r.n, &r.at, &r.digest)
		rows = append(rows, r)
		return err
	}, "SELECT branch, n, at, digest FROM entries WHERE eid = ? ORDER BY at", n.eid)
	if err != nil {
		return nil, 0, "", err
	}
	for i, r := range rows {
		if i == 0 {
			least = r.at
		}
		host, importedAt := sp.witness(r.branch, tinycloud.Hash(r.digest))
		bad := sp.vouches(host, r.at, importedAt, n)
		if bad == nil && r.at < floor-judge.Slack.Milliseconds() {
			bad = fmt.Errorf("its entry is older than what it builds on: %w", tinycloud.ErrUnauthorized)
		}
		if bad == nil {
			times = append(times, at(r.at))
		} else {
			reason = bad.Error()
		}
		if err := t.exec("UPDATE entries SET valid = ? WHERE sid = ? AND branch = ? AND n = ?", bad == nil, sp.sid, r.branch, r.n); err != nil {
			return nil, 0, "", err
		}
	}
	return times, least, reason, nil
}

func (t *tx) rejudgeEvents(sp *space, n *node, times []time.Time) error {
	events, err := t.storedEvents(sp, n)
	if err != nil {
		return err
	}
	before := 0 // operations
	for i := range events {
		e := &events[i]
		reason := t.verdict(sp, n, i, &e.event, times)
		valid := reason == "" && n.valid
		if err := t.exec("UPDATE events SET valid = ?, reason = ? WHERE eid = ? AND idx = ?", valid, reason, n.eid, i); err != nil {
			return err
		}
		if err := t.rejudgeOps(sp, n, i, e, valid, before); err != nil {
			return err
		}
		before += len(e.ops)
	}
	return nil
}

// rejudgeOps folds the operations of an event anew. So many operations of the epoch came before.
func (t *tx) rejudgeOps(sp *space, n *node, i int, e *storedEvent, valid bool, before int) error {
	if len(e.ops) == 0 {
		return nil
	}
	if err := t.exec("UPDATE ops SET valid = ? WHERE eid = ? AND idx = ?", valid, n.eid, i); err != nil {
		return err
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
