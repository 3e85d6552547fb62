package capstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Conflicts of a key are its valid writes that no other valid operation on it has in its past, but for the one that the
// key holds: what somebody wrote and nobody who wrote later had seen. Which they are follows from the history alone
// (replication design §11). Their values are held for a while, inside the bound of past values.
const (
	conflictAge  = 30 * 24 * time.Hour // that one is listed
	maxConflicts = 16                  // of a key, whose values are held
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
func (s *Store) Conflicts(ctx context.Context, id tinycloud.SpaceID, after ConflictCursor, limit int) (list []Conflict, next ConflictCursor, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, next, err
	}
	since := s.o.Now().Add(-conflictAge).UnixMilli()
	key := s.key(after.Key)
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		c, err := scanConflict(scan)
		if err == nil && len(list) == limit && limit > 0 {
			last := list[limit-1]
			next = ConflictCursor{last.Key, last.Event}
			return errEnough
		}
		list = append(list, c)
		return err
	}, `SELECT p.id, p.written, p.begin_of, c.idx, c.event, c.value, c.turn, c.since, o.bytes, e.bytes, v.size
		FROM conflicts c JOIN epochs p ON p.eid = c.eid JOIN ops o ON o.eid = c.eid AND o.idx = c.idx AND o.n = c.n
		JOIN events e ON e.eid = c.eid AND e.idx = c.idx LEFT JOIN vals v ON v.sid = c.sid AND v.hash = c.value
		WHERE c.sid = ? AND c.since > ? AND (c.subject > ? OR (c.subject = ? AND c.event > ?)) ORDER BY c.subject, c.event LIMIT ?`,
		sid, since, key, key, after.Event[:], limit+1)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, next, err
}

func scanConflict(scan db.Scan) (c Conflict, err error) {
	var epoch, begin, event, value, op, raw []byte
	var written, since, turn int64
	var size *int64
	if err := scan(&epoch, &written, &begin, &c.Index, &event, &value, &turn, &since, &op, &raw, &size); err != nil {
		return c, err
	}
	o, err := dag.DecodeOp(op)
	if err != nil {
		return c, fmt.Errorf("stored operation: %w", err)
	}
	t, err := token.Decode(raw, true)
	if err != nil {
		return c, fmt.Errorf("stored event: %w", err)
	}
	c.Key, c.Metadata, c.Actor = o.Key, shown(o.Metadata), t.Signer
	c.Epoch, c.Event, c.Value = tinycloud.Hash(epoch), tinycloud.Hash(event), tinycloud.Hash(value)
	c.Early, c.Held, c.Size = len(begin) > 0, turn > 0, -1
	if size != nil {
		c.Size = *size
	}
	if written > 0 {
		c.At = at(written).UTC()
	}
	c.Since = at(since).UTC()
	return c, nil
}

// ConflictCount returns how many conflicts of a Space are listed.
func (s *Store) ConflictCount(ctx context.Context, id tinycloud.SpaceID) (n int64, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return 0, err
	}
	return s.conflictCount(ctx, sid)
}

func (s *Store) conflictCount(ctx context.Context, sid int64) (n int64, err error) {
	_, err = s.db.Read.One(ctx, []any{&n}, "SELECT count(*) FROM conflicts WHERE sid = ? AND since > ?", sid, s.o.Now().Add(-conflictAge).UnixMilli())
	return n, err
}

// conflictRow is a stored conflict.
type conflictRow struct {
	opPlace
	event, value tinycloud.Hash
	turn         int
}

func (t *tx) conflictsOf(sp *space, key string) (rows []conflictRow, err error) {
	if sp.conflicts == 0 {
		return nil, nil
	}
	err = t.each(func(scan db.Scan) error {
		var r conflictRow
		var event, value []byte
		err := scan(&event, &r.eid, &r.idx, &r.n, &value, &r.turn)
		r.event, r.value = tinycloud.Hash(event), tinycloud.Hash(value)
		rows = append(rows, r)
		return err
	}, "SELECT event, eid, idx, n, value, turn FROM conflicts WHERE sid = ? AND subject = ? ORDER BY event", sp.sid, t.s.key(key))
	return rows, err
}

// endConflicts ends all conflicts of a key: somebody wrote it who had seen them.
func (t *tx) endConflicts(sp *space, key string) error { return t.saveConflicts(sp, key, nil) }

// saveConflicts stores which writes are conflicts of a key.
func (t *tx) saveConflicts(sp *space, key string, list []*keyWrite) error {
	rows, err := t.conflictsOf(sp, key)
	if err != nil || len(rows)+len(list) == 0 {
		return err
	}
	now := map[tinycloud.Hash]*keyWrite{}
	for _, w := range list {
		now[w.event] = w
	}
	var taken [maxConflicts + 1]bool // turns; 0 is none
	for _, r := range rows {
		w := now[r.event]
		if w == nil {
			if err := t.endConflict(sp, key, r); err != nil {
				return err
			}
			continue
		}
		delete(now, r.event)
		taken[r.turn] = true
		if w.place.opPlace == r.opPlace {
			continue
		}
		err := t.exec("UPDATE conflicts SET eid = ?, idx = ?, n = ? WHERE sid = ? AND subject = ? AND event = ?",
			w.place.eid, w.place.idx, w.place.n, sp.sid, t.s.key(key), r.event[:])
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
		if err := t.addConflict(sp, key, w, turn); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) endConflict(sp *space, key string, r conflictRow) error {
	sp.conflicts--
	t.touch(sp)
	if err := t.exec("DELETE FROM conflicts WHERE sid = ? AND subject = ? AND event = ?", sp.sid, t.s.key(key), r.event[:]); err != nil {
		return err
	}
	// Its value is past from now on, if no key holds it.
	if err := t.exec("UPDATE past SET since = ? WHERE sid = ? AND hash = ?", t.now.UnixMilli(), sp.sid, r.value[:]); err != nil {
		return err
	}
	return t.release(sp, r.value)
}

func (t *tx) addConflict(sp *space, key string, w *keyWrite, turn int) error {
	op, err := t.opAt(w.place.opPlace)
	if err != nil {
		return err
	}
	sp.conflicts++
	t.touch(sp)
	err = t.add(db.Insert{Into: "conflicts", Columns: "sid subject event eid idx n value turn since", Key: "sid subject event"},
		sp.sid, t.s.key(key), w.event[:], w.place.eid, w.place.idx, w.place.n, op.Value[:], turn, t.now.UnixMilli())
	if err != nil || turn == 0 {
		return err
	}
	return t.wantAlso(sp, op.Value)
}

// disputed asks whether the value of a conflict is held.
const disputed = "SELECT 1 FROM conflicts WHERE sid = ? AND value = ? AND turn > 0 LIMIT 1"

// Disputed reports whether a listed conflict of a Space has a value.
func (s *Store) Disputed(ctx context.Context, id tinycloud.SpaceID, value tinycloud.Hash) (bool, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return false, err
	}
	var one int
	return s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM conflicts WHERE sid = ? AND value = ? AND since > ? LIMIT 1",
		sid, value[:], s.o.Now().Add(-conflictAge).UnixMilli())
}

func (t *tx) isDisputed(sp *space, hash tinycloud.Hash) (bool, error) {
	if sp.conflicts == 0 {
		return false, nil
	}
	var one int
	return t.one([]any{&one}, disputed, sp.sid, hash[:])
}

// rivals are the writes to a key that may be conflicts of it beside a new one, with its greatest. plain is false when
// the rows don't tell enough: the event of one of them stands in several places.
func (t *tx) rivals(sp *space, key string, k keyState) (out []*keyWrite, plain bool, err error) {
	rows, err := t.conflictsOf(sp, key)
	if err != nil {
		return nil, false, err
	}
	for _, r := range rows {
		w, err := t.rival(sp, r.opPlace)
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
		if w.place.at == k.at {
			return out, true, nil
		}
	}
	n, err := t.node(sp, k.at.Epoch)
	if err != nil || n == nil {
		return nil, false, err
	}
	p := opPlace{eid: n.eid, idx: int64(k.at.Index)}
	if _, err := t.one([]any{&p.n}, "SELECT n FROM ops o WHERE o.eid = ? AND o.idx = ? AND o.key = ? AND o.service = 'kv' AND o.removes = 0 ORDER BY n LIMIT 1", p.eid, p.idx, t.s.key(key)); err != nil {
		return nil, false, err
	}
	w, err := t.rival(sp, p)
	if err != nil || w == nil {
		return nil, false, err
	}
	w.maximal = k.live // a greatest write that is deleted is a conflict, or the delete has seen it
	return append(out, w), true, nil
}

// rival reads the write at a place, nil when its event stands in several.
func (t *tx) rival(sp *space, p opPlace) (*keyWrite, error) {
	var event []byte
	var places int
	ok, err := t.one([]any{&event, &places}, `SELECT e.id, (SELECT count(*) FROM events x WHERE x.sid = e.sid AND x.id = e.id)
		FROM events e WHERE e.eid = ? AND e.idx = ?`, p.eid, p.idx)
	if err != nil || !ok || places > 1 {
		return nil, err
	}
	n, err := t.nodeBy(sp, "eid = ?", p.eid)
	if err != nil || n == nil {
		return nil, err
	}
	o := &keyOp{opPlace: p, rank: rank{n.age, Position{Seq: n.seq, Epoch: n.id, Index: uint64(p.idx)}}, spot: n.spots[0]}
	return &keyWrite{event: tinycloud.Hash(event), place: o}, nil
}
