package capstore

import (
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// placedOp is a valid operation at its place in the order.
type placedOp struct {
	op    dag.Op
	at    Position
	n     int // within its event
	event tinycloud.Hash
}

// keyState is the fold of a key's operations: the greatest write, and the floor up to which writes are
// deleted. The key lives iff the write is above the floor.
type keyState struct {
	written bool
	live    bool
	at      Position
	value   tinycloud.Hash
	meta    []byte
	floored bool
	floor   Position
}

func (k *keyState) settle() { k.live = k.written && (!k.floored || k.at.Compare(k.floor) > 0) }

// keyRow reads the fold of a key.
func (t *tx) keyRow(sp *space, key string) (k keyState, err error) {
	var seq, idx, fSeq, fIdx int64
	var epoch, value, fEpoch []byte
	ok, err := t.one([]any{&k.live, &seq, &epoch, &idx, &value, &k.meta, &fSeq, &fEpoch, &fIdx},
		"SELECT live, seq, epoch, idx, value, meta, f_seq, f_epoch, f_idx FROM kv k WHERE k.sid = ? AND k.key = ?", sp.sid, t.s.key(key))
	if err != nil || !ok {
		return k, err
	}
	if seq >= 0 {
		k.written, k.at, k.value = true, Position{uint64(seq), tinycloud.Hash(epoch), uint64(idx)}, tinycloud.Hash(value)
	}
	if fSeq >= 0 {
		k.floored, k.floor = true, Position{uint64(fSeq), tinycloud.Hash(fEpoch), uint64(fIdx)}
	}
	return k, nil
}

// saveKey stores the fold of a key, no row for one that no operation counts for any more, and frees the value it held
// before.
func (t *tx) saveKey(sp *space, key string, old, k keyState) error {
	if !k.written && !k.floored {
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
	err := t.add(db.Insert{Into: "kv", Columns: "sid key whole live seq epoch idx value meta f_seq f_epoch f_idx", Key: "sid key", Replace: true},
		sp.sid, indexed, whole, k.live, seq, k.at.Epoch[:], int64(k.at.Index), k.value[:], meta, fSeq, k.floor.Epoch[:], int64(k.floor.Index))
	if err == nil && k.live {
		err = t.want(sp, k.value)
	}
	if err != nil || !old.live || k.live && k.value == old.value {
		return err
	}
	return t.release(sp, old.value)
}

// want notes a current value that is not here.
func (t *tx) want(sp *space, hash tinycloud.Hash) error {
	if held, err := t.holds(sp, hash); err != nil {
		return err
	} else if held {
		return t.revive(sp, hash)
	}
	return t.lack(sp, hash)
}

// lack notes a value that is to be fetched.
func (t *tx) lack(sp *space, hash tinycloud.Hash) error {
	t.touch(sp).Wants++
	return t.add(db.Insert{Into: "wants", Columns: "sid hash", Key: "sid hash"}, sp.sid, hash[:])
}

// unwant forgets that a value is to be fetched.
func (t *tx) unwant(sp *space, hash tinycloud.Hash) error {
	return t.exec("DELETE FROM wants WHERE sid = ? AND hash = ?", sp.sid, hash[:])
}

// fold stores the operations of an event and applies the valid ones. So many operations of the epoch came
// before.
func (t *tx) fold(sp *space, n *node, i int, e *event, valid bool, before int, p *parsed) error {
	many := false
	if len(e.ops) > 0 && (!p.local || sp.forking) {
		var others int
		if _, err := t.one([]any{&others}, "SELECT count(*) FROM events WHERE sid = ? AND id = ? AND eid <> ?", sp.sid, e.id[:], n.eid); err != nil {
			return err
		}
		many = others > 0
	}
	twice := slices.ContainsFunc(p.events[:i], func(o event) bool { return o.id == e.id })
	keeps := false
	if len(e.ops) > 0 && !p.local {
		var err error
		if keeps, err = t.keeps(sp); err != nil {
			return err
		}
	}
	for k, op := range e.ops {
		err := t.add(db.Insert{Into: "ops", Columns: "eid idx n sid key removes bytes valid"},
			n.eid, i, k, sp.sid, t.s.key(op.Key), op.Delete, e.raw[k], valid)
		if err != nil {
			return err
		}
		if err := t.keep(sp, op, p); err != nil {
			return err
		}
		if keeps && !op.Delete {
			if err := t.wantAlso(sp, op.Value); err != nil {
				return err
			}
		}
		if valid {
			o := placedOp{op: op, at: Position{Seq: n.seq, Epoch: n.id, Index: uint64(i)}, n: k, event: e.id}
			if err := t.foldOp(sp, n, e, o, before+k, many, twice, p); err != nil {
				return err
			}
		}
		if !op.Delete && !p.local && p.values[op.Value] != nil {
			if err := t.release(sp, op.Value); err != nil { // it came along and may be past
				return err
			}
		}
	}
	return nil
}

// foldOp applies a valid operation and announces it. many says that its event stands in other epochs too, twice that it
// stood in this one before.
func (t *tx) foldOp(sp *space, n *node, e *event, o placedOp, index int, many, twice bool, p *parsed) error {
	counts, err := t.apply(sp, n, o, many || twice)
	if err != nil || !counts {
		return err
	}
	return t.announceNew(sp, n, e, o, t.change(sp, n, e, o.op, index, p.Entry.At), many || twice)
}

// keep stores a small value that came with its operation.
func (t *tx) keep(sp *space, op dag.Op, p *parsed) error {
	b, ok := p.values[op.Value]
	if op.Delete || !ok {
		return nil
	}
	return t.saveValue(sp, op.Value, int64(len(b)), b)
}

// apply folds one valid operation. many says that its event stands elsewhere too, so that it may count
// at another place. It reports whether the operation counts: a delete of nothing is void.
func (t *tx) apply(sp *space, n *node, p placedOp, many bool) (counts bool, err error) {
	if !p.op.Delete {
		if many {
			return true, t.refold(sp, p.op.Key)
		}
		k, err := t.keyRow(sp, p.op.Key)
		if err != nil || (k.written && k.at.Compare(p.at) >= 0) {
			return true, err
		}
		old := k
		k.written, k.at, k.value, k.meta = true, p.at, p.op.Value, encodeMeta(p.op.Metadata)
		k.settle()
		return true, t.saveKey(sp, p.op.Key, old, k)
	}
	floor, named, err := t.deleted(sp, n, p)
	if err != nil {
		return false, err
	}
	if floor == nil {
		return false, t.exec("UPDATE ops SET valid = 0 WHERE eid = ? AND idx = ? AND n = ?", n.eid, int64(p.at.Index), p.n)
	}
	var places int
	if _, err := t.one([]any{&places}, "SELECT count(*) FROM events WHERE sid = ? AND id = ?", sp.sid, named[:]); err != nil {
		return false, err
	}
	if many || places > 1 {
		return true, t.refold(sp, p.op.Key)
	}
	k, err := t.keyRow(sp, p.op.Key)
	if err != nil || (k.floored && k.floor.Compare(*floor) >= 0) {
		return true, err
	}
	old := k
	k.floored, k.floor = true, *floor
	k.settle()
	return true, t.saveKey(sp, p.op.Key, old, k)
}

// deleted returns the place and the event of the write that a delete removes; nil when it names none
// of its causal past.
func (t *tx) deleted(sp *space, n *node, p placedOp) (*Position, tinycloud.Hash, error) {
	if p.op.Version == nil {
		return t.newestWrite(sp, n, p)
	}
	v := *p.op.Version
	target, err := t.node(sp, v.Epoch)
	if err != nil || target == nil || target.seq != v.Seq || v.Index > dag.MaxEvents {
		return nil, tinycloud.Hash{}, err
	}
	if target != n && !target.before(n.past) || target == n && v.Index >= p.at.Index {
		return nil, tinycloud.Hash{}, nil
	}
	var event []byte
	ok, err := t.one([]any{&event}, `SELECT e.id FROM ops o JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		WHERE o.eid = ? AND o.idx = ? AND o.key = ? AND o.removes = 0`, target.eid, int64(v.Index), t.s.key(p.op.Key))
	if err != nil || !ok {
		return nil, tinycloud.Hash{}, err
	}
	return &Position{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}, tinycloud.Hash(event), nil
}

// newestWrite returns the greatest valid write to a key in the causal past of a delete.
func (t *tx) newestWrite(sp *space, n *node, p placedOp) (*Position, tinycloud.Hash, error) {
	writes, err := t.keyOps(sp, p.op.Key)
	if err != nil {
		return nil, tinycloud.Hash{}, err
	}
	var best *placedOp
	for i := range writes {
		w := &writes[i]
		if w.op.Delete || (best != nil && w.at.Compare(best.at) < 0) {
			continue
		}
		target, err := t.node(sp, w.at.Epoch)
		if err != nil {
			return nil, tinycloud.Hash{}, err
		}
		if target.before(n.past) || (target.id == n.id && w.at.Index < p.at.Index) {
			best = w
		}
	}
	if best == nil {
		return nil, tinycloud.Hash{}, nil
	}
	return &best.at, best.event, nil
}

// keyOps returns the valid operations on a key, in order.
func (t *tx) keyOps(sp *space, key string) ([]placedOp, error) {
	var out []placedOp
	err := t.each(func(scan func(...any) error) error {
		var p placedOp
		var epoch, event, b []byte
		if err := scan(&p.at.Seq, &epoch, &p.at.Index, &p.n, &event, &b); err != nil {
			return err
		}
		op, err := dag.DecodeOp(b)
		if err != nil {
			return fmt.Errorf("stored operation: %w", err)
		}
		p.op, p.at.Epoch, p.event = op, tinycloud.Hash(epoch), tinycloud.Hash(event)
		out = append(out, p)
		return nil
	}, `SELECT p.seq, p.id, o.idx, o.n, e.id, o.bytes FROM ops o JOIN epochs p ON p.eid = o.eid
		JOIN events e ON e.eid = o.eid AND e.idx = o.idx WHERE o.sid = ? AND o.key = ? AND o.valid = 1`, sp.sid, t.s.key(key))
	slices.SortFunc(out, func(a, b placedOp) int { return a.at.Compare(b.at) })
	return out, err
}

// refold computes a key's fold from all its valid operations.
func (t *tx) refold(sp *space, key string) error {
	ops, err := t.keyOps(sp, key)
	if err != nil {
		return err
	}
	old, err := t.keyRow(sp, key)
	if err != nil {
		return err
	}
	var k keyState
	counted, dead := map[tinycloud.Hash]bool{}, map[tinycloud.Hash]bool{}
	for _, p := range ops {
		if !p.op.Delete {
			continue
		}
		n, err := t.node(sp, p.at.Epoch)
		if err != nil {
			return err
		}
		floor, event, err := t.deleted(sp, n, p)
		if err != nil {
			return err
		}
		if floor == nil {
			continue
		}
		dead[event] = true
		if !k.floored || floor.Compare(k.floor) > 0 {
			k.floored, k.floor = true, *floor
		}
	}
	killed := false
	for _, p := range ops { // ascending: an event counts at its least place
		if p.op.Delete || counted[p.event] {
			continue
		}
		counted[p.event] = true
		k.written, k.at, k.value, k.meta = true, p.at, p.op.Value, encodeMeta(p.op.Metadata)
		killed = dead[p.event]
	}
	k.settle()
	k.live = k.live && !killed
	return t.saveKey(sp, key, old, k)
}
