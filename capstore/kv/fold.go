package kv

import (
	"cmp"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// keyWrite is a write to a key, at its valid places.
type keyWrite struct {
	event   tinycloud.Hash
	places  []*service.Placed
	place   *service.Placed // where it counts: the least
	dead    bool            // a delete names it
	maximal bool            // no other operation on the key has it in its past
}

// keyFold is a key's operations.
type keyFold struct {
	folder
	writes  []*keyWrite // the greatest first
	deletes []*service.Placed
}

// readKey reads the operations on a key whose events are valid.
func (f folder) readKey(key string) (*keyFold, error) {
	ops, err := f.Candidates(key)
	if err != nil {
		return nil, err
	}
	all := &keyFold{folder: f}
	writes := map[tinycloud.Hash]*keyWrite{}
	for i := range ops {
		o := &ops[i]
		if o.Removes {
			all.deletes = append(all.deletes, o)
			continue
		}
		w := writes[o.Event]
		if w == nil {
			w = &keyWrite{event: o.Event}
			writes[o.Event], all.writes = w, append(all.writes, w)
		}
		w.places = append(w.places, o)
	}
	for _, w := range all.writes {
		w.place = slices.MinFunc(w.places, func(a, b *service.Placed) int { return cmp.Or(a.Order.Compare(b.Order), cmp.Compare(a.N, b.N)) })
	}
	slices.SortFunc(all.writes, func(a, b *keyWrite) int { return b.place.Order.Compare(a.place.Order) })
	return all, nil
}

// foldKey computes a key's fold from all its operations. It returns the deletes that are void now and were not.
func (f folder) foldKey(key string) (void []service.Placed, err error) {
	all, err := f.readKey(key)
	if err != nil {
		return nil, err
	}
	old, err := f.keyRow(key)
	if err != nil {
		return nil, err
	}
	if void, err = all.judgeDeletes(); err != nil {
		return nil, err
	}
	var k keyState
	if err := all.findFloor(&k); err != nil {
		return nil, err
	}
	if k.pending, err = f.Waits(key); err != nil {
		return nil, err
	}
	if len(all.writes) > 0 {
		w := all.writes[0]
		op, err := f.opAt(w.place)
		if err != nil {
			return nil, err
		}
		k.write(w.place.At, op)
		k.live = !w.dead && (!k.floored || !all.reaches(k.floor, w))
	}
	if err := all.findMaximal(); err != nil {
		return nil, err
	}
	var conflicts []*keyWrite
	for _, w := range all.writes {
		if w.maximal && !(k.live && w.place.At == k.at) {
			conflicts = append(conflicts, w)
		}
	}
	return void, f.saveFold(key, old, k, conflicts)
}

// reaches reports whether a floor is at or above a write: it is the place of one of the writes.
func (f *keyFold) reaches(floor service.Position, w *keyWrite) bool {
	for _, x := range f.writes { // the greatest first
		if x.place.At == floor {
			return true
		}
		if x == w {
			return false
		}
	}
	return false
}

func (f *keyFold) seesAny(a *service.Placed, w *keyWrite) (bool, error) {
	for _, o := range w.places {
		if sees, err := f.Sees(a.Order, o.Order); sees || err != nil {
			return sees, err
		}
	}
	return false, nil
}

// judgeDeletes finds which deletes count and which writes they name. One without a version counts if there is a write in
// its past. It returns those that did and do no more.
func (f *keyFold) judgeDeletes() (void []service.Placed, err error) {
	byPlace := map[service.Position]*keyWrite{}
	for _, w := range f.writes {
		for _, o := range w.places {
			byPlace[o.At] = w
		}
	}
	for _, d := range f.deletes {
		op, err := dag.DecodeOp(d.Bytes)
		if err != nil {
			return nil, fmt.Errorf("stored operation: %w", err)
		}
		if v := op.Version; v != nil {
			named := service.Position{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}
			if w := byPlace[named]; w != nil && d.Valid {
				w.dead = true
			} else if d.Valid {
				err = f.kill(named)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		counts := false
		for _, w := range f.writes {
			if counts, err = f.seesAny(d, w); counts || err != nil {
				break
			}
		}
		if err != nil {
			return nil, err
		}
		if counts == d.Valid {
			continue
		}
		if d.Valid = counts; !counts {
			void = append(void, *d)
		}
		if err := f.SetValid(*d, counts); err != nil {
			return nil, err
		}
	}
	f.deletes = slices.DeleteFunc(f.deletes, func(d *service.Placed) bool { return !d.Valid })
	return void, nil
}

// kill marks the event of a write that counts elsewhere as named by a delete.
func (f *keyFold) kill(at service.Position) error {
	o, err := f.Order(at)
	if err != nil || o == nil {
		return err
	}
	p, _, ok, err := f.EventAt(o)
	for _, w := range f.writes {
		w.dead = w.dead || ok && p.Event == w.event
	}
	return err
}

// findFloor finds up to where writes are deleted: each delete reaches the greatest write in its past.
func (f *keyFold) findFloor(k *keyState) error {
	for _, w := range f.writes {
		for _, d := range f.deletes {
			sees, err := f.seesAny(d, w)
			if err != nil {
				return err
			}
			if sees {
				k.floored, k.floor = true, w.place.At
				return nil
			}
		}
	}
	return nil
}

// findMaximal finds the writes that no other operation on the key has in its past.
func (f *keyFold) findMaximal() error {
	many := map[tinycloud.Hash]bool{} // events that count at several places
	all := slices.Clone(f.deletes)
	seen := map[tinycloud.Hash]bool{}
	for _, w := range f.writes {
		all = append(all, w.places...)
		many[w.event] = len(w.places) > 1
	}
	slices.SortFunc(all, func(a, b *service.Placed) int { return b.At.Compare(a.At) }) // descendants first
	var covers []*service.Placed
	for _, o := range all {
		covered := false // by something that has all in its past that o has
		for _, c := range covers {
			if covered && seen[o.Event] {
				break
			}
			sees, err := f.Sees(c.Order, o.Order)
			if err != nil {
				return err
			}
			if sees {
				seen[o.Event] = seen[o.Event] || c.Event != o.Event
				covered = covered || !many[c.Event]
			}
		}
		if !covered {
			covers = append(covers, o)
		}
	}
	for _, w := range f.writes {
		w.maximal = !seen[w.event]
	}
	return nil
}

// opAt reads an operation.
func (f folder) opAt(p *service.Placed) (op dag.Op, err error) {
	b, err := f.Bytes(*p)
	if err != nil {
		return op, err
	}
	if op, err = dag.DecodeOp(b); err != nil {
		return op, fmt.Errorf("stored operation: %w", err)
	}
	return op, nil
}
