package db

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
)

// On a server each statement that is waited for costs a round trip. So statements that answer nothing are kept back and
// sent with the next one that does, or with COMMIT. Whatever the server refuses of them fails what they are sent with: a
// transaction in which that happens did nothing.

// maxKept is how many bytes of statements are kept back. A server takes packets of a few times that.
const maxKept = 1 << 20

// statement is one as its driver takes it.
type statement struct {
	text string
	args []any
	rows func(Scan) error // called for each row of the answer; nil: there are none
}

// Query is one of several that are asked together.
type Query struct {
	Text string
	Args []any
	Row  func(Scan) error // is called for each row; it must not use the connection
}

// statement makes arguments what drivers take, in memory of their own: they are sent later.
func (d Dialect) statement(text string, args []any) (st statement, size int, err error) {
	st.text, st.args = text, slices.Clone(args)
	size = len(text)
	for i, a := range d.args(st.args) {
		v, err := driver.DefaultParameterConverter.ConvertValue(a)
		if err != nil {
			return st, 0, err
		}
		switch x := v.(type) {
		case []byte:
			v, size = slices.Clone(x), size+len(x)
		case string:
			size += len(x)
		}
		st.args[i] = v
	}
	return st, size, nil
}

// keep keeps a statement back.
func (c *Conn) keep(ctx context.Context, text string, args []any) error {
	st, size, err := c.d.statement(text, args)
	if err != nil {
		return Error(err)
	}
	c.kept, c.keptSize = append(c.kept, st), c.keptSize+size
	if c.keptSize > maxKept {
		return c.send(ctx, nil)
	}
	return nil
}

// Ask asks several queries, on a server in one round trip.
func (c *Conn) Ask(ctx context.Context, queries []Query) error {
	if !c.d.Shared {
		for _, q := range queries {
			if err := c.Each(ctx, q.Row, q.Text, q.Args...); err != nil {
				return err
			}
		}
		return nil
	}
	all := make([]statement, len(queries))
	for i, q := range queries {
		st, _, err := c.d.statement(c.text(q.Text), q.Args)
		if err != nil {
			return Error(err)
		}
		all[i], all[i].rows = st, q.Row
	}
	return c.send(ctx, all)
}

// text is a query as the driver takes it.
func (c *Conn) text(query string) string {
	t, ok := c.texts[query]
	if !ok {
		t = c.d.text(query)
		c.texts[query] = t
	}
	return t
}

// send sends what is kept back, and some statements behind that, in one round trip.
func (c *Conn) send(ctx context.Context, more []statement) error {
	all := append(c.kept, more...)
	c.kept, c.keptSize = nil, 0
	if len(all) == 0 {
		return nil
	}
	c.begun = true
	c.trips.Add(1)
	ctx, w := c.d.watch(ctx)
	defer w.end()
	if c.d.Name == "postgres" {
		return sendPostgres(ctx, c.conn, all, w)
	}
	return sendMySQL(ctx, c.conn, all, w)
}

// sendMySQL sends statements as one text: the protocol has no other way.
func sendMySQL(ctx context.Context, conn *sql.Conn, all []statement, w *watcher) error {
	var text strings.Builder
	var args []any
	answers := false
	for i, st := range all {
		if i > 0 {
			text.WriteByte(';')
		}
		text.WriteString(st.text)
		args = append(args, st.args...)
		answers = answers || st.rows != nil
	}
	if !answers {
		_, err := conn.ExecContext(ctx, text.String(), args...)
		return Error(err)
	}
	rows, err := conn.QueryContext(ctx, text.String(), args...) // at the first answer
	if err != nil {
		return Error(err)
	}
	defer rows.Close()
	first := true
	for _, st := range all {
		if st.rows == nil {
			continue
		}
		if !first && !rows.NextResultSet() {
			return Error(cmp.Or(rows.Err(), driver.ErrBadConn))
		}
		first = false
		if err := eachRow(rows, w, st.rows); err != nil {
			return err
		}
	}
	rows.NextResultSet() // statements behind the last answer
	return Error(rows.Err())
}

// eachRow reads one answer.
func eachRow(rows *sql.Rows, w *watcher, f func(Scan) error) error {
	for {
		w.start()
		more := rows.Next()
		w.pause()
		if !more {
			return Error(rows.Err())
		}
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
}
