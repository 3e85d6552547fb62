package capstore

import (
	"maps"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// revisited is an operation whose verdict may have changed.
type revisited struct {
	n        *node
	e        *hostlog.Event
	p        placedOp
	was, now bool
	index    int // among the operations of the epoch
}

type opPlace struct {
	eid, idx int64
	n        int
}

// reconsider makes the verdicts of some epochs again and folds the subjects that they write. Nothing else depends
// on whether an epoch is valid, but the times of those that follow it.
func (t *tx) reconsider(sp *space) error {
	eids := slices.Sorted(maps.Keys(sp.todo.epochs)) // parents come first
	clear(sp.todo.epochs)
	subjects := map[subject]struct{}{}
	for _, eid := range eids {
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return err
		}
		aged, err := t.rejudgeEpoch(sp, n, subjects)
		if err != nil {
			return err
		}
		if aged {
			if err := t.suspectChildren(sp, n); err != nil {
				return err
			}
		}
	}
	if err := t.refoldAll(sp, subjects); err != nil {
		return err
	}
	return t.findHeads(sp)
}

// refoldAll folds subjects anew. A value is freed only when none of them holds it afterwards.
func (t *tx) refoldAll(sp *space, subjects map[subject]struct{}) error {
	sp.dropped = map[tinycloud.Hash]struct{}{}
	defer func() { sp.dropped = nil }()
	for _, about := range slices.SortedFunc(maps.Keys(subjects), subject.compare) {
		if err := t.refoldSubject(sp, about); err != nil {
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

// flip is an operation whose verdict changed when its subject was folded.
type flip struct {
	opPlace
	valid bool
}

// flipped announces what a flip makes valid, or void.
func (t *tx) flipped(sp *space, f flip) error {
	n, err := t.nodeBy(sp, "eid = ?", f.eid)
	if err != nil {
		return err
	}
	events, err := t.storedEvents(n)
	if err != nil {
		return err
	}
	failed := error(nil)
	operations(n, events, int(f.idx), func(v *revisited) {
		if v.p.n == f.n {
			v.was, v.now = !f.valid, f.valid
			failed = t.reannounced(sp, v)
		}
	})
	return failed
}

// operations calls f for the operations of an event.
func operations(n *node, events []storedEvent, i int, f func(*revisited)) {
	before := 0
	for _, e := range events[:i] {
		before += len(e.ops)
	}
	e := &events[i]
	for k, op := range e.ops {
		p := placedOp{op: op, at: Position{Seq: n.seq, Epoch: n.id, Index: uint64(i)}, n: k, event: e.ID}
		f(&revisited{n: n, e: &e.Event, p: p, was: e.was[k], now: e.was[k], index: before + k})
	}
}

func (t *tx) reannounced(sp *space, v *revisited) error {
	if v.was == v.now {
		return nil
	}
	places, err := t.places(sp.sid, v.p.event)
	if err != nil {
		return err
	}
	return t.reannounce(sp, v.n, v.e, v.p, v.was, v.now, places > 1, v.index)
}

// subjectsOf adds the subjects of the operations of an epoch.
func (t *tx) subjectsOf(n *node, subjects map[subject]struct{}) error {
	return t.each(func(scan db.Scan) error { return scanSubject(scan, subjects) }, "SELECT bytes FROM ops WHERE eid = ?", n.eid)
}
