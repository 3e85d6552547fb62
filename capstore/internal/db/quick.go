package db

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// Queries of SQLite go around database/sql too: it takes as long as SQLite for a row that is found by its key.

// reading is a connection of SQLite's driver with the statements that were prepared on it.
type reading struct {
	sqliteConn
	queries map[string]queryStmt
}

// sqliteConn is what the driver's connection can do.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type queryStmt interface {
	driver.Stmt
	driver.StmtQueryContext
}

// readings makes such connections.
type readings struct {
	driver driver.Driver
	dsn    string
}

// openReadings opens a pool whose connections are [reading]s.
func openReadings(dsn string) (*sql.DB, error) {
	plain, err := sql.Open("sqlite", dsn) // it connects to nothing
	if err != nil {
		return nil, err
	}
	r := readings{plain.Driver(), dsn}
	return sql.OpenDB(r), plain.Close()
}

func (r readings) Driver() driver.Driver { return r.driver }

func (r readings) Connect(context.Context) (driver.Conn, error) {
	c, err := r.driver.Open(r.dsn)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(sqliteConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connection of the driver is a %T", c), c.Close())
	}
	return &reading{conn, map[string]queryStmt{}}, nil
}

// Close ends the statements, of which database/sql knows nothing, and the connection.
func (r *reading) Close() error {
	for _, st := range r.queries {
		_ = st.Close()
	}
	return r.sqliteConn.Close()
}

// quickOne scans the first row of a query on one of SQLite's connections.
func (p *Pool) quickOne(ctx context.Context, dest []any, query string, args []any) (ok bool, err error) {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return false, Error(err)
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	err = conn.Raw(func(dc any) error {
		r := dc.(*reading) // what openReadings makes
		st, err := prepared(ctx, r.queries, dc, query)
		if err != nil {
			return err
		}
		return eachQuick(ctx, st, args, func(scan Scan) error {
			ok = true
			return cmp.Or(scan(dest...), errFirst)
		})
	})
	if errors.Is(err, errFirst) {
		err = nil
	}
	return ok && err == nil, Error(err)
}

// quickEach calls f for each row of a query on SQLite's connection that writes. An error of f stays what it is.
func (c *Conn) quickEach(ctx context.Context, f func(Scan) error, query string, args []any) error {
	c.trips.Add(1)
	var own error
	err := c.conn.Raw(func(dc any) error {
		st, err := prepared(ctx, c.queries, dc, query)
		if err != nil {
			return err
		}
		return eachQuick(ctx, st, args, func(scan Scan) error {
			own = f(scan)
			return own
		})
	})
	if own != nil {
		return own
	}
	return Error(err)
}

func (c *Conn) quickOne(ctx context.Context, dest []any, query string, args []any) (ok bool, err error) {
	err = c.quickEach(ctx, func(scan Scan) error {
		ok = true
		return cmp.Or(scan(dest...), errFirst)
	}, query, args)
	if errors.Is(err, errFirst) {
		err = nil
	}
	return ok && err == nil, Error(err)
}

// errFirst ends a query of which the first row is enough.
var errFirst = errors.New("the first row")

// prepared returns a statement of a driver's connection that answers.
func prepared(ctx context.Context, queries map[string]queryStmt, dc any, query string) (queryStmt, error) {
	if st := queries[query]; st != nil {
		return st, nil
	}
	if len(queries) >= maxPrepared {
		for text, st := range queries { // any
			_ = st.Close()
			delete(queries, text)
			break
		}
	}
	plain, err := dc.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	st, ok := plain.(queryStmt)
	if !ok {
		return nil, fmt.Errorf("statement of the driver is a %T", plain)
	}
	queries[query] = st
	return st, nil
}

// eachQuick calls f for each row of a statement. What it scans is its own.
func eachQuick(ctx context.Context, st queryStmt, args []any, f func(Scan) error) error {
	named := make([]driver.NamedValue, len(args))
	for i, a := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(a)
		if err != nil {
			return err
		}
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	rows, err := st.QueryContext(ctx, named)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	scan := func(dest ...any) error { return scanRow(row, dest) }
	for err == nil {
		if err = rows.Next(row); err == nil {
			err = f(scan)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return cmp.Or(err, rows.Close())
}

// scanRow is [Row.Scan] of what a driver gives.
func scanRow(row []driver.Value, dest []any) error {
	if len(dest) != len(row) {
		return fmt.Errorf("scan of %d columns into %d", len(row), len(dest))
	}
	for i, d := range dest {
		if err := assign(d, row[i]); err != nil {
			return fmt.Errorf("scan of column %d: %w", i, err)
		}
	}
	return nil
}
