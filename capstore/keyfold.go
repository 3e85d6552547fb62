package capstore

import (
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// keyState is the fold of a key's operations: the greatest write, and the floor up to which writes are
// deleted. The key lives iff the write is above the floor and no delete names it.
type keyState struct {
	written bool
	live    bool
	at      Position
	value   tinycloud.Hash
	meta    []byte
	floored bool
	floor   Position
	pending bool // an operation on it is, so that what it holds is not known
}

// keyRow reads the fold of a key.
func (t *tx) keyRow(sp *space, key string) (k keyState, err error) {
	var seq, idx, fSeq, fIdx int64
	var epoch, value, fEpoch []byte
	ok, err := t.one([]any{&k.live, &seq, &epoch, &idx, &value, &k.meta, &fSeq, &fEpoch, &fIdx, &k.pending},
		"SELECT live, seq, epoch, idx, value, meta, f_seq, f_epoch, f_idx, pending FROM kv k WHERE k.sid = ? AND k.key = ?", sp.sid, t.s.key(key))
	if err != nil || !ok {
		return k, err
	}
	if seq >= 0 {
		k.written, k.at, k.value = true, Position{Seq: uint64(seq), Epoch: tinycloud.Hash(epoch), Index: uint64(idx)}, tinycloud.Hash(value)
	}
	if fSeq >= 0 {
		k.floored, k.floor = true, Position{Seq: uint64(fSeq), Epoch: tinycloud.Hash(fEpoch), Index: uint64(fIdx)}
	}
	return k, nil
}

// saveKey stores the fold of a key, no row for one that no operation counts for any more, and frees the value it held
// before.
func (t *tx) saveKey(sp *space, key string, old, k keyState) error {
	if !k.written && !k.floored && !k.pending {
		err := t.exec("DELETE FROM kv WHERE sid = ? AND kv.key = ?", sp.sid, t.s.key(key))
		if err != nil || !old.live {
			return err
		}
		return t.release(sp, old.value)
	}
	seq, fSeq, meta := int64(-1), int64(-1), k.meta
	if k.written {
		seq = int64(k.at.Seq)
	}
	if k.floored {
		fSeq = int64(k.floor.Seq)
	}
	if meta == nil {
		meta = encodeMeta(nil)
	}
	indexed, whole := t.s.db.Key(key)
	err := t.add(db.Insert{Into: "kv", Columns: "sid key whole live seq epoch idx value meta f_seq f_epoch f_idx pending", Key: "sid key", Replace: true},
		sp.sid, indexed, whole, k.live, seq, k.at.Epoch[:], int64(k.at.Index), k.value[:], meta, fSeq, k.floor.Epoch[:], int64(k.floor.Index), k.pending)
	if err == nil && k.live {
		err = t.want(sp, k.value)
	}
	if err != nil || !old.live || k.live && k.value == old.value {
		return err
	}
	return t.release(sp, old.value)
}

// apply folds one valid operation of a new epoch. many says that its event stands elsewhere too, so that it may count
// at another place. It reports whether the operation counts: a delete of nothing is void.
//
// Nearly always all that is known is in the new operation's past, and the key's row tells enough. What is concurrent is
// compared with what the row and the conflicts of the key name, or all operations of the key are looked at.
func (t *tx) apply(sp *space, n *node, p kvOp, many bool) (counts bool, err error) {
	if p.op.Delete {
		return t.applyDelete(sp, n, p, many)
	}
	if many {
		return true, t.refold(sp, p.op.Key)
	}
	old, err := t.keyRow(sp, p.op.Key)
	if err != nil || old.written && old.at == p.at {
		return true, err // its event wrote the key before
	}
	if !sp.latest(n) && (old.written || old.floored || sp.conflicts > 0) {
		return true, t.merge(sp, n, p, old)
	}
	k := old
	k.written, k.live, k.at, k.value, k.meta = true, true, p.at, p.op.Value, encodeMeta(p.op.Metadata)
	if err := t.endConflicts(sp, p.op.Key); err != nil {
		return true, err
	}
	return true, t.saveKey(sp, p.op.Key, old, k)
}

func (t *tx) applyDelete(sp *space, n *node, p kvOp, many bool) (counts bool, err error) {
	if v := p.op.Version; v != nil {
		event, ok, err := t.named(sp, n, p.at.Index, p.op)
		if err != nil {
			return false, err
		}
		if !ok {
			return false, t.setValid(n.eid, int64(p.at.Index), p.n, false)
		}
		many, err = t.standsTwice(sp, event, many)
		if err != nil {
			return false, err
		}
	}
	old, err := t.keyRow(sp, p.op.Key)
	if err != nil {
		return false, err
	}
	if many || p.op.Version == nil || !old.written || !sp.latest(n) {
		if err := t.refold(sp, p.op.Key); err != nil {
			return false, err
		}
		_, err = t.one([]any{&counts}, "SELECT valid FROM ops WHERE eid = ? AND idx = ? AND n = ?", n.eid, int64(p.at.Index), p.n)
		return counts, err
	}
	k := old
	k.live, k.floored, k.floor = false, true, k.at
	if err := t.endConflicts(sp, p.op.Key); err != nil {
		return true, err
	}
	return true, t.saveKey(sp, p.op.Key, old, k)
}

// standsTwice reports whether an event stands in several places, or was found to be.
func (t *tx) standsTwice(sp *space, event tinycloud.Hash, found bool) (bool, error) {
	if found {
		return true, nil
	}
	var places int
	_, err := t.one([]any{&places}, "SELECT count(*) FROM events WHERE sid = ? AND id = ?", sp.sid, event[:])
	return places > 1, err
}

func (t *tx) setValid(eid, idx int64, n int, valid bool) error {
	return t.exec("UPDATE ops SET valid = ? WHERE eid = ? AND idx = ? AND n = ?", valid, eid, idx, n)
}

// latest reports whether all that is stored of the Space is in the past of an epoch that was just added.
func (sp *space) latest(n *node) bool {
	for i, b := range sp.branches {
		if b.tip != nil && b.tip != n && !n.past.Has(judge.Spot{Branch: uint32(i), N: b.n}) {
			return false
		}
	}
	for i, c := range sp.chains {
		if c.tip != n && !n.past.Has(judge.Spot{Branch: uint32(chainBase + i), N: c.n}) {
			return false
		}
	}
	return true
}

// named returns the event of the write that a delete at a place names; ok is false when that is no write to the key in
// its causal past, at the seq that it says.
func (t *tx) named(sp *space, n *node, index uint64, op dag.Op) (event tinycloud.Hash, ok bool, err error) {
	v := *op.Version
	target, err := t.node(sp, v.Epoch)
	if err != nil || target == nil || target.seq != v.Seq || v.Index > dag.MaxEvents {
		return event, false, err
	}
	if target != n && !target.before(n.past) || target == n && v.Index >= index {
		return event, false, nil
	}
	var id []byte
	ok, err = t.one([]any{&id}, `SELECT e.id FROM ops o JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		WHERE o.eid = ? AND o.idx = ? AND o.key = ? AND o.service = 'kv' AND o.removes = 0`, target.eid, int64(v.Index), t.s.key(op.Key))
	copy(event[:], id)
	return event, ok, err
}

// newestWrite returns a place, in a causal past, of the greatest valid write to a key there; nil without one.
func (t *tx) newestWrite(sp *space, past judge.Clock, key string) (*Position, error) {
	f, err := t.readKey(sp, key)
	if err != nil {
		return nil, err
	}
	for _, w := range f.writes {
		for _, o := range w.places {
			if past.Has(o.spot) {
				return &o.at, nil
			}
		}
	}
	return nil, nil
}

// merge folds a write that not all of its key is in the past of, by what the key's row and its conflicts name.
func (t *tx) merge(sp *space, n *node, p kvOp, old keyState) error {
	rivals, plain, err := t.rivals(sp, p.op.Key, old)
	if err != nil {
		return err
	}
	if !plain {
		return t.refold(sp, p.op.Key)
	}
	w := &keyWrite{event: p.event, maximal: true, place: &keyOp{opPlace: opPlace{n.eid, int64(p.at.Index), p.n}, rank: rank{n.age, p.at}}}
	k, wins := old, true
	var left []*keyWrite
	for _, r := range rivals {
		seen := n.sees(p.at.Index, r.place)
		if r.place.at == old.at {
			wins = seen || w.place.rank.compare(r.place.rank) > 0
		}
		if !seen {
			left = append(left, r)
		}
	}
	if !old.written || wins {
		k.written, k.live, k.at, k.value, k.meta = true, true, p.at, p.op.Value, encodeMeta(p.op.Metadata)
		if k.live, err = t.above(sp, n, p.at.Index, w.place.rank, old); err != nil {
			return err
		}
	}
	left = append(left, w)
	left = slices.DeleteFunc(left, func(x *keyWrite) bool { return k.live && x.place.at == k.at || !x.maximal })
	return t.saveFold(sp, p.op.Key, old, k, left)
}

// above reports whether a write is above the floor of its key.
func (t *tx) above(sp *space, n *node, index uint64, r rank, k keyState) (bool, error) {
	if !k.floored {
		return true, nil
	}
	floor, err := t.node(sp, k.floor.Epoch)
	if err != nil || floor == nil {
		return true, firstOf(err, fmt.Errorf("epoch %s is lost: %w", k.floor.Epoch, tinycloud.ErrUnavailable))
	}
	if floor == n {
		return k.floor.Index < index, nil
	}
	return floor.before(n.past) || r.compare(rank{floor.age, k.floor}) > 0, nil
}

// saveFold stores the fold of a key and its conflicts, these first: a value that the key lets go of may be one of them.
func (t *tx) saveFold(sp *space, key string, old, k keyState, conflicts []*keyWrite) error {
	if err := t.saveConflicts(sp, key, conflicts); err != nil {
		return err
	}
	return t.saveKey(sp, key, old, k)
}
