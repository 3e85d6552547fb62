package capstore

import (
	"maps"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// revisited is an operation whose verdict may have changed.
type revisited struct {
	n        *node
	e        *event
	p        placedOp
	was, now bool
	index    int // among the operations of the epoch
}

type opPlace struct {
	eid, idx int64
	n        int
}

// reconsider makes the verdicts of some epochs again and folds the keys that they write. Nothing else depends
// on whether an epoch is valid.
func (t *tx) reconsider(sp *space) error {
	eids := slices.Sorted(maps.Keys(sp.redo)) // parents come first
	clear(sp.redo)
	ops := map[opPlace]*revisited{}
	var order []*revisited
	visit := func(v *revisited) {
		at := opPlace{v.n.eid, int64(v.p.at.Index), v.p.n}
		if ops[at] == nil {
			ops[at], order = v, append(order, v)
		}
	}
	for _, eid := range eids {
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return err
		}
		times, err := t.rejudgeEpoch(sp, n)
		if err != nil {
			return err
		}
		events, err := t.storedEvents(sp, n)
		if err != nil {
			return err
		}
		for i := range events {
			valid, err := t.rejudgeEvent(sp, n, i, &events[i], times)
			if err != nil {
				return err
			}
			operations(n, events, i, func(v *revisited) {
				v.now = valid
				visit(v)
			})
		}
	}
	keys := map[string]struct{}{}
	for _, v := range order {
		keys[v.p.op.Key] = struct{}{}
	}
	if err := t.refoldAll(sp, slices.Sorted(maps.Keys(keys)), ops, visit); err != nil {
		return err
	}
	for _, v := range order {
		if err := t.reannounced(sp, v); err != nil {
			return err
		}
	}
	return t.findHeads(sp)
}

// refoldAll folds keys anew. A value is freed only when none of them holds it afterwards.
func (t *tx) refoldAll(sp *space, keys []string, ops map[opPlace]*revisited, visit func(*revisited)) error {
	sp.dropped = map[tinycloud.Hash]struct{}{}
	defer func() { sp.dropped = nil }()
	for _, key := range keys {
		if err := t.redelete(sp, key, ops, visit); err != nil {
			return err
		}
		if err := t.refold(sp, key); err != nil {
			return err
		}
	}
	dropped := sp.dropped
	sp.dropped = nil
	for hash := range dropped {
		if err := t.release(sp, hash); err != nil {
			return err
		}
	}
	return nil
}

// operations calls f for the operations of an event.
func operations(n *node, events []storedEvent, i int, f func(*revisited)) {
	before := 0
	for _, e := range events[:i] {
		before += len(e.ops)
	}
	e := &events[i]
	for k, op := range e.ops {
		p := placedOp{op: op, at: Position{Seq: n.seq, Epoch: n.id, Index: uint64(i)}, n: k, event: e.id}
		f(&revisited{n: n, e: &e.event, p: p, was: e.was[k], now: e.was[k], index: before + k})
	}
}

// redelete finds anew what the deletes of a key remove: one that removes nothing is void.
func (t *tx) redelete(sp *space, key string, ops map[opPlace]*revisited, visit func(*revisited)) error {
	var places []opPlace
	err := t.each(func(scan func(...any) error) error {
		var p opPlace
		err := scan(&p.eid, &p.idx, &p.n)
		places = append(places, p)
		return err
	}, `SELECT o.eid, o.idx, o.n FROM ops o JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		WHERE o.sid = ? AND o.key = ? AND o.removes = 1 AND e.valid = 1`, sp.sid, t.s.key(key))
	if err != nil {
		return err
	}
	for _, at := range places {
		if ops[at] == nil {
			n, err := t.nodeBy(sp, "eid = ?", at.eid)
			if err != nil {
				return err
			}
			events, err := t.storedEvents(sp, n)
			if err != nil {
				return err
			}
			operations(n, events, int(at.idx), visit)
		}
		v := ops[at]
		floor, _, err := t.deleted(sp, v.n, v.p)
		if err != nil {
			return err
		}
		v.now = floor != nil
		if err := t.exec("UPDATE ops SET valid = ? WHERE eid = ? AND idx = ? AND n = ?", v.now, at.eid, at.idx, at.n); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) reannounced(sp *space, v *revisited) error {
	var places int
	if _, err := t.one([]any{&places}, "SELECT count(*) FROM events WHERE sid = ? AND id = ?", sp.sid, v.p.event[:]); err != nil {
		return err
	}
	return t.reannounce(sp, v.n, v.e, v.p, v.was, v.now, places > 1, v.index)
}
