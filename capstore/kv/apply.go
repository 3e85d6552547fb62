package kv

import (
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// keyState is the fold of a key's operations: the greatest write, and the floor up to which writes are
// deleted. The key lives iff the write is above the floor and no delete names it.
type keyState struct {
	stored  bool // there is a row
	written bool
	live    bool
	at      service.Position
	value   tinycloud.Hash
	meta    []byte
	floored bool
	floor   service.Position
	pending bool // an operation on it is, so that what it holds is not known
}

// lookKey is the row of a key.
var lookKey = service.Look{Table: "kv", By: "sid key", Select: "live, seq, epoch, idx, value, meta, f_seq, f_epoch, f_idx, pending"}

// intoKeys is the row of a key; intoNewKeys that of one that has none yet: it may wait for others like it.
var (
	intoNewKeys = db.Insert{Into: "kv", Columns: "sid key whole live seq epoch idx value meta f_seq f_epoch f_idx pending"}
	intoKeys    = db.Insert{Into: "kv", Columns: intoNewKeys.Columns, Key: "sid key", Replace: true}
)

// keyRow reads the fold of a key.
func (f folder) keyRow(key string) (k keyState, err error) {
	var seq, idx, fSeq, fIdx int64
	var epoch, value, fEpoch []byte
	ok, err := f.Look([]any{&k.live, &seq, &epoch, &idx, &value, &k.meta, &fSeq, &fEpoch, &fIdx, &k.pending}, lookKey, f.Sid(), f.key(key))
	if err != nil || !ok {
		return k, err
	}
	k.stored = true
	if seq >= 0 {
		k.written, k.at, k.value = true, service.Position{Seq: uint64(seq), Epoch: tinycloud.Hash(epoch), Index: uint64(idx)}, tinycloud.Hash(value)
	}
	if fSeq >= 0 {
		k.floored, k.floor = true, service.Position{Seq: uint64(fSeq), Epoch: tinycloud.Hash(fEpoch), Index: uint64(fIdx)}
	}
	return k, nil
}

// saveKey stores the fold of a key, no row for one that no operation counts for any more, and frees the value it held
// before.
func (f folder) saveKey(key string, old, k keyState) error {
	if !k.written && !k.floored && !k.pending {
		err := f.Exec("DELETE FROM kv WHERE sid = ? AND kv.key = ?", f.Sid(), f.key(key))
		if err != nil || !old.live {
			return err
		}
		return f.Release(old.value, true)
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
	indexed, whole := f.Key(key)
	into := intoKeys
	if !old.stored {
		into = intoNewKeys
	}
	err := f.Add(into,
		f.Sid(), indexed, whole, k.live, seq, k.at.Epoch[:], int64(k.at.Index), k.value[:], meta, fSeq, k.floor.Epoch[:], int64(k.floor.Index), k.pending)
	if err == nil && k.live {
		err = f.Hold(k.value, true)
	}
	if err != nil || !old.live || k.live && k.value == old.value {
		return err
	}
	return f.Release(old.value, true)
}

// apply folds one valid operation of a new epoch. many says that its event stands elsewhere too, so that it may count
// at another place. It reports whether the operation counts: a delete of nothing is void.
//
// Nearly always all that is known is in the new operation's past, and the key's row tells enough. What is concurrent is
// compared with what the row and the conflicts of the key name, or all operations of the key are looked at.
func (f folder) apply(p placed, many bool) (counts bool, err error) {
	if p.op.Delete {
		return f.applyDelete(p, many)
	}
	if many {
		_, err := f.foldKey(p.op.Key)
		return true, err
	}
	old, err := f.keyRow(p.op.Key)
	if err != nil || old.written && old.at == p.At {
		return true, err // its event wrote the key before
	}
	if !f.Newest() {
		some, err := f.someConflicts()
		if err != nil {
			return true, err
		}
		if old.written || old.floored || some {
			return true, f.merge(p, old)
		}
	}
	k := old
	k.write(p.At, p.op)
	k.live = true
	if err := f.endConflicts(p.op.Key); err != nil {
		return true, err
	}
	return true, f.saveKey(p.op.Key, old, k)
}

// write makes an operation the greatest write.
func (k *keyState) write(at service.Position, op dag.Op) {
	k.written, k.at, k.value, k.meta = true, at, op.Value, encodeMeta(op.Metadata)
}

func (f folder) applyDelete(p placed, many bool) (counts bool, err error) {
	if p.op.Version != nil {
		event, ok, err := f.named(p)
		if err != nil || !ok {
			return false, err
		}
		if !many {
			places, err := f.Places(event)
			if err != nil {
				return false, err
			}
			many = places > 1
		}
	}
	old, err := f.keyRow(p.op.Key)
	if err != nil {
		return false, err
	}
	if many || p.op.Version == nil || !old.written || !f.Newest() {
		void, err := f.foldKey(p.op.Key)
		return !slices.ContainsFunc(void, p.Is), err
	}
	k := old
	k.live, k.floored, k.floor = false, true, k.at
	if err := f.endConflicts(p.op.Key); err != nil {
		return true, err
	}
	return true, f.saveKey(p.op.Key, old, k)
}

// named returns the event of the write that a delete names; ok is false when that is no write to the key in its causal
// past, at the seq that it says.
func (f folder) named(p placed) (event tinycloud.Hash, ok bool, err error) {
	v := *p.op.Version
	target, err := f.Order(service.Position{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index})
	if err != nil || target == nil {
		return event, false, err
	}
	if sees, err := f.Sees(p.Order, target); err != nil || !sees {
		return event, false, err
	}
	w, ok, err := f.writeAt(target, p.op.Key)
	return w.Event, ok, err
}

// writeAt returns the first write to a key by the event at a place.
func (f folder) writeAt(at service.Order, key string) (w service.Placed, ok bool, err error) {
	ops, err := f.OperationsAt(at, key)
	for _, o := range ops {
		if !o.Removes {
			return o, true, err
		}
	}
	return w, false, err
}

// newestWrite returns a place, in the past of the epoch that is being made, of the greatest valid write to a key there;
// nil without one.
func (f folder) newestWrite(key string) (*service.Position, error) {
	all, err := f.readKey(key)
	if err != nil {
		return nil, err
	}
	for _, w := range all.writes {
		for _, o := range w.places {
			if f.Follows(o.Order) {
				return &o.At, nil
			}
		}
	}
	return nil, nil
}

// merge folds a write that not all of its key is in the past of, by what the key's row and its conflicts name.
func (f folder) merge(p placed, old keyState) error {
	rivals, plain, err := f.rivals(p.op.Key, old)
	if err != nil {
		return err
	}
	if !plain {
		_, err := f.foldKey(p.op.Key)
		return err
	}
	w := &keyWrite{event: p.Event, maximal: true, place: &p.Placed}
	k, wins := old, true
	var left []*keyWrite
	for _, r := range rivals {
		seen, err := f.Sees(p.Order, r.place.Order)
		if err != nil {
			return err
		}
		if r.place.At == old.at {
			wins = seen || p.Order.Compare(r.place.Order) > 0
		}
		if !seen {
			left = append(left, r)
		}
	}
	if !old.written || wins {
		k.write(p.At, p.op)
		if k.live, err = f.above(p, old); err != nil {
			return err
		}
	}
	left = append(left, w)
	left = slices.DeleteFunc(left, func(x *keyWrite) bool { return k.live && x.place.At == k.at || !x.maximal })
	return f.saveFold(p.op.Key, old, k, left)
}

// above reports whether a write is above the floor of its key.
func (f folder) above(p placed, k keyState) (bool, error) {
	if !k.floored {
		return true, nil
	}
	floor, err := f.Order(k.floor)
	if err != nil {
		return true, err
	}
	if floor == nil {
		return true, fmt.Errorf("epoch %s is lost: %w", k.floor.Epoch, tinycloud.ErrUnavailable)
	}
	if sees, err := f.Sees(p.Order, floor); err != nil || sees {
		return true, err
	}
	return p.Order.Compare(floor) > 0, nil
}

// saveFold stores the fold of a key and its conflicts, these first: a value that the key lets go of may be one of them.
func (f folder) saveFold(key string, old, k keyState, conflicts []*keyWrite) error {
	if err := f.saveConflicts(key, conflicts); err != nil {
		return err
	}
	return f.saveKey(key, old, k)
}
