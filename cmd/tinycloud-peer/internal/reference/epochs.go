package reference

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// Bounds of what is tried to find the order that an epoch's id was made of, which the rows do not tell.
const (
	maxPermuted = 6     // parents
	maxRepeated = 65536 // writes kept of events that stand in several epochs
)

// Epoch is an epoch rebuilt from its rows.
type Epoch struct {
	ID      tinycloud.Hash
	Seq     int64
	Exact   bool // the rows give the very bytes whose hash is ID
	Parents []tinycloud.Hash
	Refs    []capstore.EpochEvent // those of its events that are not lost
	hostlog.Imported
	Filtered int // operations that stored request headers no host shows
}

// write is a row of kv_write.
type write struct {
	event tinycloud.Hash
	op    []byte
	key   string
	odd   int
}

// reading is one pass over a Space's epochs.
type reading struct {
	d        *DB
	space    string
	odd      func(Oddity)
	parents  map[tinycloud.Hash][]tinycloud.Hash
	repeated map[tinycloud.Hash][]write // by event
	kept     int
	writes   *sql.Rows
	ahead    struct {
		at    place
		epoch tinycloud.Hash
		w     write
		any   bool
	}
}

type place struct {
	seq   int64
	epoch string
	index int64
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.seq, q.seq), cmp.Compare(p.epoch, q.epoch), cmp.Compare(p.index, q.index))
}

// Epochs calls yield with the epochs of a Space, parents first. The parents of all epochs are in memory
// meanwhile, about 100 bytes for each.
func (d *DB) Epochs(ctx context.Context, space Space, odd func(Oddity), yield func(Epoch) error) (err error) {
	r := &reading{d: d, space: space.Text, odd: odd, parents: map[tinycloud.Hash][]tinycloud.Hash{}, repeated: map[tinycloud.Hash][]write{}}
	if err := errors.Join(r.loadParents(ctx), r.loadRepeated(ctx)); err != nil {
		return err
	}
	r.writes, err = d.query(ctx, "SELECT seq, epoch, epoch_seq, invocation, key, value, metadata FROM kv_write WHERE space = ? ORDER BY seq, epoch, epoch_seq, key", r.space)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.writes.Err(), r.writes.Close()) }()
	rows, err := d.query(ctx, `SELECT e.seq, e.id, o.epoch_seq, o.event FROM epoch e LEFT JOIN event_order o ON o.epoch = e.id AND o.space = e.space
		WHERE e.space = ? ORDER BY e.seq, e.id, o.epoch_seq`, r.space)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Err(), rows.Close()) }()
	var now rawEpoch
	for rows.Next() {
		var seq int64
		var id, event []byte
		var index sql.NullInt64
		if err := rows.Scan(&seq, &id, &index, &event); err != nil {
			return err
		}
		if string(id) != now.at.epoch {
			if err := r.finish(ctx, &now, yield); err != nil {
				return err
			}
			now = rawEpoch{at: place{seq: seq, epoch: string(id)}}
		}
		if index.Valid {
			now.events = append(now.events, rawEvent{index.Int64, event})
		}
	}
	return r.finish(ctx, &now, yield)
}

type rawEpoch struct {
	at     place
	events []rawEvent
}

type rawEvent struct {
	index int64
	event []byte
}

func (r *reading) tell(what string, which []byte) {
	r.odd(Oddity{r.space, what, fmt.Sprintf("%x", which)})
}

func (r *reading) loadParents(ctx context.Context) error {
	rows, err := r.d.query(ctx, "SELECT parent, child FROM epoch_order WHERE space = ?", r.space)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var parent, child []byte
		if err := rows.Scan(&parent, &child); err != nil {
			return err
		}
		p, ok1 := digest(parent)
		c, ok2 := digest(child)
		if !ok1 || !ok2 {
			r.tell("row of epoch_order whose ids are none", child)
			continue
		}
		r.parents[c] = append(r.parents[c], p)
	}
	return rows.Err()
}

// loadRepeated finds the invocations that stand in several epochs: 1.0.0 took one token again and again, and
// kept what it wrote beside the first epoch alone.
func (r *reading) loadRepeated(ctx context.Context) error {
	rows, err := r.d.query(ctx, "SELECT event FROM event_order WHERE space = ? GROUP BY event HAVING count(*) > 1", r.space)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return err
		}
		if h, ok := digest(b); ok && len(r.repeated) < maxRepeated {
			r.repeated[h] = nil
		}
	}
	return rows.Err()
}

// finish rebuilds an epoch whose rows are all there.
func (r *reading) finish(ctx context.Context, raw *rawEpoch, yield func(Epoch) error) error {
	if raw.at.epoch == "" {
		return nil
	}
	id, ok := digest([]byte(raw.at.epoch))
	if !ok {
		r.tell("epoch whose id is none", []byte(raw.at.epoch))
		return nil
	}
	e := Epoch{ID: id, Seq: raw.at.seq, Exact: true}
	writes, err := r.writesOf(raw.at)
	if err != nil {
		return err
	}
	for _, ev := range raw.events {
		h, ok := digest(ev.event)
		if !ok {
			r.tell("event whose id is none", ev.event)
			e.Exact = false
			continue
		}
		b, ms, err := r.token(ctx, h)
		if err != nil {
			return err
		}
		if b == nil {
			r.tell("event that is lost: there is no row for it, or its bytes do not match its id", ev.event)
			e.Exact = false
			continue
		}
		e.Events, e.At = append(e.Events, b), max(e.At, ms)
		ops, filtered, err := r.ops(ctx, h, writes)
		if err != nil {
			return err
		}
		e.Filtered += filtered
		e.Refs = append(e.Refs, capstore.EpochEvent{Event: h, Ops: ops})
	}
	e.Parents = r.parents[id]
	delete(r.parents, id)
	if e.Exact = e.Exact && rebuild(&e, r.repeated); !e.Exact {
		r.tell("epoch that does not recompute to its id", []byte(raw.at.epoch))
	}
	return yield(e)
}

// rebuild finds the order of parents, and which repeated events came with operations, that give the id.
func rebuild(e *Epoch, repeated map[tinycloud.Hash][]write) bool {
	parents := slices.Clone(e.Parents)
	try := func(events []capstore.EpochEvent) bool {
		b := capstore.EncodeEpoch(parents, events)
		if tinycloud.Sum(b) != e.ID {
			return false
		}
		e.Epoch, e.Parents, e.Refs, e.Ops = b, parents, events, Ops(events)
		return true
	}
	bare := slices.Clone(e.Refs)
	for i := range bare {
		if _, again := repeated[bare[i].Event]; again {
			bare[i].Ops = nil
		}
	}
	slices.SortFunc(parents, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	events := e.Refs
	return permute(parents, 0, func() bool { return try(events) || try(bare) })
}

// Ops returns the operations of events, in order.
func Ops(events []capstore.EpochEvent) (ops [][]byte) {
	for _, ev := range events {
		ops = append(ops, ev.Ops...)
	}
	return ops
}

// permute tries all orders of a short list, and of a longer one only the given order.
func permute(p []tinycloud.Hash, k int, try func() bool) bool {
	if k >= len(p)-1 || len(p) > maxPermuted {
		return try()
	}
	for i := k; i < len(p); i++ {
		p[k], p[i] = p[i], p[k]
		if permute(p, k+1, try) {
			return true
		}
		p[k], p[i] = p[i], p[k]
	}
	return false
}

// token returns the bytes of an event and when it came, nil when they are lost.
func (r *reading) token(ctx context.Context, h tinycloud.Hash) ([]byte, int64, error) {
	for _, from := range []string{"issued_at, serialization FROM invocation", "issued_at, serialization FROM delegation", r.revocations()} {
		var when any
		var b []byte
		err := r.d.row(ctx, "SELECT "+from+" WHERE id = ?", column(h)).Scan(&when, &b)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		plain, err := r.d.open(b)
		if err != nil || tinycloud.Sum(plain) != h {
			return nil, 0, nil
		}
		return plain, millis(when), nil
	}
	return nil, 0, nil
}

func (r *reading) revocations() string {
	if r.d.current {
		return "revoked_at, serialization FROM revocation"
	}
	return "NULL, serialization FROM revocation"
}

// ops returns the operations of an event in the order of its capabilities: by resource, then ability.
func (r *reading) ops(ctx context.Context, event tinycloud.Hash, writes []write) (ops [][]byte, filtered int, err error) {
	var all []write
	for _, w := range writes {
		if w.event == event {
			all = append(all, w)
		}
	}
	if again, ok := r.repeated[event]; ok && len(all) == 0 {
		all = slices.Clone(again)
	}
	rows, err := r.d.query(ctx, "SELECT key FROM kv_delete WHERE invocation_id = ? AND space = ?", column(event), r.space)
	if err != nil {
		return nil, 0, err
	}
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, 0, errors.Join(err, rows.Close())
		}
		all = append(all, write{event: event, key: key, op: kv.EncodeOp(kv.Op{Key: key, Delete: true}), odd: -1})
	}
	// tinycloud.kv/del comes before tinycloud.kv/put
	slices.SortStableFunc(all, func(a, b write) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.odd, b.odd)) })
	for _, w := range all {
		ops = append(ops, w.op)
		filtered += max(w.odd, 0)
	}
	return ops, filtered, errors.Join(rows.Err(), rows.Close())
}

// writesOf returns the writes of an epoch; both are read in the same order.
func (r *reading) writesOf(at place) ([]write, error) {
	var out []write
	for {
		if !r.ahead.any {
			more, err := r.nextWrite()
			if err != nil || !more {
				return out, err
			}
		}
		next := r.ahead.at
		next.index = at.index
		switch c := next.compare(at); {
		case c > 0:
			return out, nil
		case c < 0:
			r.tell("write that stands in no epoch", []byte(r.ahead.at.epoch))
		default:
			out = append(out, r.ahead.w)
			if _, again := r.repeated[r.ahead.w.event]; again && r.kept < maxRepeated {
				r.repeated[r.ahead.w.event] = append(r.repeated[r.ahead.w.event], r.ahead.w)
				r.kept++
			}
		}
		r.ahead.any = false
	}
}

func (r *reading) nextWrite() (bool, error) {
	for r.writes.Next() {
		var at place
		var epoch, event, value, meta []byte
		var w write
		if err := r.writes.Scan(&at.seq, &epoch, &at.index, &event, &w.key, &value, &meta); err != nil {
			return false, err
		}
		at.epoch = string(epoch)
		m, ok1 := metadata(meta)
		v, ok2 := digest(value)
		h, ok3 := digest(event)
		if !ok1 || !ok2 || !ok3 {
			r.tell("write whose row is damaged", event)
			continue
		}
		for name, value := range m {
			if !kv.IsMetadata(name, value) {
				w.odd = 1
			}
		}
		w.event, w.op = h, kv.EncodeOp(kv.Op{Key: w.key, Value: v, Metadata: m})
		r.ahead.at, r.ahead.w, r.ahead.any = at, w, true
		return true, nil
	}
	return false, r.writes.Err()
}
