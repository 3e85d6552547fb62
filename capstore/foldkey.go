package capstore

import (
	"cmp"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// rank is a place in the order of writes (docs/replication.md, "Order of operations").
type rank struct {
	age judge.Age
	at  Position
}

func (r rank) compare(q rank) int { return cmp.Or(r.age.Compare(q.age), r.at.Compare(q.at)) }

// keyOp is an operation on a key whose event is valid.
type keyOp struct {
	opPlace
	rank
	event tinycloud.Hash
	spot  judge.Spot // of the epoch's first entry here: all that follow it name that
	raw   []byte     // of a delete
	valid bool
}

// keyWrite is a write to a key, at its valid places.
type keyWrite struct {
	event   tinycloud.Hash
	places  []*keyOp
	place   *keyOp // where it counts: the least
	dead    bool   // a delete names it
	maximal bool   // no other operation on the key has it in its past
}

// keyFold is a key's operations.
type keyFold struct {
	t       *tx
	sp      *space
	writes  []*keyWrite // the greatest first
	deletes []*keyOp
}

// sees reports whether an operation at an index of an epoch has another in its past.
func (n *node) sees(index uint64, o *keyOp) bool {
	if o.at.Epoch == n.id {
		return o.at.Index < index
	}
	return n.past.Has(o.spot)
}

// readKey reads the operations on a key whose events are valid.
func (t *tx) readKey(sp *space, key string) (*keyFold, error) {
	f := &keyFold{t: t, sp: sp}
	writes := map[tinycloud.Hash]*keyWrite{}
	err := t.each(func(scan db.Scan) error {
		o := &keyOp{}
		var written int64
		var begin, epoch, event []byte
		var removes bool
		if err := scan(&o.eid, &o.at.Seq, &epoch, &written, &begin, &o.idx, &o.n, &removes, &o.raw, &o.valid, &event, &o.spot.Branch, &o.spot.N); err != nil {
			return err
		}
		o.age, o.event = judge.DecodeAge(written, begin), tinycloud.Hash(event)
		o.at.Epoch, o.at.Index = tinycloud.Hash(epoch), uint64(o.idx)
		if removes {
			f.deletes = append(f.deletes, o)
			return nil
		}
		w := writes[o.event]
		if w == nil {
			w = &keyWrite{event: o.event}
			writes[o.event], f.writes = w, append(f.writes, w)
		}
		w.places = append(w.places, o)
		return nil
	}, `SELECT p.eid, p.seq, p.id, p.written, p.begin_of, o.idx, o.n, o.removes, CASE WHEN o.removes = 1 THEN o.bytes END, o.valid, e.id, l.branch, l.n
		FROM ops o JOIN epochs p ON p.eid = o.eid JOIN events e ON e.eid = o.eid AND e.idx = o.idx JOIN entries l ON l.eid = o.eid AND l.ord = 0
		WHERE o.sid = ? AND o.key = ? AND o.service = 'kv' AND e.valid = 1
		AND NOT EXISTS (SELECT 1 FROM pending y WHERE y.eid = o.eid AND y.idx = o.idx AND y.n = o.n)`, sp.sid, t.s.key(key))
	for _, w := range f.writes {
		w.place = slices.MinFunc(w.places, func(a, b *keyOp) int { return cmp.Or(a.compare(b.rank), cmp.Compare(a.n, b.n)) })
	}
	slices.SortFunc(f.writes, func(a, b *keyWrite) int { return b.place.compare(a.place.rank) })
	return f, err
}

// flip is a delete whose verdict changed when its key was folded.
type flip struct {
	opPlace
	valid bool
}

// refold computes a key's fold from all its operations.
func (t *tx) refold(sp *space, key string) error {
	_, err := t.foldKey(sp, key)
	return err
}

// foldKey is refold. It returns the deletes whose verdicts changed: of those that name no version.
func (t *tx) foldKey(sp *space, key string) (flips []flip, err error) {
	f, err := t.readKey(sp, key)
	if err != nil {
		return nil, err
	}
	old, err := t.keyRow(sp, key)
	if err != nil {
		return nil, err
	}
	if flips, err = f.judgeDeletes(); err != nil {
		return nil, err
	}
	var k keyState
	if err := f.findFloor(&k); err != nil {
		return nil, err
	}
	if k.pending, err = t.waits(sp, subject{dag.KV, key}); err != nil {
		return nil, err
	}
	if len(f.writes) > 0 {
		w := f.writes[0]
		op, err := t.opAt(w.place.opPlace)
		if err != nil {
			return nil, err
		}
		k.written, k.at, k.value, k.meta = true, w.place.at, op.Value, encodeMeta(op.Metadata)
		k.live = !w.dead && (!k.floored || !f.reaches(k.floor, w))
	}
	if err := f.findMaximal(); err != nil {
		return nil, err
	}
	var conflicts []*keyWrite
	for _, w := range f.writes {
		if w.maximal && !(k.live && w.place.at == k.at) {
			conflicts = append(conflicts, w)
		}
	}
	return flips, t.saveFold(sp, key, old, k, conflicts)
}

// reaches reports whether a floor is at or above a write: it is the place of one of the writes.
func (f *keyFold) reaches(floor Position, w *keyWrite) bool {
	for _, x := range f.writes { // the greatest first
		if x.place.at == floor {
			return true
		}
		if x == w {
			return false
		}
	}
	return false
}

// node returns the epoch of an operation.
func (f *keyFold) node(o *keyOp) (*node, error) { return f.t.node(f.sp, o.at.Epoch) }

// sees reports whether a has b in its past.
func (f *keyFold) sees(a, b *keyOp) (bool, error) {
	if a.at.Seq < b.at.Seq || a.at.Seq == b.at.Seq && a.at.Epoch != b.at.Epoch {
		return false, nil
	}
	n, err := f.node(a)
	if err != nil || n == nil {
		return false, err
	}
	return n.sees(a.at.Index, b), nil
}

func (f *keyFold) seesAny(a *keyOp, w *keyWrite) (bool, error) {
	for _, o := range w.places {
		if sees, err := f.sees(a, o); sees || err != nil {
			return sees, err
		}
	}
	return false, nil
}

// judgeDeletes finds which deletes count and which writes they name. One without a version counts if there is a write in
// its past.
func (f *keyFold) judgeDeletes() (flips []flip, err error) {
	byPlace := map[Position]*keyWrite{}
	for _, w := range f.writes {
		for _, o := range w.places {
			byPlace[o.at] = w
		}
	}
	for _, d := range f.deletes {
		op, err := dag.DecodeOp(d.raw)
		if err != nil {
			return nil, fmt.Errorf("stored operation: %w", err)
		}
		if v := op.Version; v != nil {
			if w := byPlace[Position{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}]; w != nil && d.valid {
				w.dead = true
			} else if d.valid {
				err = f.kill(*v)
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
		if counts != d.valid {
			d.valid = counts
			flips = append(flips, flip{d.opPlace, counts})
			if err := f.t.setValid(d.eid, d.idx, d.n, counts); err != nil {
				return nil, err
			}
		}
	}
	f.deletes = slices.DeleteFunc(f.deletes, func(d *keyOp) bool { return !d.valid })
	return flips, nil
}

// kill marks the event of a write that counts elsewhere as named by a delete.
func (f *keyFold) kill(v dag.Version) error {
	var id []byte
	_, err := f.t.one([]any{&id}, "SELECT e.id FROM epochs p JOIN events e ON e.eid = p.eid WHERE p.sid = ? AND p.id = ? AND e.idx = ?",
		f.sp.sid, v.Epoch[:], int64(v.Index))
	for _, w := range f.writes {
		w.dead = w.dead || string(id) == string(w.event[:])
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
				k.floored, k.floor = true, w.place.at
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
	slices.SortFunc(all, func(a, b *keyOp) int { return b.at.Compare(a.at) }) // descendants first
	var covers []*keyOp
	for _, o := range all {
		covered := false // by something that has all in its past that o has
		for _, c := range covers {
			if covered && seen[o.event] {
				break
			}
			sees, err := f.sees(c, o)
			if err != nil {
				return err
			}
			if sees {
				seen[o.event] = seen[o.event] || c.event != o.event
				covered = covered || !many[c.event]
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
func (t *tx) opAt(p opPlace) (op dag.Op, err error) {
	var b []byte
	if _, err := t.one([]any{&b}, "SELECT bytes FROM ops WHERE eid = ? AND idx = ? AND n = ?", p.eid, p.idx, p.n); err != nil {
		return op, err
	}
	if op, err = dag.DecodeOp(b); err != nil {
		return op, fmt.Errorf("stored operation: %w", err)
	}
	return op, nil
}
