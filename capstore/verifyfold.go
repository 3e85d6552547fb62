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
	return v.each(ctx, func(scan db.Scan) error {
		var key []byte
		err := scan(&key)
		v.tell("current value that is lost", "%q", key)
		return err
	}, `SELECT k.key FROM kv k LEFT JOIN vals v ON v.sid = k.sid AND v.hash = k.value LEFT JOIN wants w ON w.sid = k.sid AND w.hash = k.value
		WHERE k.sid = ? AND k.live = 1 AND v.hash IS NULL AND w.hash IS NULL`, v.sid)
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

// compare looks every verdict up among those made anew.
func (v *verifier) compare(ctx context.Context, scratch *Store, sid int64) error {
	for _, c := range []struct{ what, ours, theirs string }{
		{
			"epoch that is judged otherwise", "SELECT id, seq, t, written, begin_of, valid FROM epochs WHERE sid = ?",
			"SELECT count(*) FROM epochs WHERE sid = ? AND id = ? AND seq = ? AND t = ? AND written = ? AND begin_of = ? AND valid = ?",
		},
		{
			"event that is judged otherwise", "SELECT p.id, e.idx, e.kind, e.valid FROM epochs p JOIN events e ON e.eid = p.eid WHERE p.sid = ?",
			"SELECT count(*) FROM epochs p JOIN events e ON e.eid = p.eid WHERE p.sid = ? AND p.id = ? AND e.idx = ? AND e.kind = ? AND e.valid = ?",
		},
		{
			"operation that is judged otherwise", "SELECT p.id, o.idx, o.n, o.valid FROM epochs p JOIN ops o ON o.eid = p.eid WHERE p.sid = ?",
			"SELECT count(*) FROM epochs p JOIN ops o ON o.eid = p.eid WHERE p.sid = ? AND p.id = ? AND o.idx = ? AND o.n = ? AND o.valid = ?",
		},
		{
			"log entry that is judged otherwise", "SELECT digest, n, at, valid FROM entries WHERE sid = ? AND branch < 1073741824",
			"SELECT count(*) FROM entries WHERE sid = ? AND digest = ? AND n = ? AND at = ? AND valid = ?",
		},
		{
			"key that holds something else", "SELECT k.key, k.live, k.seq, k.epoch, k.idx, k.value, k.meta, k.f_seq, k.f_epoch, k.f_idx FROM kv k WHERE k.sid = ?",
			"SELECT count(*) FROM kv WHERE sid = ? AND key = ? AND live = ? AND seq = ? AND epoch = ? AND idx = ? AND value = ? AND meta = ? AND f_seq = ? AND f_epoch = ? AND f_idx = ?",
		},
		{
			"state of a service that should be another", "SELECT s.service, s.id, s.state FROM states s WHERE s.sid = ?",
			"SELECT count(*) FROM states WHERE sid = ? AND service = CAST(? AS TEXT) AND id = ? AND state = ?",
		},
		{
			"conflict that is none", "SELECT c.event, p.id, c.idx, c.n, c.value FROM conflicts c JOIN epochs p ON p.eid = c.eid WHERE c.sid = ?",
			"SELECT count(*) FROM conflicts c JOIN epochs p ON p.eid = c.eid WHERE c.sid = ? AND c.event = ? AND p.id = ? AND c.idx = ? AND c.n = ? AND c.value = ?",
		},
	} {
		if v.s.db.Shared { // there the column may hold what stands for a long key
			c.ours = strings.Replace(c.ours, "SELECT k.key,", "SELECT coalesce(k.whole, k.key),", 1)
		}
		if err := v.compareRows(ctx, scratch, sid, c.what, c.ours, c.theirs); err != nil {
			return err
		}
	}
	return v.compareSums(ctx, scratch, sid)
}

func (v *verifier) compareRows(ctx context.Context, scratch *Store, sid int64, what, ours, theirs string) error {
	columns := strings.Count(theirs, "?") - 1
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
		if key, ok := row[0].([]byte); ok && strings.Contains(theirs, "AND key = ?") {
			row[0] = string(key)
		}
		var n int
		if _, err := scratch.db.Read.One(ctx, []any{&n}, theirs, append([]any{sid}, row...)...); err != nil {
			return err
		}
		if n != 1 {
			v.tell(what, "%s", name(row[0]))
		}
		return nil
	}, ours, v.sid)
}

func name(column any) string {
	if b, ok := column.([]byte); ok && len(b) == 32 {
		return tinycloud.Hash(b).String()
	}
	return fmt.Sprintf("%s", column)
}

// compareSums looks for rows that are not here, and at the heads.
func (v *verifier) compareSums(ctx context.Context, scratch *Store, sid int64) error {
	for _, table := range []string{"epochs", "kv", "events", "ops", "conflicts", "pending", "states"} {
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
