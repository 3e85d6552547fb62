package db

import (
	"context"
	"database/sql/driver"
	"fmt"
)

// What is done many times on SQLite goes around database/sql, which makes lists of all arguments and copies of all bytes
// each time.

// run runs inserts that were kept back on SQLite.
func (c *Conn) run(ctx context.Context, kept []statement) error {
	err := c.conn.Raw(func(dc any) error {
		for _, st := range kept {
			for rest := st.into.rows; len(rest) > 0; {
				n := 1
				if st.into.insert.together() {
					n = c.d.rowsOfOne(len(rest), maxGathered)
				}
				if err := c.runDirect(ctx, dc, c.insertText(st.into.insert, n), rest[:n]...); err != nil {
					return err
				}
				rest = rest[n:]
			}
		}
		return nil
	})
	if err != nil {
		c.lost = Error(err)
		return c.lost
	}
	return nil
}

// runOne runs a statement that answers nothing on SQLite.
func (c *Conn) runOne(ctx context.Context, text string, args []any) error {
	row := c.row[:0]
	for _, a := range args {
		v, err := plainArg(a)
		if err != nil {
			return Error(err)
		}
		row = append(row, v)
	}
	c.row = row
	defer clear(row)
	return Error(c.conn.Raw(func(dc any) error { return c.runDirect(ctx, dc, text, row) }))
}

// runDirect runs a statement of the driver's connection with arguments of several rows.
func (c *Conn) runDirect(ctx context.Context, dc any, text string, rows ...[]any) error {
	st := c.direct[text]
	if st == nil {
		plain, err := dc.(driver.ConnPrepareContext).PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		var ok bool
		if st, ok = plain.(directStmt); !ok {
			return fmt.Errorf("statement of the driver is a %T", plain)
		}
		c.direct[text] = st
	}
	args := c.named[:0]
	for _, row := range rows {
		for _, a := range row {
			args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: a})
		}
	}
	c.named = args
	c.trips.Add(1)
	var err error
	c.last, err = st.ExecContext(ctx, args)
	clear(args) // the rows are not kept
	return err
}

type directStmt interface {
	driver.Stmt
	driver.StmtExecContext
}

// closeDirect closes the driver's statements, which database/sql knows nothing of: a connection of SQLite that has some stays
// open.
func (c *Conn) closeDirect() {
	if len(c.direct)+len(c.queries) == 0 {
		return
	}
	_ = c.conn.Raw(func(any) error {
		for _, st := range c.direct {
			_ = st.Close()
		}
		for _, st := range c.queries {
			_ = st.Close()
		}
		return nil
	})
	clear(c.direct)
	clear(c.queries)
}

// owned has scanned bytes be those that the driver made, where it makes them for each row anew: database/sql copies them
// again. It is for the rows of one query.
type owned struct {
	dest  []any
	bytes []ownBytes
	anys  []ownAny
}

// of is dest as database/sql is given it, until the next row.
func (o *owned) of(d Dialect, dest []any) []any {
	if d.Shared {
		return dest
	}
	if len(o.dest) != len(dest) {
		o.dest, o.bytes, o.anys = make([]any, len(dest)), make([]ownBytes, len(dest)), make([]ownAny, len(dest))
	}
	for i, x := range dest {
		switch to := x.(type) {
		case *[]byte:
			o.bytes[i].to = to
			o.dest[i] = &o.bytes[i]
		case *any:
			o.anys[i].to = to
			o.dest[i] = &o.anys[i]
		default:
			o.dest[i] = x
		}
	}
	return o.dest
}

// ownBytes takes bytes as they are.
type ownBytes struct{ to *[]byte }

// Scan implements [database/sql.Scanner].
func (o *ownBytes) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*o.to = nil
	case []byte:
		*o.to = v
	case string:
		*o.to = []byte(v)
	default:
		return fmt.Errorf("column is a %T, not bytes", src)
	}
	return nil
}

// ownAny takes anything as it is.
type ownAny struct{ to *any }

// Scan implements [database/sql.Scanner].
func (o *ownAny) Scan(src any) error {
	*o.to = src
	return nil
}
