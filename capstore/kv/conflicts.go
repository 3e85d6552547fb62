package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Conflicts of a key are its valid writes that no other valid operation on it has in its past, but for the one that
// the key holds: what somebody wrote and nobody who wrote later had seen. Which they are follows from the history
// alone (docs/replication.md, "Conflicts"). Their values are held for a while, inside the bound of past values.
const (
	ConflictAge  = 30 * 24 * time.Hour // that one is listed
	MaxConflicts = 16                  // of a key, whose values are held
)

// Conflict is a write that lost against another, which did not know of it.
type Conflict struct {
	Key      string
	Epoch    tinycloud.Hash
	Index    int // of the event in the epoch
	Event    tinycloud.Hash
	Value    tinycloud.Hash
	Size     int64 // of the value; -1 while it is not here
	Metadata map[string]string
	Actor    tinycloud.Principal // who signed it
	At       time.Time           // when it was written, as far as the order goes by it; zero for what is older than that
	Since    time.Time           // when this host saw it lose
	Early    bool                // it is of a history's first day
	Held     bool                // this host keeps, or looks for, its value
}

// ConflictCursor is a place in the list of conflicts; its zero value is the begin, and after the end.
type ConflictCursor struct {
	Key   string
	Event tinycloud.Hash
}

// Conflicts lists up to limit conflicts of a Space after a place, by key, and returns where to go on, the zero cursor at
// the end. Those that were lost for more than thirty days are not listed.
func (k *Keys) Conflicts(ctx context.Context, id tinycloud.SpaceID, after ConflictCursor, limit int) (list []Conflict, next ConflictCursor, err error) {
	r, err := k.store.Reader(ctx, id)
	if err != nil {
		return nil, next, err
	}
	type row struct {
		Conflict
		eid int64
		n   int
	}
	var rows []row
	key, _ := r.Dialect().Key(after.Key)
	err = r.Each(ctx, func(scan db.Scan) error {
		var c row
		var event, value []byte
		var since, turn int64
		var size *int64
		if err := scan(&c.eid, &c.Index, &c.n, &event, &value, &turn, &since, &size); err != nil {
			return err
		}
		c.Event, c.Value = tinycloud.Hash(event), tinycloud.Hash(value)
		c.Held, c.Size, c.Since = turn > 0, -1, time.UnixMilli(since).UTC()
		if size != nil {
			c.Size = *size
		}
		rows = append(rows, c)
		return nil
	}, `SELECT c.eid, c.idx, c.n, c.event, c.value, c.turn, c.since, v.size
		FROM conflicts c LEFT JOIN vals v ON v.sid = c.sid AND v.hash = c.value
		WHERE c.sid = ? AND c.since > ? AND (c.subject > ? OR (c.subject = ? AND c.event > ?)) ORDER BY c.subject, c.event LIMIT ?`,
		r.Sid(), k.listedSince(), key, key, after.Event[:], limit+1)
	for i, c := range rows {
		if err != nil {
			return nil, next, err
		}
		if i == limit && limit > 0 {
			last := list[limit-1]
			return list, ConflictCursor{last.Key, last.Event}, nil
		}
		var found bool
		if found, err = c.tell(ctx, r, c.eid, c.n); found {
			list = append(list, c.Conflict)
		}
	}
	return list, next, err
}

// listedSince is when the conflicts began that are listed, in unix milliseconds.
func (k *Keys) listedSince() int64 { return k.store.Now().Add(-ConflictAge).UnixMilli() }

// tell adds what the operation says; found is false when it is there no more.
func (c *Conflict) tell(ctx context.Context, r service.Reader, row int64, n int) (found bool, err error) {
	told, err := r.Told(ctx, row, uint64(c.Index), n)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o, err := dag.DecodeOp(told.Bytes)
	if err != nil {
		return false, fmt.Errorf("stored operation: %w", err)
	}
	c.Key, c.Metadata, c.Epoch = o.Key, shown(o.Metadata), told.Epoch
	c.Actor, c.Early, c.At = told.Actor, told.Early, told.Time
	return true, nil
}

// ConflictCount returns how many conflicts of a Space are listed.
func (k *Keys) ConflictCount(ctx context.Context, id tinycloud.SpaceID) (n int64, err error) {
	r, err := k.store.Reader(ctx, id)
	if err != nil {
		return 0, err
	}
	_, err = r.One(ctx, []any{&n}, "SELECT count(*) FROM conflicts WHERE sid = ? AND since > ?", r.Sid(), k.listedSince())
	return n, err
}

// Disputed reports whether a listed conflict of a Space has a value.
func (k *Keys) Disputed(ctx context.Context, id tinycloud.SpaceID, value tinycloud.Hash) (bool, error) {
	r, err := k.store.Reader(ctx, id)
	if err != nil {
		return false, err
	}
	var one int
	return r.One(ctx, []any{&one}, "SELECT 1 FROM conflicts WHERE sid = ? AND value = ? AND since > ? LIMIT 1", r.Sid(), value[:], k.listedSince())
}

// memory is what is remembered of a Space while it is written.
type memory struct{ conflicts int64 } // rows of them

func (f folder) memory() (*memory, error) {
	m, err := f.Memory(func() (any, error) {
		m := &memory{}
		_, err := f.One([]any{&m.conflicts}, "SELECT count(*) FROM conflicts WHERE sid = ?", f.Sid())
		return m, err
	})
	if err != nil {
		return nil, err
	}
	return m.(*memory), nil
}

// someConflicts reports whether any key of the Space has conflicts: nearly always none has.
func (f folder) someConflicts() (bool, error) {
	m, err := f.memory()
	return err == nil && m.conflicts > 0, err
}

// conflictRow is a stored conflict: a write and its turn.
type conflictRow struct {
	service.Placed // no more than its row, index, number and event
	value          tinycloud.Hash
	turn           int
}

func (f folder) conflictsOf(key string) (rows []conflictRow, err error) {
	if some, err := f.someConflicts(); err != nil || !some {
		return nil, err
	}
	err = f.Each(func(scan db.Scan) error {
		var r conflictRow
		var event, value []byte
		err := scan(&event, &r.Row, &r.At.Index, &r.N, &value, &r.turn)
		r.Event, r.value = tinycloud.Hash(event), tinycloud.Hash(value)
		rows = append(rows, r)
		return err
	}, "SELECT event, eid, idx, n, value, turn FROM conflicts WHERE sid = ? AND subject = ? ORDER BY event", f.Sid(), f.key(key))
	return rows, err
}

// endConflicts ends all conflicts of a key: somebody wrote it who had seen them.
func (f folder) endConflicts(key string) error { return f.saveConflicts(key, nil) }

// saveConflicts stores which writes are conflicts of a key.
func (f folder) saveConflicts(key string, list []*keyWrite) error {
	rows, err := f.conflictsOf(key)
	if err != nil || len(rows)+len(list) == 0 {
		return err
	}
	now := map[tinycloud.Hash]*keyWrite{}
	for _, w := range list {
		now[w.event] = w
	}
	var taken [MaxConflicts + 1]bool // turns; 0 is none
	for _, r := range rows {
		w := now[r.Event]
		if w == nil {
			if err := f.endConflict(key, r); err != nil {
				return err
			}
			continue
		}
		delete(now, r.Event)
		taken[r.turn] = true
		if w.place.Is(r.Placed) {
			continue
		}
		err := f.Exec("UPDATE conflicts SET eid = ?, idx = ?, n = ? WHERE sid = ? AND subject = ? AND event = ?",
			w.place.Row, int64(w.place.At.Index), w.place.N, f.Sid(), f.key(key), r.Event[:])
		if err != nil {
			return err
		}
	}
	for _, w := range list {
		if now[w.event] == nil {
			continue
		}
		turn := 1 + slices.Index(taken[1:], false)
		taken[turn] = true
		if err := f.addConflict(key, w, turn); err != nil {
			return err
		}
	}
	return nil
}

func (f folder) endConflict(key string, r conflictRow) error {
	m, err := f.memory()
	if err != nil {
		return err
	}
	m.conflicts--
	f.Forget()
	if err := f.Exec("DELETE FROM conflicts WHERE sid = ? AND subject = ? AND event = ?", f.Sid(), f.key(key), r.Event[:]); err != nil {
		return err
	}
	return f.Release(r.value, false)
}

func (f folder) addConflict(key string, w *keyWrite, turn int) error {
	op, err := f.opAt(w.place)
	if err != nil {
		return err
	}
	m, err := f.memory()
	if err != nil {
		return err
	}
	m.conflicts++
	f.Forget()
	err = f.Add(db.Insert{Into: "conflicts", Columns: "sid subject event eid idx n value turn since", Key: "sid subject event"},
		f.Sid(), f.key(key), w.event[:], w.place.Row, int64(w.place.At.Index), w.place.N, op.Value[:], turn, f.Now().UnixMilli())
	if err != nil || turn == 0 {
		return err
	}
	return f.Hold(op.Value, false)
}

// rivals are the writes to a key that may be conflicts of it beside a new one, with its greatest. plain is false when
// the rows don't tell enough: the event of one of them stands in several places.
func (f folder) rivals(key string, k keyState) (out []*keyWrite, plain bool, err error) {
	rows, err := f.conflictsOf(key)
	if err != nil {
		return nil, false, err
	}
	for _, r := range rows {
		o, err := f.OrderAt(r.Row, r.At.Index)
		if err != nil || o == nil {
			return nil, false, err
		}
		w, err := f.rival(o, r.N)
		if err != nil || w == nil {
			return nil, false, err
		}
		w.maximal = true
		out = append(out, w)
	}
	if !k.written {
		return out, true, nil
	}
	for _, w := range out {
		if w.place.At == k.at {
			return out, true, nil
		}
	}
	o, err := f.Order(k.at)
	if err != nil || o == nil {
		return nil, false, err
	}
	p, _, err := f.writeAt(o, key)
	if err != nil {
		return nil, false, err
	}
	w, err := f.rival(o, p.N)
	if err != nil || w == nil {
		return nil, false, err
	}
	w.maximal = k.live // a greatest write that is deleted is a conflict, or the delete has seen it
	return append(out, w), true, nil
}

// rival is the write of a number at a place, nil when its event stands in several.
func (f folder) rival(o service.Order, n int) (*keyWrite, error) {
	p, places, ok, err := f.EventAt(o)
	if err != nil || !ok || places > 1 {
		return nil, err
	}
	p.N = n
	return &keyWrite{event: p.Event, place: &p}, nil
}
