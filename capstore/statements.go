package capstore

import (
	"context"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

func (t *tx) exec(query string, args ...any) error {
	t.wrote = true
	t.known.executed(query, args)
	return t.note(t.conn.Exec(t.ctx, query, args...))
}

// add inserts a row.
func (t *tx) add(i db.Insert, args ...any) error {
	_, err := t.insert(i, args...)
	return err
}

// insert inserts a row and returns the number that the database gave it.
func (t *tx) insert(i db.Insert, args ...any) (int64, error) {
	t.wrote = true
	if t.s.db.Shared {
		t.known.rows(i, args, func(l service.Look, by []any) {
			row := rowOf(l, by)
			t.s.guess.is(row)
			if t.supposed != nil {
				t.supposed.adds(i, l, row)
			}
		})
	}
	t.known.inserted(i, args, !t.s.db.Shared)
	id, err := t.conn.Insert(t.ctx, i, args...)
	return id, t.note(err)
}

// gather has inserts wait for others like them, until something is asked or gather(false).
func (t *tx) gather(on bool) error {
	t.gathers = on
	return t.note(t.conn.Gather(t.ctx, on))
}

// one scans the first row of a query; ok is false when there is none.
func (t *tx) one(dest []any, query string, args ...any) (ok bool, err error) {
	ok, err = t.conn.One(t.ctx, dest, query, args...)
	return ok, t.note(err)
}

// ask asks several queries, on a server in one round trip.
func (t *tx) ask(queries []db.Query) error { return t.note(t.conn.Ask(t.ctx, queries)) }

// each calls f for each row of a query. f must not use the transaction.
func (t *tx) each(f func(scan db.Scan) error, query string, args ...any) error {
	return t.note(t.conn.Each(t.ctx, f, query, args...))
}

func (t *tx) note(err error) error {
	t.failed = t.failed || err != nil
	return err
}

// One reads for those who read without a transaction too.
func (t *tx) One(_ context.Context, dest []any, query string, args ...any) (bool, error) {
	return t.one(dest, query, args...)
}

// Each is as each.
func (t *tx) Each(_ context.Context, f func(db.Scan) error, query string, args ...any) error {
	return t.each(f, query, args...)
}
