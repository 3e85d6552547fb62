package capstore

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// inSpace is a transaction in one Space as a service sees it.
type inSpace struct {
	t       *tx
	sp      *space
	service string
	epoch   *node            // that is being placed or judged, if one is
	past    judge.Clock      // of an epoch that is being made
	flips   []flip           // verdicts that the service changed
	current []tinycloud.Hash // values that rows hold since, by the service's word
}

var _ service.Tx = (*inSpace)(nil)

func (t *tx) in(sp *space, service string) *inSpace { return &inSpace{t: t, sp: sp, service: service} }

// at is the same at the place of an epoch.
func (t *tx) at(sp *space, n *node, service string) *inSpace {
	return &inSpace{t: t, sp: sp, service: service, epoch: n}
}

func (x *inSpace) Now() time.Time           { return x.t.now }
func (x *inSpace) Space() tinycloud.SpaceID { return x.sp.id }
func (x *inSpace) Sid() int64               { return x.sp.sid }

func (x *inSpace) Memory(load func() (any, error)) (any, error) {
	if m, ok := x.sp.memory[x.service]; ok {
		return m, nil
	}
	m, err := load()
	if err == nil {
		x.sp.memory[x.service] = m
	}
	return m, err
}

func (x *inSpace) Forget() { x.t.outdate(x.sp, x.service) }

func (x *inSpace) State(subject string) (state []byte, err error) {
	l := service.StateOf(x.sp.sid, x.service, subject)
	_, err = x.t.look([]any{&state}, l.Look, l.Args...)
	return state, err
}

func (x *inSpace) SetState(subject string, state []byte) error {
	id := tinycloud.Sum([]byte(subject))
	if len(state) == 0 {
		return x.Exec("DELETE FROM states WHERE sid = ? AND service = ? AND id = ?", x.sp.sid, x.service, id[:])
	}
	return x.Add(db.Insert{Into: "states", Columns: "sid service id subject state", Key: "sid service id", Replace: true},
		x.sp.sid, x.service, id[:], []byte(subject), state)
}

func (x *inSpace) Key(subject string) (indexed, whole any) { return x.t.s.db.Key(subject) }

func (x *inSpace) One(dest []any, query string, args ...any) (bool, error) {
	return x.t.one(dest, query, args...)
}

func (x *inSpace) Look(dest []any, l service.Look, args ...any) (bool, error) {
	return x.t.look(dest, l, args...)
}

func (x *inSpace) Each(f func(db.Scan) error, query string, args ...any) error {
	return x.t.each(f, query, args...)
}

func (x *inSpace) Exec(query string, args ...any) error {
	x.t.touch(x.sp)
	return x.t.exec(query, args...)
}

func (x *inSpace) Add(i db.Insert, args ...any) error {
	x.t.touch(x.sp)
	return x.t.add(i, args...)
}

// order is the place of an operation in the order of writes.
type order struct {
	age  judge.Age
	at   Position
	spot judge.Spot // of the epoch's first entry here: all that follow it name that
	node *node      // nil until it is asked for
}

func (o *order) Compare(other service.Order) int {
	q := other.(*order)
	return cmp.Or(o.age.Compare(q.age), o.at.Compare(q.at))
}

func orderOf(n *node, index uint64) *order {
	return &order{age: n.age, at: Position{Seq: n.seq, Epoch: n.id, Index: index}, node: n}
}

// within reports whether an epoch with a past has the place in it.
func (o *order) within(past judge.Clock) bool {
	if o.node != nil {
		return o.node.before(past)
	}
	return past.Has(o.spot)
}

func (x *inSpace) Order(at Position) (service.Order, error) {
	n, err := x.t.node(x.sp, at.Epoch)
	if err != nil || n == nil || n.seq != at.Seq || at.Index > math.MaxInt32 {
		return nil, err // untyped
	}
	return orderOf(n, at.Index), nil
}

func (x *inSpace) OrderAt(row int64, index uint64) (service.Order, error) {
	n, err := x.t.nodeBy(x.sp, "eid = ?", row)
	if err != nil || n == nil {
		return nil, err // untyped
	}
	return orderOf(n, index), nil
}

func (x *inSpace) Sees(a, b service.Order) (bool, error) {
	o, q := a.(*order), b.(*order)
	switch {
	case o.at.Epoch == q.at.Epoch:
		return q.at.Index < o.at.Index, nil
	case o.at.Seq <= q.at.Seq:
		return false, nil
	}
	n, err := x.nodeOf(o)
	if err != nil || n == nil {
		return false, err
	}
	return q.within(n.past), nil
}

func (x *inSpace) nodeOf(o *order) (*node, error) {
	if o.node != nil {
		return o.node, nil
	}
	n, err := x.t.node(x.sp, o.at.Epoch)
	o.node = n
	return n, err
}

func (x *inSpace) Follows(o service.Order) bool { return o.(*order).within(x.past) }

func (x *inSpace) Newest() bool { return x.sp.latest(x.epoch) }

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

func (x *inSpace) Operations(name string, f func(service.Placed) error) error {
	list, err := x.operations(name, "o.bytes", "o.valid = 1", " ORDER BY p.written, p.seq, p.id, o.idx, o.n")
	for _, p := range list {
		if err == nil {
			err = f(p)
		}
	}
	return err
}

func (x *inSpace) Candidates(name string) ([]service.Placed, error) {
	return x.operations(name, "CASE WHEN o.removes = 1 THEN o.bytes END", "e.valid = 1", "")
}

// operations are those on a subject that meet a condition, without those that are pending.
func (x *inSpace) operations(name, bytes, which, in string) (list []service.Placed, err error) {
	err = x.t.each(func(scan db.Scan) error {
		p, o := service.Placed{Subject: name}, &order{}
		var written, idx int64
		var begin, epoch, event []byte
		if err := scan(&p.Row, &p.At.Seq, &epoch, &written, &begin, &idx, &p.N, &p.Removes, &p.Bytes, &p.Valid, &event, &o.spot.Branch, &o.spot.N); err != nil {
			return err
		}
		p.Event, p.At.Epoch, p.At.Index = tinycloud.Hash(event), tinycloud.Hash(epoch), uint64(idx)
		o.age, o.at = judge.DecodeAge(written, begin), p.At
		p.Order, p.Written = o, written
		list = append(list, p)
		return nil
	}, "SELECT p.eid, p.seq, p.id, p.written, p.begin_of, o.idx, o.n, o.removes, "+bytes+`, o.valid, e.id, l.branch, l.n
		FROM ops o JOIN epochs p ON p.eid = o.eid JOIN events e ON e.eid = o.eid AND e.idx = o.idx JOIN entries l ON l.eid = o.eid AND l.ord = 0
		WHERE o.sid = ? AND o.key = ? AND o.service = ? AND `+which+`
		AND NOT EXISTS (SELECT 1 FROM pending y WHERE y.eid = o.eid AND y.idx = o.idx AND y.n = o.n)`+in, x.sp.sid, x.t.s.key(name), x.service)
	return list, err
}

func (x *inSpace) OperationsAt(at service.Order, name string) (list []service.Placed, err error) {
	o := at.(*order)
	n, err := x.nodeOf(o)
	if err != nil || n == nil {
		return nil, err
	}
	err = x.t.each(func(scan db.Scan) error {
		p := service.Placed{Subject: name, Row: n.eid, At: o.at, Order: o, Written: n.age.Time}
		var event []byte
		err := scan(&p.N, &p.Removes, &p.Bytes, &p.Valid, &event)
		p.Event = tinycloud.Hash(event)
		list = append(list, p)
		return err
	}, `SELECT o.n, o.removes, o.bytes, o.valid, e.id FROM ops o JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		WHERE o.eid = ? AND o.idx = ? AND o.key = ? AND o.service = ? ORDER BY o.n`, n.eid, int64(o.at.Index), x.t.s.key(name), x.service)
	return list, err
}

func (x *inSpace) EventAt(at service.Order) (p service.Placed, places int, ok bool, err error) {
	o := at.(*order)
	n, err := x.nodeOf(o)
	if err != nil || n == nil {
		return p, 0, false, err
	}
	p = service.Placed{Row: n.eid, At: o.at, Order: o, Written: n.age.Time}
	var event []byte
	ok, err = x.t.one([]any{&event, &places}, `SELECT e.id, (SELECT count(*) FROM events x WHERE x.sid = e.sid AND x.id = e.id)
		FROM events e WHERE e.eid = ? AND e.idx = ?`, n.eid, int64(o.at.Index))
	copy(p.Event[:], event)
	return p, places, ok, err
}

func (x *inSpace) Places(event tinycloud.Hash) (int, error) { return x.t.places(x.sp.sid, event) }

// places is in how many places an event stands.
func (t *tx) places(sid int64, event tinycloud.Hash) (n int, err error) {
	_, err = t.look([]any{&n}, lookEvents, sid, event[:])
	return n, err
}

func (x *inSpace) Ended(p service.Placed) (bool, error) {
	n, err := x.t.nodeBy(x.sp, "eid = ?", p.Row)
	if err != nil || n == nil {
		return false, err
	}
	rows, err := x.t.entriesOf(n)
	for _, r := range rows {
		if r.is == entryValid && !x.sp.dated(r, n).Ended {
			return false, nil
		}
	}
	return err == nil, err
}

func (x *inSpace) Bytes(p service.Placed) (b []byte, err error) {
	ok, err := x.t.one([]any{&b}, "SELECT bytes FROM ops WHERE eid = ? AND idx = ? AND n = ?", p.Row, int64(p.At.Index), p.N)
	if err == nil && !ok {
		err = fmt.Errorf("operation of epoch %s is lost: %w", p.At.Epoch, tinycloud.ErrUnavailable)
	}
	return b, err
}

func (x *inSpace) SetValid(p service.Placed, valid bool) error {
	x.flips = append(x.flips, flip{opPlace{p.Row, int64(p.At.Index), p.N}, valid})
	return x.t.setValid(p.Row, int64(p.At.Index), p.N, valid)
}

func (t *tx) setValid(eid, idx int64, n int, valid bool) error {
	return t.exec("UPDATE ops SET valid = ? WHERE eid = ? AND idx = ? AND n = ?", valid, eid, idx, n)
}

func (x *inSpace) Older() (bool, error) { return x.t.unserved(x.sp) }

func (x *inSpace) Spoken() (uint64, error) { return x.t.spoken(x.sp, x.service) }

func (x *inSpace) Waits(name string) (bool, error) {
	return x.t.waits(x.sp, subject{x.service, name})
}

func (x *inSpace) Hold(value tinycloud.Hash, current bool) error {
	if current {
		x.current = append(x.current, value)
		return x.t.want(x.sp, value)
	}
	return x.t.wantAlso(x.sp, value)
}

func (x *inSpace) Release(value tinycloud.Hash, current bool) error {
	x.current = slices.DeleteFunc(x.current, func(h tinycloud.Hash) bool { return h == value })
	if !current { // it is past from now on, if nothing holds it
		if err := x.Exec("UPDATE past SET since = ? WHERE sid = ? AND hash = ?", x.t.now.UnixMilli(), x.sp.sid, value[:]); err != nil {
			return err
		}
	}
	return x.t.release(x.sp, value)
}
