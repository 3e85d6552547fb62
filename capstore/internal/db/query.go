package db

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// patience is how long a server may take for one statement, or for the next row of its answer.
	patience = 20 * time.Second
	// maxPrepared bounds the statements that a pool keeps; texts beyond are run as they are.
	maxPrepared = 256
)

// Scan reads the columns of a row.
type Scan = func(dest ...any) error

// Pool is a set of connections for reading. It is safe for concurrent use.
type Pool struct {
	d     Dialect
	db    *sql.DB
	trips *atomic.Int64
	quick bool // its connections are [reading]s

	mu    sync.RWMutex
	stmts map[string]*sql.Stmt // guarded by mu
}

// One scans the first row of a query; ok is false when there is none.
func (p *Pool) One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error) {
	ctx, w := p.d.watch(ctx)
	defer w.end()
	if ok, err = p.one(ctx, dest, query, args); p.ended(ctx, err) {
		ok, err = p.one(ctx, dest, query, args)
	}
	return ok, err
}

func (p *Pool) one(ctx context.Context, dest []any, query string, args []any) (ok bool, err error) {
	p.trips.Add(1)
	if p.quick {
		return p.quickOne(ctx, dest, query, args)
	}
	st, err := p.stmt(ctx, query)
	switch {
	case err != nil:
		return false, Error(err)
	case st == nil:
		return found(p.db.QueryRowContext(ctx, p.d.text(query), p.d.args(args)...).Scan(new(owned).of(p.d, dest)...))
	}
	return found(st.QueryRowContext(ctx, p.d.args(args)...).Scan(new(owned).of(p.d, dest)...))
}

// Each calls f for each row of a query. It holds a connection until it returns.
func (p *Pool) Each(ctx context.Context, f func(Scan) error, query string, args ...any) error {
	ctx, w := p.d.watch(ctx)
	defer w.end()
	begun := false
	call := func(scan Scan) error {
		begun = true
		return f(scan)
	}
	err := p.each(ctx, w, call, query, args)
	if !begun && p.ended(ctx, err) {
		err = p.each(ctx, w, call, query, args)
	}
	return err
}

func (p *Pool) each(ctx context.Context, w *watcher, f func(Scan) error, query string, args []any) error {
	p.trips.Add(1)
	st, err := p.stmt(ctx, query)
	if err != nil {
		return Error(err)
	}
	var rows *sql.Rows
	if st == nil {
		rows, err = p.db.QueryContext(ctx, p.d.text(query), p.d.args(args)...)
	} else {
		rows, err = st.QueryContext(ctx, p.d.args(args)...)
	}
	return p.d.each(rows, err, w, f)
}

// ended reports whether a read failed because a server had ended its connection: it may be tried once more, on a new one.
func (p *Pool) ended(ctx context.Context, err error) bool {
	if err == nil || !p.d.Shared || ctx.Err() != nil || Refused(err) {
		return false
	}
	forgetIdle(p.db)
	return true
}

// forgetIdle closes the connections of a server's pool that nobody uses: a server that was away has ended all of them.
func forgetIdle(pool *sql.DB) {
	pool.SetMaxIdleConns(-1)
	pool.SetMaxIdleConns(maxConns)
}

// Exec runs a statement in a transaction of its own and returns how many rows it matched.
func (p *Pool) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	p.trips.Add(1)
	ctx, w := p.d.watch(ctx)
	defer w.end()
	res, err := p.db.ExecContext(ctx, p.d.text(query), p.d.args(args)...)
	if err != nil {
		return 0, Error(err)
	}
	n, err := res.RowsAffected()
	return n, Error(err)
}

// stmt returns a prepared statement, nil when no more are kept.
func (p *Pool) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.RLock()
	st, full := p.stmts[query], len(p.stmts) >= maxPrepared
	p.mu.RUnlock()
	if st != nil || full {
		return st, nil
	}
	st, err := p.db.PrepareContext(ctx, p.d.text(query))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.stmts[query]; other != nil {
		_ = st.Close() // another was as quick
		return other, nil
	}
	p.stmts[query] = st
	return st, nil
}

// Snapshot calls f with a view of the database that does not change.
func (p *Pool) Snapshot(ctx context.Context, f func(*Snapshot) error) error {
	var o *sql.TxOptions
	if p.d.Shared {
		o = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	tx, err := p.db.BeginTx(ctx, o)
	if err != nil {
		return Error(err)
	}
	defer func() { _ = tx.Rollback() }() // there is nothing to lose
	return f(&Snapshot{d: p.d, tx: tx, stmts: map[string]*sql.Stmt{}})
}

// Snapshot is a view of the database at one time. It is for one goroutine.
type Snapshot struct {
	d     Dialect
	tx    *sql.Tx
	stmts map[string]*sql.Stmt // of what was asked; nil for what was asked once. They end with the transaction.
}

// query asks. What is asked again is prepared.
func (s *Snapshot) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	st, again := s.stmts[query]
	if st == nil && again {
		var err error
		if st, err = s.tx.PrepareContext(ctx, s.d.text(query)); err != nil {
			return nil, err
		}
	}
	if len(s.stmts) < maxPrepared || again {
		s.stmts[query] = st
	}
	if st == nil {
		return s.tx.QueryContext(ctx, s.d.text(query), s.d.args(args)...)
	}
	return st.QueryContext(ctx, s.d.args(args)...)
}

// One scans the first row of a query; ok is false when there is none.
func (s *Snapshot) One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error) {
	ctx, w := s.d.watch(ctx)
	defer w.end()
	return found(s.tx.QueryRowContext(ctx, s.d.text(query), s.d.args(args)...).Scan(dest...))
}

// Each calls f for each row of a query. No other may be asked meanwhile.
func (s *Snapshot) Each(ctx context.Context, f func(Scan) error, query string, args ...any) error {
	ctx, w := s.d.watch(ctx)
	defer w.end()
	rows, err := s.query(ctx, query, args)
	return s.d.each(rows, err, w, f)
}

// Conn is the connection of the one who writes. It is for one goroutine.
type Conn struct {
	d       Dialect
	pool    *sql.DB
	conn    *sql.Conn
	stmts   map[string]*sql.Stmt
	inserts map[Insert]*sql.Stmt
	direct  map[string]directStmt // of what answers nothing on SQLite
	queries map[string]queryStmt  // of what answers there
	last    driver.Result         // of the last of direct
	row     []any                 // arguments of one of these
	named   []driver.NamedValue   // the same as the driver takes them

	gathers bool         // inserts are kept back on SQLite too, see [Conn.Gather]
	behind  <-chan error // what came of those that run; nil: none do
	lost    error        // why something that was kept back there did not get into the transaction: it can't be committed

	// See batch.go.
	texts    map[string]string // of queries, as the driver takes them
	inserted map[rowsOf]string // likewise of inserts
	shapes   map[shape]string  // of statements with stand-ins
	kept     []statement
	open     map[string]*inserts // by table: those of kept that more may be added to
	keptSize int                 // bytes, about
	keptRows int                 // on SQLite
	rowBytes int                 // of rows that were kept back in the transaction, there
	room     room                // of these
	bulk     bulk                // see bulk.go
	begun    bool                // something of the transaction was sent
	supposes bool                // see [Conn.Suppose]
	locked   int                 // how many of kept come before [Whole.Lock]
	trips    *atomic.Int64
}

// One scans the first row of a query; ok is false when there is none.
func (c *Conn) One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error) {
	if !c.d.Shared {
		if err := c.send(ctx, nil); err != nil {
			return false, err
		}
	}
	if len(c.kept) > 0 {
		err := c.Ask(ctx, []Query{{query, args, func(scan Scan) error {
			if ok {
				return nil
			}
			ok = true
			return scan(dest...)
		}}})
		return ok && err == nil, err
	}
	if c.supposes {
		return false, ErrAsks
	}
	if !c.d.Shared {
		return c.quickOne(ctx, dest, query, args)
	}
	ctx, w := c.d.watch(ctx)
	defer w.end()
	st, err := c.stmt(ctx, query)
	if err != nil {
		return false, Error(err)
	}
	c.trips.Add(1)
	return found(st.QueryRowContext(ctx, c.d.args(args)...).Scan(new(owned).of(c.d, dest)...))
}

// Each calls f for each row of a query. f must not use the connection.
func (c *Conn) Each(ctx context.Context, f func(Scan) error, query string, args ...any) error {
	if len(c.kept) > 0 && c.d.Shared {
		return c.Ask(ctx, []Query{{query, args, f}})
	}
	if c.supposes {
		return ErrAsks
	}
	if err := c.send(ctx, nil); err != nil {
		return err
	}
	if !c.d.Shared {
		return c.quickEach(ctx, f, query, args)
	}
	ctx, w := c.d.watch(ctx)
	defer w.end()
	st, err := c.stmt(ctx, query)
	if err != nil {
		return Error(err)
	}
	c.trips.Add(1)
	rows, err := st.QueryContext(ctx, c.d.args(args)...)
	return c.d.each(rows, err, w, f)
}

// Exec runs a statement, on a server no later than the next query.
func (c *Conn) Exec(ctx context.Context, query string, args ...any) error {
	if c.d.Shared {
		return c.keep(ctx, c.text(query), args)
	}
	if err := c.send(ctx, nil); err != nil {
		return err
	}
	return c.runOne(ctx, query, withBytes(args))
}

// Insert adds a row and returns the number that the database gave it, if the insert names its column. Else a server is told
// no later than with the next query.
func (c *Conn) Insert(ctx context.Context, i Insert, args ...any) (id int64, err error) {
	switch {
	case i.ID != "":
	case c.d.Shared:
		return 0, c.keepInsert(ctx, i, args)
	case c.gathers:
		return 0, c.keepRow(ctx, i, args)
	}
	if c.d.Shared || c.behind != nil || len(c.kept) > 0 {
		if err := c.send(ctx, nil); err != nil {
			return 0, err
		}
	}
	if !c.d.Shared {
		if err := c.runOne(ctx, c.insertText(i, 1), args); err != nil || i.ID == "" {
			return 0, err
		}
		id, err := c.last.LastInsertId()
		return id, Error(err)
	}
	if c.supposes {
		return 0, ErrAsks
	}
	ctx, w := c.d.watch(ctx)
	defer w.end()
	st := c.inserts[i]
	if st == nil {
		if st, err = c.conn.PrepareContext(ctx, c.d.sql(i, 1)); err != nil {
			return 0, Error(err)
		}
		c.inserts[i] = st
	}
	c.trips.Add(1)
	if i.ID != "" && c.d.returning() {
		err := st.QueryRowContext(ctx, c.d.args(args)...).Scan(&id)
		return id, Error(err)
	}
	res, err := st.ExecContext(ctx, c.d.args(args)...)
	if err == nil && i.ID != "" {
		id, err = res.LastInsertId()
	}
	return id, Error(err)
}

// Begin, Commit and Rollback bound a transaction. On SQLite it has the right to write from its begin; a server is told with
// the first query.
func (c *Conn) Begin(ctx context.Context) error {
	if !c.d.Shared {
		c.rowBytes = 0
		return c.plain(ctx, "BEGIN IMMEDIATE")
	}
	c.forget()
	c.begun = false
	return c.keep(ctx, "BEGIN", nil)
}

// Commit makes the transaction durable. After an error nobody knows whether it is, but when the server refused it: [Refused].
func (c *Conn) Commit(ctx context.Context) error {
	if !c.d.Shared {
		if err := cmp.Or(c.send(ctx, nil), c.lost); err != nil {
			return err
		}
		if err := c.plain(ctx, "COMMIT"); err != nil {
			return err
		}
		c.committed(ctx, c.rowBytes)
		return nil
	}
	return c.CommitWith(ctx, nil)
}

// CommitWith is [Conn.Commit] on a server that asks queries last, in the same round trip.
func (c *Conn) CommitWith(ctx context.Context, queries []Query) error {
	all, err := c.statements(queries)
	if err != nil {
		return err
	}
	return c.send(ctx, append(all, statement{text: "COMMIT"}))
}

// Rollback undoes the transaction.
func (c *Conn) Rollback(ctx context.Context) error {
	_ = c.settle() // it is undone, too
	c.forget()
	c.gathers, c.lost, c.supposes, c.room = false, nil, false, room{}
	if c.d.Shared && !c.begun {
		return nil
	}
	return c.plain(ctx, "ROLLBACK")
}

func (c *Conn) plain(ctx context.Context, text string) error {
	if !c.d.Shared {
		return c.runOne(ctx, text, nil)
	}
	ctx, w := c.d.watch(ctx)
	defer w.end()
	c.trips.Add(1)
	_, err := c.conn.ExecContext(ctx, text)
	return Error(err)
}

// Close gives the connection back to its pool.
func (c *Conn) Close() error {
	_ = c.settle()
	c.bulk.wait()
	for _, st := range c.stmts {
		_ = st.Close()
	}
	for _, st := range c.inserts {
		_ = st.Close()
	}
	c.closeDirect()
	return c.conn.Close()
}

// Drop ends the connection, and with it what was begun on it.
func (c *Conn) Drop() {
	_ = c.settle()
	c.bulk.wait()
	c.closeDirect()
	_ = c.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.conn.Close()
}

// Lost is [Conn.Drop] of a connection that failed. Others that were idle in its pool are not to be trusted either.
func (c *Conn) Lost() {
	c.Drop()
	if c.d.Shared {
		forgetIdle(c.pool)
	}
}

func (c *Conn) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if st := c.stmts[query]; st != nil {
		return st, nil
	}
	st, err := c.conn.PrepareContext(ctx, c.d.text(query))
	if err != nil {
		return nil, err
	}
	c.stmts[query] = st
	return st, nil
}

func found(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, Error(err)
}

func (d Dialect) each(rows *sql.Rows, err error, w *watcher, f func(Scan) error) error {
	if err != nil {
		return Error(err)
	}
	defer rows.Close()
	var own owned
	return eachRow(func(dest ...any) error { return rows.Scan(own.of(d, dest)...) }, rows, w, f)
}

// watcher ends a statement that the server does not answer in time. It is nil where there is no server.
type watcher struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

var errPatience = errors.New("the server does not answer")

func (d Dialect) watch(ctx context.Context) (context.Context, *watcher) {
	if !d.Shared {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watcher{cancel: cancel, timer: time.AfterFunc(patience, func() { cancel(errPatience) })}
}

func (w *watcher) start() {
	if w != nil {
		w.timer.Reset(patience)
	}
}

func (w *watcher) pause() {
	if w != nil {
		w.timer.Stop()
	}
}

// next goes on to the next row of an answer, which has to come in time.
func (w *watcher) next(rows interface {
	Next() bool
	Err() error
},
) (more bool, err error) {
	w.start()
	defer w.pause()
	if rows.Next() {
		return true, nil
	}
	return false, Error(rows.Err())
}

func (w *watcher) end() {
	if w != nil {
		w.timer.Stop()
		w.cancel(nil)
	}
}
