package lite

import (
	"errors"
	"fmt"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// Stmt is a prepared statement.
type Stmt struct {
	c     *Conn
	p     uintptr
	bound []uintptr // memory of its parameters

	Tail     string // of the text, after the statement
	Columns  int    // of its rows
	Params   int    // the greatest number of a parameter
	ReadOnly bool   // it writes nothing to the file itself
	Explain  bool   // it is an EXPLAIN
	Note     any    // what its user wants to know of it when it is found in the cache
}

// Prepare compiles the first statement of a text. An empty one has no effect: see [Stmt.Empty].
func (c *Conn) Prepare(sql string) (*Stmt, error) {
	text := cstring(c.tls, sql)
	defer libc.Xfree(c.tls, text)
	out := c.tls.Alloc(16)
	defer c.tls.Free(16)
	c.Meter.compiling = 0
	if rc := sq.Xsqlite3_prepare_v3(c.tls, c.db, text, int32(len(sql)+1), 0, out, out+8); rc != sq.SQLITE_OK {
		return nil, c.failure(rc)
	}
	s := &Stmt{c: c, p: *at[uintptr](out), Tail: sql[*at[uintptr](out + 8)-text:]}
	if s.p == 0 {
		return s, nil
	}
	s.Columns = int(sq.Xsqlite3_column_count(c.tls, s.p))
	s.Params = int(sq.Xsqlite3_bind_parameter_count(c.tls, s.p))
	s.ReadOnly = sq.Xsqlite3_stmt_readonly(c.tls, s.p) != 0
	s.Explain = sq.Xsqlite3_stmt_isexplain(c.tls, s.p) != 0
	return s, nil
}

// ErrorOffset is where in the text the last failure of [Conn.Prepare] is, or -1.
func (c *Conn) ErrorOffset() int { return int(sq.Xsqlite3_error_offset(c.tls, c.db)) }

// Cached is a prepared statement that the connection keeps under a key, or nil.
func (c *Conn) Cached(key string) *Stmt { return c.stmts[key] }

// Cache keeps a statement until [Conn.Forget], or until many others were kept after it.
func (c *Conn) Cache(key string, s *Stmt) {
	if len(c.recent) >= cachedStmts {
		c.stmts[c.recent[0]].Finalize()
		delete(c.stmts, c.recent[0])
		c.recent = append(c.recent[:0], c.recent[1:]...)
	}
	c.stmts[key] = s
	c.recent = append(c.recent, key)
}

// Empty reports whether the text was blank or a comment.
func (s *Stmt) Empty() bool { return s.p == 0 }

// Finalize frees the statement.
func (s *Stmt) Finalize() {
	if s.p != 0 {
		sq.Xsqlite3_finalize(s.c.tls, s.p)
		s.p = 0
	}
	s.unbind()
}

// Reset ends its run, so that it may run again, and drops its parameters.
func (s *Stmt) Reset() {
	sq.Xsqlite3_reset(s.c.tls, s.p)
	sq.Xsqlite3_clear_bindings(s.c.tls, s.p)
	s.unbind()
}

func (s *Stmt) unbind() {
	for _, b := range s.bound {
		libc.Xfree(s.c.tls, b)
	}
	s.bound = s.bound[:0]
}

// Bind sets parameters from the first: nil, int64, float64, string or []byte.
func (s *Stmt) Bind(params []any) error {
	for i, v := range params {
		if err := s.bind(int32(i+1), v); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stmt) bind(n int32, v any) error {
	c := s.c
	switch v := v.(type) {
	case nil:
		return c.check(sq.Xsqlite3_bind_null(c.tls, s.p, n))
	case int64:
		return c.check(sq.Xsqlite3_bind_int64(c.tls, s.p, n, v))
	case float64:
		return c.check(sq.Xsqlite3_bind_double(c.tls, s.p, n, v))
	case string:
		return c.check(sq.Xsqlite3_bind_text(c.tls, s.p, n, s.lend(v), int32(len(v)), 0))
	case []byte:
		if len(v) == 0 {
			return c.check(sq.Xsqlite3_bind_zeroblob(c.tls, s.p, n, 0))
		}
		return c.check(sq.Xsqlite3_bind_blob(c.tls, s.p, n, s.lend(string(v)), int32(len(v)), 0))
	}
	return fmt.Errorf("parameter %d is a %T", n, v)
}

// lend copies a text to memory of the engine, until the statement is reset.
func (s *Stmt) lend(v string) uintptr {
	p := cstring(s.c.tls, v)
	s.bound = append(s.bound, p)
	return p
}

// Step runs the statement to its next row, and reports whether there is one.
func (s *Stmt) Step() (bool, error) {
	m := &s.c.Meter
	m.running = true
	rc := sq.Xsqlite3_step(s.c.tls, s.p)
	m.running = false
	s.Columns = int(sq.Xsqlite3_column_count(s.c.tls, s.p)) // SQLite compiles it anew when the schema is another
	switch rc {
	case sq.SQLITE_ROW:
		return true, nil
	case sq.SQLITE_DONE:
		return false, nil
	}
	return false, s.c.failure(rc)
}

// Count adds the steps that the statement took to the meter, each once.
func (s *Stmt) Count() {
	m := &s.c.Meter
	m.Steps += int64(sq.Xsqlite3_stmt_status(s.c.tls, s.p, sq.SQLITE_STMTSTATUS_VM_STEP, 1))
	m.calls = 0
}

// Column is a cell of the row, by its storage class: nil, int64, float64, string or []byte. A text may be no UTF-8.
func (s *Stmt) Column(i int) any {
	tls, n := s.c.tls, int32(i)
	switch sq.Xsqlite3_column_type(tls, s.p, n) {
	case sq.SQLITE_INTEGER:
		return sq.Xsqlite3_column_int64(tls, s.p, n)
	case sq.SQLITE_FLOAT:
		return sq.Xsqlite3_column_double(tls, s.p, n)
	case sq.SQLITE_TEXT:
		p := sq.Xsqlite3_column_text(tls, s.p, n)
		return string(view(p, int(sq.Xsqlite3_column_bytes(tls, s.p, n))))
	case sq.SQLITE_BLOB:
		p := sq.Xsqlite3_column_blob(tls, s.p, n)
		return append([]byte{}, view(p, int(sq.Xsqlite3_column_bytes(tls, s.p, n)))...)
	}
	return nil
}

// Name is the name of a column.
func (s *Stmt) Name(i int) string {
	return libc.GoString(sq.Xsqlite3_column_name(s.c.tls, s.p, int32(i)))
}

// Run runs a statement of our own to its end, and keeps it prepared. Nothing judges it.
func (c *Conn) Run(sql string, params ...any) error {
	_, err := c.Value(sql, params...)
	return err
}

// Value is the first cell that a statement of our own gives, nil for none.
func (c *Conn) Value(sql string, params ...any) (v any, err error) {
	err = c.Each(sql, params, func(s *Stmt) error {
		if v == nil && s.Columns > 0 {
			v = s.Column(0)
		}
		return nil
	})
	return v, err
}

// Each calls f for every row of a statement of our own.
func (c *Conn) Each(sql string, params []any, f func(*Stmt) error) error {
	allow := c.Allow
	c.Allow = nil
	defer func() { c.Allow = allow }()
	key := "\x00" + sql
	s := c.Cached(key)
	if s == nil {
		var err error
		if s, err = c.Prepare(sql); err != nil {
			return err
		}
		if s.Empty() {
			return errors.New("statement is empty")
		}
		c.Cache(key, s)
	}
	defer s.Reset()
	if err := s.Bind(params); err != nil {
		return err
	}
	c.Meter.compiling = 0
	for {
		switch rc := sq.Xsqlite3_step(c.tls, s.p); rc {
		case sq.SQLITE_ROW:
			if err := f(s); err != nil {
				return err
			}
		case sq.SQLITE_DONE:
			return nil
		default:
			return c.failure(rc)
		}
	}
}

// Script runs statements of our own, one after the other, and keeps none of them.
func (c *Conn) Script(sql string) error {
	allow := c.Allow
	c.Allow = nil
	defer func() { c.Allow = allow }()
	text := cstring(c.tls, sql)
	defer libc.Xfree(c.tls, text)
	return c.check(sq.Xsqlite3_exec(c.tls, c.db, text, 0, 0, 0))
}
