package capstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// values checks the values against their hashes, and that every current one is here or looked for.
func (v *verifier) values(ctx context.Context) error {
	err := v.each(ctx, func(scan db.Scan) error {
		var hash, inline []byte
		var size, due int64
		if err := scan(&hash, &size, &inline, &due); err != nil {
			return err
		}
		h := tinycloud.Hash(hash)
		v.o.Checked(size)
		switch {
		case inline == nil && size > 0 && due < neverDue && v.o.Large != nil:
			if err := v.o.Large(ctx, v.id, h, size); err != nil && ctx.Err() != nil {
				return err
			} else if err != nil {
				v.tell("value whose file is lost or holds other bytes", "%s: %v", h, err)
			}
		case (inline != nil || size == 0) && (int64(len(inline)) != size || tinycloud.Sum(inline) != h):
			v.tell("value whose bytes are others", "%s", h)
		}
		return nil
	}, "SELECT v.hash, v.size, v.inline, coalesce(w.due, 0) FROM vals v LEFT JOIN wants w ON w.sid = v.sid AND w.hash = v.hash WHERE v.sid = ?", v.sid)
	if err != nil {
		return err
	}
	for _, x := range v.s.held.holding(true) {
		if err := v.lost(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// lost looks for rows whose current value is neither here nor looked for.
func (v *verifier) lost(ctx context.Context, x heldTable) error {
	return v.each(ctx, func(scan db.Scan) error {
		var subject []byte
		err := scan(&subject)
		v.tell("current value that is lost", "%q", subject)
		return err
	}, "SELECT h."+x.Key+" FROM "+x.Name+" h LEFT JOIN vals v ON v.sid = h.sid AND v.hash = h."+x.Value+" LEFT JOIN wants w ON w.sid = h.sid AND w.hash = h."+x.Value+
		" WHERE h.sid = ? AND "+x.Held+" AND v.hash IS NULL AND w.hash IS NULL", v.sid)
}

// replay judges the history again in an empty store and compares what follows from it.
func (v *verifier) replay(ctx context.Context) error {
	scratch, err := Open(ctx, Options{Database: InMemory, Services: v.s.o.Services, Keys: v.s.o.Keys, Now: v.s.o.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- scratch.Run(ctx) }()
	err = v.replayInto(ctx, scratch)
	cancel()
	return errors.Join(err, <-done, scratch.Close())
}

func (v *verifier) replayInto(ctx context.Context, scratch *Store) error {
	var sid int64
	err := scratch.do(ctx, func(t *tx) error {
		err := t.create(v.id, StateHosted)
		sid = t.s.ids[v.id]
		return err
	})
	if err != nil {
		return err
	}
	from, logs, err := v.s.lacking(ctx, v.sid, nil)
	if err != nil {
		return err
	}
	var batch []hostlog.Bundle
	flush := func() error {
		a, err := scratch.Apply(ctx, v.id, batch)
		if err == nil && a.Covered < len(batch) && !a.Parked {
			err = fmt.Errorf("entry %d of %s does not follow: %w", batch[a.Covered].Entry.N, batch[a.Covered].Entry.Host, tinycloud.ErrInvalid)
		}
		batch = nil
		return err
	}
	err = v.s.missing(ctx, v.id, v.sid, logs, from, 0, func(b hostlog.Bundle) error {
		b.Values, b.Large = nil, nil
		if batch = append(batch, b); len(batch) == hostlog.MaxAtOnce || len(b.Imported) > 0 {
			return flush()
		}
		return nil
	})
	if err == nil && len(batch) > 0 {
		err = flush()
	}
	if blames(err) {
		v.tell("history that does not hold", "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := scratch.Redate(ctx); err != nil {
		return err
	}
	return v.compare(ctx, scratch, sid)
}

// compared is a query for rows with one that counts those that are the same in a store made anew.
type compared struct {
	what, ours, theirs string
	subject            bool // the first column is a subject
}

// compare looks every verdict up among those made anew.
func (v *verifier) compare(ctx context.Context, scratch *Store, sid int64) error {
	all := []compared{
		{
			what: "epoch that is judged otherwise", ours: "SELECT id, seq, t, written, begin_of, valid FROM epochs WHERE sid = ?",
			theirs: "SELECT count(*) FROM epochs WHERE sid = ? AND id = ? AND seq = ? AND t = ? AND written = ? AND begin_of = ? AND valid = ?",
		},
		{
			what: "event that is judged otherwise", ours: "SELECT p.id, e.idx, e.kind, e.valid FROM epochs p JOIN events e ON e.eid = p.eid WHERE p.sid = ?",
			theirs: "SELECT count(*) FROM epochs p JOIN events e ON e.eid = p.eid WHERE p.sid = ? AND p.id = ? AND e.idx = ? AND e.kind = ? AND e.valid = ?",
		},
		{
			what: "operation that is judged otherwise", ours: "SELECT p.id, o.idx, o.n, o.valid FROM epochs p JOIN ops o ON o.eid = p.eid WHERE p.sid = ?",
			theirs: "SELECT count(*) FROM epochs p JOIN ops o ON o.eid = p.eid WHERE p.sid = ? AND p.id = ? AND o.idx = ? AND o.n = ? AND o.valid = ?",
		},
		{
			what: "log entry that is judged otherwise", ours: "SELECT digest, n, at, valid FROM entries WHERE sid = ? AND branch < 1073741824",
			theirs: "SELECT count(*) FROM entries WHERE sid = ? AND digest = ? AND n = ? AND at = ? AND valid = ?",
		},
		{
			what: "state of a service that should be another", ours: "SELECT s.service, s.id, s.state FROM states s WHERE s.sid = ?",
			theirs: "SELECT count(*) FROM states WHERE sid = ? AND service = CAST(? AS TEXT) AND id = ? AND state = ?",
		},
	}
	for _, x := range v.s.held.tables {
		all = append(all, v.rowsOf(x))
	}
	for _, c := range all {
		if err := v.compareRows(ctx, scratch, sid, c); err != nil {
			return err
		}
	}
	return v.compareSums(ctx, scratch, sid)
}

// rowsOf compares the rows of a service's table.
func (v *verifier) rowsOf(x heldTable) compared {
	c := compared{what: x.What, subject: x.Same[0] == x.Key}
	from := " FROM " + x.Name + " h"
	var ours, same []string
	for _, column := range x.Same {
		ours, same = append(ours, "h."+column), append(same, "h."+column+" = ?")
		switch last := len(ours) - 1; column {
		case "eid": // the number of a row is another in each database
			from += " JOIN epochs p ON p.eid = h.eid"
			ours[last], same[last] = "p.id", "p.id = ?"
		case x.Key:
			if v.s.db.Shared { // there the column may hold what stands for a longer one
				ours[last] = "coalesce(h.whole, h." + x.Key + ")"
			}
		}
	}
	c.ours = "SELECT " + strings.Join(ours, ", ") + from + " WHERE h.sid = ?"
	c.theirs = "SELECT count(*)" + from + " WHERE h.sid = ? AND " + strings.Join(same, " AND ")
	return c
}

func (v *verifier) compareRows(ctx context.Context, scratch *Store, sid int64, c compared) error {
	columns := strings.Count(c.theirs, "?") - 1
	return v.each(ctx, func(scan db.Scan) error {
		row, dest := make([]any, columns), make([]any, columns)
		for i := range row {
			dest[i] = &row[i]
		}
		if err := scan(dest...); err != nil {
			return err
		}
		for i := range row {
			if b, ok := row[i].([]byte); ok && b == nil {
				row[i] = []byte{} // that is how the driver reads an empty one
			}
		}
		if name, ok := row[0].([]byte); ok && c.subject {
			row[0] = string(name)
		}
		var n int
		if _, err := scratch.db.Read.One(ctx, []any{&n}, c.theirs, append([]any{sid}, row...)...); err != nil {
			return err
		}
		if n != 1 {
			v.tell(c.what, "%s", name(row[0]))
		}
		return nil
	}, c.ours, v.sid)
}

func name(column any) string {
	if b, ok := column.([]byte); ok && len(b) == 32 {
		return tinycloud.Hash(b).String()
	}
	return fmt.Sprintf("%s", column)
}

// compareSums looks for rows that are not here, and at the heads.
func (v *verifier) compareSums(ctx context.Context, scratch *Store, sid int64) error {
	tables := []string{"epochs", "events", "ops", "pending", "states"}
	for _, x := range v.s.held.tables {
		tables = append(tables, x.Name)
	}
	for _, table := range tables {
		var ours, theirs int64
		query := "SELECT count(*) FROM " + table + " WHERE sid = ?"
		if _, err := v.s.db.Read.One(ctx, []any{&ours}, query, v.sid); err != nil {
			return err
		}
		if _, err := scratch.db.Read.One(ctx, []any{&theirs}, query, sid); err != nil {
			return err
		}
		if ours < theirs {
			v.tell("rows that are lost", "%s: %d of %d", table, ours, theirs)
		}
	}
	heads := func(s *Store) (out string, err error) {
		err = s.do(ctx, func(t *tx) error {
			t.s.mu.RLock()
			sid := max(t.s.ids[v.id], t.s.imported[v.id])
			sp := t.s.spaces[v.id]
			t.s.mu.RUnlock()
			if sp == nil {
				if sp, err = t.loadSpace(v.id, sid); err != nil {
					return err
				}
			}
			out = ""
			for _, h := range sp.heads {
				out += h.id.String() + " "
			}
			return nil
		})
		return out, err
	}
	ours, err1 := heads(v.s)
	theirs, err2 := heads(scratch)
	if err := errors.Join(err1, err2); err != nil {
		v.tell("space that cannot be loaded", "%v", err)
		return nil
	}
	if ours != theirs {
		v.tell("heads that are others", "%s, should be %s", ours, theirs)
	}
	return nil
}
