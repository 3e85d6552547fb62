package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// runner runs the statements of a request on a connection.
type runner struct {
	c      *lite.Conn
	held   gate.Held
	facts  *gate.Facts
	policy *gate.Policy
	logged bool
	tier   byte // in which it runs: what was compiled in one may not be what another would compile

	touched []string
	defines bool // a statement changed the schema
}

func newRunner(c *lite.Conn, held gate.Held, facts *gate.Facts, logged bool) *runner {
	return &runner{c: c, held: held, facts: facts, logged: logged, policy: gate.NewPolicy(held, facts, logged)}
}

// compiled is what is known of a prepared statement beside it.
type compiled struct {
	of      gate.Statement
	defines bool
	touched []string
}

// prepare compiles a statement or finds it compiled. The error is a refusal, or says that the machine failed.
func (r *runner) prepare(sql, kind string) (*lite.Stmt, compiled, error) {
	of, err := gate.Inspect(sql)
	if err == nil {
		err = errors.Join(r.held.Permit(of.Kind), r.facts.Permit(of))
	}
	if err != nil {
		return nil, compiled{}, firstRefusal(err)
	}
	r.policy.Begin(of.Kind)
	r.c.Allow = r.policy.Allow
	key := ""
	if r.facts == nil {
		key = string([]byte{byte(r.held), r.tier}) + sql
		if s := r.c.Cached(key); s != nil {
			return s, s.Note.(compiled), nil
		}
	}
	s, err := r.c.Prepare(sql)
	if err != nil {
		return nil, compiled{}, r.refuse(kind, sql, err, true)
	}
	if r.follows(s.Tail) {
		s.Finalize()
		return nil, compiled{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Invalid statement: Exactly one SQL statement is required")
	}
	note := compiled{of, r.policy.Defines(), r.policy.Touched()}
	s.Note = note
	switch {
	case s.Empty() || s.Explain || !s.ReadOnly && !of.Writes() && of.Kind != gate.Pragma:
		s.Finalize()
		return nil, compiled{}, tinycloud.Refuse(tinycloud.ErrInvalid, "Parse error: the statement is of no kind that is known")
	case key == "":
	default:
		r.c.Cache(key, s)
	}
	return s, note, nil
}

// follows reports whether SQLite sees another statement in what is behind the first.
func (r *runner) follows(tail string) bool {
	for strings.Trim(tail, "; \t\r\n") != "" {
		s, err := r.c.Prepare(tail)
		if err != nil {
			return true
		}
		empty := s.Empty()
		tail = s.Tail
		s.Finalize()
		if !empty {
			return true
		}
	}
	return false
}

func firstRefusal(err error) error {
	var r *tinycloud.Refusal
	if errors.As(err, &r) {
		return r
	}
	return err
}

// run runs a statement and calls each for its rows. kind is what its errors are called.
func (r *runner) run(kind string, q request.Statement, each func(s *lite.Stmt) error) (c compiled, err error) {
	s, c, err := r.prepare(q.SQL, kind)
	if err != nil {
		return c, err
	}
	defer func() {
		s.Reset()
		s.Count()
		if r.facts != nil {
			s.Finalize()
		}
		r.c.Allow = nil
		if c.defines {
			r.defines = true
			r.c.Forget()
		}
	}()
	if s.Params != len(q.Params) {
		return c, tinycloud.Refuse(tinycloud.ErrInvalid, "%s: Wrong number of parameters passed to query. Got %d, needed %d", kind, len(q.Params), s.Params)
	}
	if err := s.Bind(q.Params); err != nil {
		return c, r.refuse(kind, q.SQL, err, false)
	}
	r.touched = append(r.touched, c.touched...)
	for {
		more, err := s.Step()
		if err != nil {
			return c, r.refuse(kind, q.SQL, err, false)
		}
		if !more {
			return c, nil
		}
		if each == nil {
			continue
		}
		if err := each(s); err != nil {
			return c, err
		}
	}
}

// tooBig is the error for a value that is longer than the tier allows.
type tooBig struct{ error }

func (t tooBig) Unwrap() error { return t.error }

// refuse makes a refusal of what SQLite says, unless it says that the machine failed.
func (r *runner) refuse(kind, sql string, err error, compiling bool) error {
	text := err.Error()
	if lite.Broken(err) {
		return err
	}
	if compiling && syntax(text) && kind == sqliteError {
		kind = "Parse error"
	}
	if offset := r.c.ErrorOffset(); compiling && offset >= 0 && len(sql) <= maxShown {
		text = fmt.Sprintf("%s in %s at offset %d", text, sql, offset)
	}
	if !utf8.ValidString(text) {
		text = fmt.Sprintf("%q", text)
	}
	refusal := tinycloud.Refuse(tinycloud.ErrInvalid, "%s: %s", kind, text)
	if lite.TooBig(err) {
		return tooBig{refusal}
	}
	return refusal
}

// maxShown is how long a statement may be that is shown with what is wrong with it.
const maxShown = 1000

func syntax(text string) bool {
	return strings.HasSuffix(text, ": syntax error") || text == "incomplete input" || strings.HasPrefix(text, "unrecognized token:")
}

// What the errors of statements are called.
const (
	sqliteError = "SQLite error"
	schemaError = "Schema error"
)

var errRows = tinycloud.Refuse(tinycloud.ErrInvalid, "SQLite error: Execute returned results - did you mean to call query?")

// all runs the statements of a request, and returns its answer if it is asked for.
func (r *runner) all(q *request.Request, answer bool) ([]byte, error) {
	for _, sql := range q.Schema {
		if _, err := r.run(schemaError, request.Statement{SQL: sql}, nil); err != nil {
			return nil, err
		}
	}
	if q.GivesRows() {
		return r.rows(q, answer)
	}
	changes := make(request.Changes, len(q.Statements))
	for i, s := range q.Statements {
		c, err := r.run(sqliteError, s, func(*lite.Stmt) error { return errRows })
		if err != nil {
			return nil, err
		}
		changes[i] = r.change(c)
	}
	switch {
	case !answer:
		return nil, nil
	case q.Action == request.Execute:
		return changes[0].JSON(), nil
	}
	return changes.JSON(), nil
}

func (r *runner) change(c compiled) (ch request.Change) {
	if c.of.Kind == gate.Change {
		ch.Rows = r.c.Changes()
	}
	if c.of.Adds {
		ch.Added, ch.RowID = true, r.c.LastRowID()
	}
	return ch
}

// rows runs the one statement of a request whose rows are the answer.
func (r *runner) rows(q *request.Request, answer bool) ([]byte, error) {
	var rows *request.Rows
	var err error
	var cells []any
	var each func(s *lite.Stmt) error
	if answer {
		each = func(s *lite.Stmt) error {
			if rows == nil {
				if rows, err = request.NewRows(q, names(s)); err != nil {
					return err
				}
				cells = make([]any, s.Columns)
			}
			for i := range cells {
				cells[i] = s.Column(i)
			}
			return rows.Add(cells)
		}
	}
	c, err := r.run(sqliteError, q.Statements[0], each)
	if err != nil || !answer {
		return nil, err
	}
	if q.Action == request.ExecuteStatement && c.of.Kind != gate.Look {
		return r.change(c).JSON(), nil
	}
	if rows == nil {
		columns, err := r.columns(q.Statements[0].SQL)
		if err != nil {
			return nil, err
		}
		if rows, err = request.NewRows(q, columns); err != nil {
			return nil, err
		}
	}
	return rows.JSON(), nil
}

// columns are the names of the columns of a statement that gave no row. Of one that changed the schema there are none.
func (r *runner) columns(sql string) ([]string, error) {
	s, c, err := r.prepare(sql, sqliteError)
	r.c.Allow = nil
	if c.defines || err != nil {
		return nil, nil // DDL has none, and may not run again
	}
	if r.facts != nil {
		defer s.Finalize()
	}
	return names(s), nil
}

func names(s *lite.Stmt) []string {
	all := make([]string, s.Columns)
	for i := range all {
		all[i] = s.Name(i)
	}
	return all
}

// random is the stream of random bytes of an operation.
func random(event tinycloud.Hash, index uint64) func(b []byte) {
	var stream io.Reader
	return func(b []byte) {
		if stream == nil {
			h := blake3.New()
			_, _ = h.Write(event[:])
			_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, index))
			stream = h.Digest()
		}
		_, _ = io.ReadFull(stream, b)
	}
}

// attempt runs an operation in a tier of its rules.
func (d *DB) attempt(op *Op, r Rules, in int, answer bool) (res Result, defines bool, err error) {
	c, tier := d.c, r.Tiers[in]
	c.ResetCounters()
	c.Limit(lite.LimitLength, tier.Length)
	m := &c.Meter
	m.StepLimit, m.ByteLimit, m.RowLimit = tier.Steps, r.Bytes, r.Rows
	m.Reset()
	c.Clock.Set(time.UnixMilli(op.Now), r.Temporary)
	c.Random = random(op.Event, op.Index)
	pages, copied := c.Pages(), c.Copied()
	// Not fewer than there are: whether SQLite then takes a free page that it has depends on when others were freed, and so on
	// which operations were committed together.
	c.LimitPages(max(pages, min(pages+r.Growth, r.Pages)))
	run := newRunner(c, op.Held, op.Facts, true)
	run.tier = byte(in)
	res.Answer, err = run.all(op.Request, answer)
	res.Touched = run.touched
	if over := d.over(); over != "" {
		res.Over = over
		err = tinycloud.Refuse(tinycloud.ErrInvalid, "SQLite error: interrupted: the request takes too many %s", over)
	}
	if err == nil && m.LastRowID {
		err = tinycloud.Refuse(tinycloud.ErrInvalid, "SQLite error: database or disk is full: the greatest rowid is in use")
	}
	if err == nil && c.OpenForeignKeys() {
		err = tinycloud.Refuse(tinycloud.ErrInvalid, "SQLite error: FOREIGN KEY constraint failed")
	}
	res.Changed = c.Pages() != pages || c.Copied() != copied
	res.Cost = Cost{m.Steps, m.Bytes, m.Rows, c.Clock.Temporary()}
	c.Limit(lite.LimitLength, maxLength)
	c.LimitPages(rules[Newest].Pages)
	if c.Clock.Failed() {
		err = fmt.Errorf("files of the database: %w", errors.Join(errDisk, err))
	}
	return res, run.defines, err
}

func (d *DB) over() string {
	if d.c.Clock.Over() {
		return "temporary bytes"
	}
	return d.c.Meter.Over()
}

// tierFor is the first tier that has room for the literals and parameters of a request.
func tierFor(r Rules, q *request.Request) int {
	longest := 0
	for _, s := range q.Schema {
		longest = max(longest, gate.Longest(s))
	}
	for _, s := range q.Statements {
		longest = max(longest, gate.Longest(s.SQL))
		for _, v := range s.Params {
			switch v := v.(type) {
			case string:
				longest = max(longest, len(v))
			case []byte:
				longest = max(longest, len(v))
			}
		}
	}
	for i, t := range r.Tiers {
		if longest <= t.Length {
			return i
		}
	}
	return len(r.Tiers) - 1
}
