package capstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// scanned is how many epochs of all Spaces one call of [Store.ChangesSince] looks through at most.
const scanned = 4096

// LatestChange returns the cursor after all that was announced until now.
func (s *Store) LatestChange(ctx context.Context) (Cursor, error) {
	return latest(ctx, s.db.Read)
}

func latest(ctx context.Context, q querier) (Cursor, error) {
	c := Cursor{Index: math.MaxInt}
	_, err := q.One(ctx, []any{&c.Epoch, &c.Late}, "SELECT (SELECT coalesce(max(eid), 0) FROM epochs), (SELECT coalesce(max(ord), 0) FROM late)")
	return c, err
}

// CursorOf returns the cursor of a change, which is named by its Space, epoch and index; ok is false when
// there was no such change here.
func (s *Store) CursorOf(ctx context.Context, space tinycloud.SpaceID, epoch tinycloud.Hash, index int) (c Cursor, ok bool, err error) {
	sid, err := s.sid(ctx, space)
	if err != nil {
		return c, false, err
	}
	if c, ok, err = s.cursorOfTold(ctx, sid, epoch, index); err != nil || ok {
		return c, ok, err
	}
	var valid bool
	var name string
	var ord, after sql.NullInt64
	ok, err = s.db.Read.One(ctx, []any{&c.Epoch, &name, &valid, &ord, &after}, `SELECT o.eid, o.service, o.valid, l.ord, l.after FROM epochs p JOIN ops o ON o.eid = p.eid
		LEFT JOIN late l ON l.eid = o.eid AND l.idx = o.idx AND l.n = o.n
		WHERE p.sid = ? AND p.id = ? ORDER BY o.idx, o.n LIMIT 1 OFFSET ?`, sid, epoch[:], index)
	switch {
	case err != nil || !ok:
		return c, false, err
	case s.tellsItself(name):
		return c, false, nil
	case after.Valid && after.Int64 >= 0:
		return Cursor{Epoch: after.Int64, Late: ord.Int64}, true, nil
	}
	c.Index = index
	return c, announcedInPlace(valid, after), nil
}

// announcedInPlace reports whether an operation was announced with its epoch.
func announcedInPlace(valid bool, after sql.NullInt64) bool {
	return (valid && !after.Valid) || (after.Valid && after.Int64 == sinceVoid)
}

// ChangesSince returns up to limit changes of some Spaces after a cursor, in the order in which
// [Options.Committed] told of them, also in earlier lives of the process, and the cursor to go on from.
// More says that there may be others now; there may be also when no change is returned, for one call
// looks at a bounded part of the history. Spaces that are not hosted have no changes.
func (s *Store) ChangesSince(ctx context.Context, spaces []tinycloud.SpaceID, from Cursor, limit int) (changes []Change, next Cursor, more bool, err error) {
	r := &changeReader{s: s, ids: map[int64]tinycloud.SpaceID{}, from: from, limit: limit}
	for _, id := range spaces {
		if sid, err := s.sid(ctx, id); err == nil && r.ids[sid].IsZero() {
			r.ids[sid], r.args = id, append(r.args, sid)
		}
	}
	// One snapshot: what is late is announced after epochs that are seen.
	err = s.db.Read.Snapshot(ctx, func(snap *db.Snapshot) (err error) {
		r.tx = snap
		changes, next, more, err = r.page(ctx)
		return err
	})
	if err != nil {
		return nil, from, false, err
	}
	return changes, next, more, nil
}

func (r *changeReader) page(ctx context.Context) (changes []Change, next Cursor, more bool, err error) {
	end, err := latest(ctx, r.tx)
	if err != nil || r.from.Compare(end) >= 0 {
		return nil, r.from, false, err
	}
	to := end
	if end.Epoch-r.from.Epoch > scanned {
		to = Cursor{Epoch: r.from.Epoch + scanned, Late: math.MaxInt64, Index: math.MaxInt}
	}
	if len(r.args) == 0 || r.limit < 1 {
		return nil, end, false, nil
	}
	changes, err = r.read(ctx, to)
	if err != nil {
		return nil, r.from, false, err
	}
	if len(changes) > r.limit {
		changes = changes[:r.limit]
		return changes, changes[r.limit-1].Cursor, true, nil
	}
	return changes, to, to != end, nil
}

// changeReader reads one page of changes.
type changeReader struct {
	s     *Store
	tx    *db.Snapshot
	ids   map[int64]tinycloud.SpaceID
	args  []any // the keys of ids
	from  Cursor
	limit int
}

// read merges what was announced with its epoch and what was announced later: up to limit+1 of them.
func (r *changeReader) read(ctx context.Context, to Cursor) ([]Change, error) {
	early, err := r.inPlace(ctx, to.Epoch)
	if err != nil {
		return nil, err
	}
	late, err := r.later(ctx, to.Epoch)
	if err != nil {
		return nil, err
	}
	told, err := r.told(ctx, to.Epoch)
	if err != nil {
		return nil, err
	}
	late = append(late, told...)
	slices.SortFunc(late, func(a, b Change) int { return a.Cursor.Compare(b.Cursor) })
	out := make([]Change, 0, min(len(early)+len(late), r.limit+1))
	for len(out) <= r.limit && len(early)+len(late) > 0 {
		if len(late) == 0 || (len(early) > 0 && early[0].Cursor.Compare(late[0].Cursor) < 0) {
			out, early = append(out, early[0]), early[1:]
		} else {
			out, late = append(out, late[0]), late[1:]
		}
	}
	return out, nil
}

const changeColumns = `SELECT p.sid, p.eid, p.id, n.at, e.bytes, o.bytes, o.valid, l.after, l.ord`

// hosted returns the condition that a column is one of the Spaces. The sign keeps the query on the order
// of epochs, which it needs, and off an index by Space.
func (r *changeReader) hosted(column string) string {
	return " AND +" + column + " IN (" + strings.TrimSuffix(strings.Repeat("?,", len(r.args)), ",") + ")"
}

// inPlace reads what was announced with its epoch.
func (r *changeReader) inPlace(ctx context.Context, to int64) (out []Change, err error) {
	var eid int64
	index := 0
	err = r.tx.Each(ctx, func(scan db.Scan) error {
		row, err := r.scan(scan)
		if err != nil {
			return err
		}
		if row.Cursor.Epoch != eid {
			eid, index = row.Cursor.Epoch, 0
		}
		row.Index, row.Cursor.Index = index, index
		index++
		if r.s.tellsItself(row.Service) || !announcedInPlace(row.valid, row.after) || row.Cursor.Compare(r.from) <= 0 {
			return nil
		}
		c, err := r.finish(row)
		if err != nil {
			return err
		}
		if out = append(out, c); len(out) > r.limit {
			return errEnough
		}
		return nil
	}, changeColumns+` FROM epochs p JOIN ops o ON o.eid = p.eid JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		JOIN entries n ON n.eid = p.eid AND n.ord = 0 LEFT JOIN late l ON l.eid = o.eid AND l.idx = o.idx AND l.n = o.n
		WHERE p.eid >= ? AND p.eid <= ?`+r.hosted("p.sid")+" ORDER BY p.eid, o.idx, o.n",
		append([]any{r.from.Epoch, to}, r.args...)...)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

// later reads what became valid later than its epoch came.
func (r *changeReader) later(ctx context.Context, to int64) (out []Change, err error) {
	args := append([]any{r.from.Epoch, r.from.Epoch, r.from.Late, to}, r.args...)
	err = r.tx.Each(ctx, func(scan db.Scan) error {
		var index int
		row, err := r.scan(scan, &index)
		if err != nil {
			return err
		}
		row.Index, row.Cursor = index, Cursor{Epoch: row.after.Int64, Late: row.ord.Int64}
		c, err := r.finish(row)
		out = append(out, c)
		return err
	}, changeColumns+`, (SELECT count(*) FROM ops b WHERE b.eid = l.eid AND (b.idx < l.idx OR (b.idx = l.idx AND b.n < l.n)))
		FROM late l JOIN ops o ON o.eid = l.eid AND o.idx = l.idx AND o.n = l.n JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		JOIN epochs p ON p.eid = l.eid JOIN entries n ON n.eid = p.eid AND n.ord = 0
		WHERE l.after >= 0 AND (l.after > ? OR (l.after = ? AND l.ord > ?)) AND l.after <= ?`+
		r.hosted("l.sid")+" ORDER BY l.after, l.ord LIMIT ?", append(args, r.limit+1)...)
	return out, err
}

// changeRow is a Change as the database has it.
type changeRow struct {
	Change
	sid        int64
	event      []byte
	valid      bool
	after, ord sql.NullInt64
}

func (r *changeReader) scan(scan db.Scan, further ...any) (row changeRow, err error) {
	var epoch, op []byte
	var ms int64
	err = scan(append([]any{&row.sid, &row.Cursor.Epoch, &epoch, &ms, &row.event, &op, &row.valid, &row.after, &row.ord}, further...)...)
	if err != nil {
		return row, err
	}
	o, _, err := dag.ReadOperation(op)
	if err != nil {
		return row, fmt.Errorf("stored operation: %w", err)
	}
	row.is(r.s.read(o))
	row.Epoch, row.At = tinycloud.Hash(epoch), at(ms).UTC()
	return row, nil
}

// finish reads the token of a change that is wanted.
func (r *changeReader) finish(row changeRow) (Change, error) {
	tok, err := token.Decode(row.event, true)
	if err != nil {
		return Change{}, fmt.Errorf("stored event of epoch %s: %v: %w", row.Epoch.EpochID(), err, tinycloud.ErrUnavailable)
	}
	row.Space, row.Actor = r.ids[row.sid], tok.Signer
	return row.Change, nil
}
