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
	into *inserts         // instead of text and args

	rowsOf int // how many arguments each row of an insert has
}

// inserts are inserts of the same kind that are sent as one.
type inserts struct {
	insert Insert
	rows   [][]any
	keys   map[string]bool // of the rows, where one may replace another
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
		if l, ok := a.(listed); ok {
			st.args[i] = l.of
			continue
		}
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

// keep keeps a statement back. Inserts that come later stay behind it.
func (c *Conn) keep(ctx context.Context, text string, args []any) error {
	st, size, err := c.d.statement(text, withBytes(args))
	if err == nil && c.supposes {
		err = withStandIns(args, st.args)
	}
	if err != nil {
		return Error(err)
	}
	clear(c.open)
	return c.keepMore(ctx, st, size)
}

// keepInsert keeps an insert back, with others of its kind if there are such. It may come before what is kept of other
// tables, but not of its own.
func (c *Conn) keepInsert(ctx context.Context, i Insert, args []any) error {
	st, size, err := c.d.statement("", args)
	if err != nil {
		return Error(err)
	}
	key := i.keyOf(st.args)
	if of := c.open[i.Into]; of != nil && of.insert == i && !of.keys[key] {
		of.rows = append(of.rows, st.args)
		if i.Replace {
			of.keys[key] = true
		}
		return c.keepMore(ctx, statement{}, size)
	}
	of := &inserts{insert: i, rows: [][]any{st.args}, keys: map[string]bool{}}
	if i.Replace {
		of.keys[key] = true
	}
	c.open[i.Into] = of
	return c.keepMore(ctx, statement{into: of}, size)
}

// keepMore keeps a statement, if it is one, and sends all when they are many.
func (c *Conn) keepMore(ctx context.Context, st statement, size int) error {
	if st.text != "" || st.into != nil {
		c.kept = append(c.kept, st)
	}
	most := maxKept
	if c.supposes {
		most = 2 * MostWhole
	}
	if c.keptSize += size; c.keptSize > most {
		return c.send(ctx, nil)
	}
	return nil
}

// maxRows is how many rows one insert adds: a power of two.
const maxRows = 64

// maxGathered is the same for SQLite, where more rows gain nothing and a prepared statement takes memory for each.
const maxGathered = 16

// whole makes statements of what is kept.
func (c *Conn) whole(kept []statement) (all []statement) {
	for _, st := range kept {
		if st.into == nil {
			all = append(all, st)
			continue
		}
		for rest := st.into.rows; len(rest) > 0; {
			n := c.d.rowsOfOne(len(rest), maxRows)
			all = append(all, statement{text: c.insertText(st.into.insert, n), args: slices.Concat(rest[:n]...), rowsOf: len(rest[0])})
			rest = rest[n:]
		}
	}
	return all
}

// rowsOfOne is how many of some rows go into one statement: most, or a power of two, so that there are not many texts, for each is
// prepared once; MySQL, which is sent texts, takes all.
func (d Dialect) rowsOfOne(rows, most int) int {
	if d.Name == "mysql" {
		return min(rows, most)
	}
	for most > rows {
		most /= 2
	}
	return most
}

// rowsOf is the text of an insert of some rows.
type rowsOf struct {
	insert Insert
	rows   int
}

func (c *Conn) insertText(i Insert, rows int) string {
	k := rowsOf{i, rows}
	text, ok := c.inserted[k]
	if !ok {
		text = c.d.sql(i, rows)
		c.inserted[k] = text
	}
	return text
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
	all, err := c.statements(queries)
	if err != nil {
		return err
	}
	return c.send(ctx, all)
}

// statements are queries as a server's driver takes them.
func (c *Conn) statements(queries []Query) ([]statement, error) {
	all := make([]statement, len(queries))
	for i, q := range queries {
		st, _, err := c.d.statement(c.text(q.Text), q.Args)
		if err != nil {
			return nil, Error(err)
		}
		all[i], all[i].rows = st, q.Row
	}
	return all, nil
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
	if err := c.settle(); err != nil {
		return err
	}
	if len(c.kept)+len(more) == 0 {
		return nil
	}
	if !c.d.Shared {
		kept := c.kept
		c.forget()
		return c.run(ctx, kept)
	}
	if c.supposes {
		return ErrAsks
	}
	all := append(c.whole(c.kept), more...)
	c.forget()
	if len(all) == 0 {
		return nil
	}
	c.begun = true
	return c.transmit(ctx, all)
}

// transmit sends statements in one round trip.
func (c *Conn) transmit(ctx context.Context, all []statement) error {
	c.trips.Add(1)
	ctx, w := c.d.watch(ctx)
	defer w.end()
	if c.d.Name == "postgres" {
		return sendPostgres(ctx, c.conn, all, w)
	}
	return sendMySQL(ctx, c.conn, all, w)
}

// Gather keeps inserts back on SQLite, too, until the next query or other statement, and runs them behind the caller
// meanwhile: many rows in one statement take two thirds of the time. Those whose keys others may have go one by one: of
// several of them SQLite would note in a file how to undo them, page by page. Whatever is refused of them fails what comes
// next. It ends with Gather(ctx, false).
func (c *Conn) Gather(ctx context.Context, on bool) error {
	c.gathers = on
	if on || c.d.Shared {
		return nil
	}
	c.room = room{}
	return c.send(ctx, nil)
}

// forget forgets what is kept back.
func (c *Conn) forget() {
	c.kept, c.keptSize, c.keptRows, c.locked = nil, 0, 0, 0
	clear(c.open)
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
		if err := eachRow(rows.Scan, rows, w, st.rows); err != nil {
			return err
		}
	}
	rows.NextResultSet() // statements behind the last answer
	return Error(rows.Err())
}

// eachRow reads one answer.
func eachRow(scan Scan, rows *sql.Rows, w *watcher, f func(Scan) error) error {
	for {
		if more, err := w.next(rows); !more {
			return err
		}
		if err := f(scan); err != nil {
			return err
		}
	}
}
