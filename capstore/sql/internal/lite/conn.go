package lite

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// Error is what the engine says of a failure.
type Error struct {
	Code int    // extended result code
	Text string // its message
}

func (e *Error) Error() string { return e.Text }

// Primary is the result code without its extension.
func (e *Error) Primary() int { return e.Code & 0xff }

// TooBig reports whether an error says that a value is longer than the limit.
func TooBig(err error) bool { return hasCode(err, sq.SQLITE_TOOBIG) }

// Interrupted reports whether a statement was stopped by [Conn.Interrupt] or by its limit of steps.
func Interrupted(err error) bool { return hasCode(err, sq.SQLITE_INTERRUPT) }

// Broken reports whether an error says something of the machine or the file, and nothing of the statement: then what it
// did is not known, and the connection is to be closed.
func Broken(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return err != nil
	}
	switch e.Primary() {
	case sq.SQLITE_NOMEM, sq.SQLITE_IOERR, sq.SQLITE_CORRUPT, sq.SQLITE_CANTOPEN, sq.SQLITE_NOTADB, sq.SQLITE_BUSY, sq.SQLITE_PROTOCOL, sq.SQLITE_NOLFS:
		return true
	}
	return false
}

// Damaged reports whether an error says that the file is not what was written.
func Damaged(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == sq.SQLITE_IOERR_DATA || e.Primary() == sq.SQLITE_CORRUPT || e.Primary() == sq.SQLITE_NOTADB)
}

// Failed reports whether an error says that the disk failed.
func Failed(err error) bool { return hasCode(err, sq.SQLITE_IOERR) || hasCode(err, sq.SQLITE_CANTOPEN) }

func hasCode(err error, code int) bool {
	var e *Error
	return errors.As(err, &e) && e.Primary() == code
}

// Mode is how a file is opened.
type Mode int

// Modes.
const (
	ReadOnly Mode = iota
	ReadWrite
	Create
)

// Conn is a connection to a database file, for one goroutine at a time; [Conn.Interrupt] may come from others.
type Conn struct {
	tls   *libc.TLS
	db    uintptr
	Clock *Clock // nil: of the machine

	// Allow judges what a statement does while it is prepared, nil for everything. A function of SQLite's authorizer:
	// action and its arguments, the database and the view or trigger that it comes from.
	Allow func(action int, a, b, db, from string) bool
	// Random fills b, for random() and randomblob(); nil where they are the engine's own.
	Random func(b []byte)

	Meter Meter

	frames  int // in the WAL, after the last commit
	stop    atomic.Bool
	stmts   map[string]*Stmt
	recent  []string // keys of stmts, oldest first
	keep    []any    // functions that the engine may call
	modules []uintptr
}

// cachedStmts is how many prepared statements a connection keeps.
const cachedStmts = 64

// conns are open connections by their handle.
var conns sync.Map

// Open opens a database file. clock may be nil; it is the connection's from now on.
func Open(path string, mode Mode, clock *Clock) (*Conn, error) {
	flags := int32(sq.SQLITE_OPEN_NOMUTEX | sq.SQLITE_OPEN_EXRESCODE)
	switch mode {
	case ReadOnly:
		flags |= sq.SQLITE_OPEN_READONLY
	case ReadWrite:
		flags |= sq.SQLITE_OPEN_READWRITE
	case Create:
		flags |= sq.SQLITE_OPEN_READWRITE | sq.SQLITE_OPEN_CREATE
	}
	c := &Conn{tls: libc.NewTLS(), Clock: clock, stmts: map[string]*Stmt{}}
	name := cstring(c.tls, path)
	defer libc.Xfree(c.tls, name)
	var vfs uintptr
	if clock != nil {
		vfs = clock.name
	}
	out := c.tls.Alloc(8)
	defer c.tls.Free(8)
	rc := sq.Xsqlite3_open_v2(c.tls, name, out, flags, vfs)
	c.db = *at[uintptr](out)
	if rc != sq.SQLITE_OK {
		err := c.failure(rc)
		sq.Xsqlite3_close_v2(c.tls, c.db)
		c.tls.Close()
		if clock != nil {
			clock.release()
		}
		return nil, fmt.Errorf("open database: %w", err)
	}
	conns.Store(c.db, c)
	sq.Xsqlite3_set_authorizer(c.tls, c.db, pointer(&onAllow), c.db)
	sq.Xsqlite3_progress_handler(c.tls, c.db, stepsBetween, pointer(&onProgress), c.db)
	return c, nil
}

func conn(db uintptr) *Conn {
	c, _ := conns.Load(db)
	return c.(*Conn)
}

func (c *Conn) failure(rc int32) error {
	text := ""
	if c.db != 0 {
		text = libc.GoString(sq.Xsqlite3_errmsg(c.tls, c.db))
	}
	if text == "" || text == "not an error" {
		text = libc.GoString(sq.Xsqlite3_errstr(c.tls, rc))
	}
	return &Error{int(rc), text}
}

func (c *Conn) check(rc int32) error {
	if rc == sq.SQLITE_OK {
		return nil
	}
	return c.failure(rc)
}

// Close closes the connection and its statements. It may be called again.
func (c *Conn) Close() error {
	if c.db == 0 {
		return nil
	}
	c.Forget()
	if rc := sq.Xsqlite3_close(c.tls, c.db); rc != sq.SQLITE_OK {
		return fmt.Errorf("close database: %w", c.failure(rc))
	}
	conns.Delete(c.db)
	for _, p := range c.modules {
		libc.Xfree(c.tls, p)
	}
	c.db, c.keep = 0, nil
	c.tls.Close()
	if c.Clock != nil {
		c.Clock.release()
	}
	return nil
}

// Forget drops the prepared statements. An expired one would take two steps more than a fresh one.
func (c *Conn) Forget() {
	for _, s := range c.stmts {
		s.Finalize()
	}
	clear(c.stmts)
	c.recent = c.recent[:0]
}

// Interrupt stops what runs, and what runs later, until [Conn.Resume].
func (c *Conn) Interrupt() { c.stop.Store(true) }

// Resume ends the effect of [Conn.Interrupt].
func (c *Conn) Resume() { c.stop.Store(false) }

// Limits of a connection, as sqlite3_limit has them.
const (
	LimitLength      = sq.SQLITE_LIMIT_LENGTH
	LimitSQL         = sq.SQLITE_LIMIT_SQL_LENGTH
	LimitColumns     = sq.SQLITE_LIMIT_COLUMN
	LimitDepth       = sq.SQLITE_LIMIT_EXPR_DEPTH
	LimitCompound    = sq.SQLITE_LIMIT_COMPOUND_SELECT
	LimitProgram     = sq.SQLITE_LIMIT_VDBE_OP
	LimitArguments   = sq.SQLITE_LIMIT_FUNCTION_ARG
	LimitAttached    = sq.SQLITE_LIMIT_ATTACHED
	LimitPattern     = sq.SQLITE_LIMIT_LIKE_PATTERN_LENGTH
	LimitParameters  = sq.SQLITE_LIMIT_VARIABLE_NUMBER
	LimitTriggers    = sq.SQLITE_LIMIT_TRIGGER_DEPTH
	LimitParserDepth = sq.SQLITE_LIMIT_PARSER_DEPTH
)

// Limit sets a limit.
func (c *Conn) Limit(which, to int) { sq.Xsqlite3_limit(c.tls, c.db, int32(which), int32(to)) }

// Switches of a connection.
const (
	Defensive       = sq.SQLITE_DBCONFIG_DEFENSIVE
	TrustedSchema   = sq.SQLITE_DBCONFIG_TRUSTED_SCHEMA
	StablePlans     = sq.SQLITE_DBCONFIG_ENABLE_QPSG
	QuotedTextDDL   = sq.SQLITE_DBCONFIG_DQS_DDL
	QuotedTextDML   = sq.SQLITE_DBCONFIG_DQS_DML
	NoCheckpoint    = sq.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE
	ForeignKeys     = sq.SQLITE_DBCONFIG_ENABLE_FKEY
	TriggersEnabled = sq.SQLITE_DBCONFIG_ENABLE_TRIGGER
	Views           = sq.SQLITE_DBCONFIG_ENABLE_VIEW
)

// Switch sets a switch.
func (c *Conn) Switch(which int, on bool) error {
	v := int32(0)
	if on {
		v = 1
	}
	args := libc.NewVaList(v, uintptr(0))
	defer libc.Xfree(c.tls, args)
	return c.check(sq.Xsqlite3_db_config(c.tls, c.db, int32(which), args))
}

// KeepWAL has the write-ahead log stay when the last connection closes.
func (c *Conn) KeepWAL() error {
	p := c.tls.Alloc(8)
	defer c.tls.Free(8)
	*at[int32](p) = 1
	return c.check(sq.Xsqlite3_file_control(c.tls, c.db, 0, sq.SQLITE_FCNTL_PERSIST_WAL, p))
}

// CountFrames has [Conn.Frames] count. It takes the place of automatic checkpoints, of which there are none then.
func (c *Conn) CountFrames() { sq.Xsqlite3_wal_hook(c.tls, c.db, pointer(&onCommit), c.db) }

// Frames is how many frames the write-ahead log has since the last commit of this connection.
func (c *Conn) Frames() int { return c.frames }

// SetFrames says how many there are, after the log was set back.
func (c *Conn) SetFrames(n int) { c.frames = n }

// Changes is how many rows the last statement that changes rows has changed.
func (c *Conn) Changes() int64 { return int64(sq.Xsqlite3_changes64(c.tls, c.db)) }

// TotalChanges is the number of rows changed since [Conn.ResetCounters].
func (c *Conn) TotalChanges() int64 { return int64(sq.Xsqlite3_total_changes64(c.tls, c.db)) }

// LastRowID is the id of the row inserted last.
func (c *Conn) LastRowID() int64 { return int64(sq.Xsqlite3_last_insert_rowid(c.tls, c.db)) }

// ResetCounters has changes(), total_changes() and last_insert_rowid() begin at zero.
func (c *Conn) ResetCounters() {
	d := at[sq.Tsqlite3](c.db)
	d.FnChange, d.FnTotalChange, d.FlastRowid = 0, 0, 0
}

// InTransaction reports whether a transaction is open.
func (c *Conn) InTransaction() bool { return sq.Xsqlite3_get_autocommit(c.tls, c.db) == 0 }

// OpenForeignKeys reports whether a deferred foreign key is violated.
func (c *Conn) OpenForeignKeys() bool {
	p := c.tls.Alloc(8)
	defer c.tls.Free(8)
	sq.Xsqlite3_db_status(c.tls, c.db, sq.SQLITE_DBSTATUS_DEFERRED_FKS, p, p+4, 0)
	return *at[int32](p) > 0
}

// ForgetSchema has the schema read again: it is known by a number alone, which another schema may have after the log was
// set back.
func (c *Conn) ForgetSchema() error {
	c.Forget()
	return c.Script("PRAGMA writable_schema=RESET")
}
