package capstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	maxQueue = 1024 // jobs waiting for the writer; more wait in their callers
	maxGroup = 256  // jobs of one transaction
	maxLoad  = 1024 // Spaces kept loaded
)

// job is one caller's part of a transaction.
type job struct {
	run  func(*tx) error
	done chan error
}

// tx is the writer's transaction. Its methods run on the writer's goroutine.
type tx struct {
	ctx     context.Context
	s       *Store
	conn    *sql.Conn
	stmts   map[string]*sql.Stmt
	now     time.Time
	wrote   bool // by the current job
	dirty   map[*space]*Commit
	order   []*space
	created []*space
	// promoted are Spaces that were only imported before.
	promoted []*space
	revoked  map[tinycloud.Hash]tinycloud.Hash
	quotas   map[tinycloud.SpaceID]*int64 // nil: cleared
}

// Run writes until the context ends, then finishes the jobs it accepted.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.gone)
	conn, err := s.write.Conn(context.WithoutCancel(ctx))
	if err != nil {
		return dbErr(err)
	}
	defer conn.Close()
	stmts := map[string]*sql.Stmt{}
	for {
		select {
		case <-ctx.Done():
			for len(s.jobs) > 0 {
				s.group(conn, stmts, <-s.jobs)
			}
			return nil
		case j := <-s.jobs:
			s.group(conn, stmts, j)
		}
	}
}

// do runs a job in a transaction and returns when that is durable.
func (s *Store) do(ctx context.Context, run func(*tx) error) error {
	j := &job{run: run, done: make(chan error, 1)}
	select {
	case s.jobs <- j:
	case <-s.gone:
		return fmt.Errorf("database: closing: %w", tinycloud.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
	// From here on the job may take effect, so its outcome is waited for even when the caller has gone.
	select {
	case err := <-j.done:
		return err
	case <-s.gone:
		select {
		case err := <-j.done:
			return err
		default:
			return fmt.Errorf("database: closing: %w", tinycloud.ErrUnavailable)
		}
	}
}

// group commits a job together with those that wait behind it.
func (s *Store) group(conn *sql.Conn, stmts map[string]*sql.Stmt, first *job) {
	jobs := []*job{first}
	for len(jobs) < maxGroup && len(s.jobs) > 0 {
		jobs = append(jobs, <-s.jobs)
	}
	if s.transact(conn, stmts, jobs) {
		return
	}
	// One job failed after it had written: each gets a transaction of its own.
	for _, j := range jobs {
		s.transact(conn, stmts, []*job{j})
	}
}

// transact runs jobs in one transaction. It reports false when they have to be tried one by one.
func (s *Store) transact(conn *sql.Conn, stmts map[string]*sql.Stmt, jobs []*job) bool {
	ctx := context.Background()
	t := &tx{
		ctx: ctx, s: s, conn: conn, stmts: stmts, now: s.o.Now(), dirty: map[*space]*Commit{},
		revoked: map[tinycloud.Hash]tinycloud.Hash{}, quotas: map[tinycloud.SpaceID]*int64{},
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		finish(jobs, nil, dbErr(err))
		return true
	}
	errs := make([]error, len(jobs))
	for i, j := range jobs {
		t.wrote = false
		if errs[i] = j.run(t); errs[i] != nil && t.wrote {
			t.rollback()
			if len(jobs) > 1 {
				return false
			}
			finish(jobs, nil, errs[i])
			return true
		}
	}
	err := t.flush()
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		t.rollback()
		s.log.Error("transaction failed", "error", err, "jobs", len(jobs))
		finish(jobs, nil, dbErr(err))
		return true
	}
	t.publish()
	finish(jobs, errs, nil)
	return true
}

func finish(jobs []*job, errs []error, all error) {
	for i, j := range jobs {
		if all != nil {
			j.done <- all
		} else {
			j.done <- errs[i]
		}
	}
}

// rollback undoes the transaction and forgets what the memory knows of the Spaces it touched.
func (t *tx) rollback() {
	_, _ = t.conn.ExecContext(t.ctx, "ROLLBACK")
	t.s.tokens.Purge() // it may hold what was read inside the transaction
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for sp := range t.dirty {
		delete(t.s.spaces, sp.id)
	}
	for _, sp := range t.created {
		delete(t.s.ids, sp.id)
		delete(t.s.imported, sp.id)
		delete(t.s.byHost, sp.host)
		delete(t.s.spaces, sp.id)
	}
	for _, sp := range t.promoted {
		if slices.Contains(t.created, sp) {
			continue
		}
		delete(t.s.ids, sp.id)
		delete(t.s.byHost, sp.host)
		t.s.imported[sp.id] = sp.sid
	}
}

// publish makes the outcome of a durable transaction known.
func (t *tx) publish() {
	s := t.s
	s.mu.Lock()
	for target, r := range t.revoked {
		s.revoked[target] = r
	}
	for id, bytes := range t.quotas {
		if bytes == nil {
			delete(s.quotas, id)
		} else {
			s.quotas[id] = *bytes
		}
	}
	for id := range s.spaces {
		if len(s.spaces) <= maxLoad {
			break
		}
		delete(s.spaces, id) // readers that hold it keep a consistent, if ageing, view
	}
	s.mu.Unlock()
	if s.o.Committed == nil {
		return
	}
	for i, sp := range t.order {
		c := t.dirty[sp]
		c.Ended, c.More = len(t.revoked), i < len(t.order)-1
		s.o.Committed(*c)
	}
}

// touch marks a Space as changed by the transaction.
func (t *tx) touch(sp *space) *Commit {
	c := t.dirty[sp]
	if c == nil {
		c = &Commit{Space: sp.id}
		t.dirty[sp] = c
		t.order = append(t.order, sp)
	}
	return c
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if st := t.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, dbErr(err)
	}
	t.stmts[query] = st
	return st, nil
}

func (t *tx) exec(query string, args ...any) error {
	st, err := t.stmt(query)
	if err != nil {
		return err
	}
	t.wrote = true
	_, err = st.ExecContext(t.ctx, args...)
	return dbErr(err)
}

// insert runs an INSERT and returns the rowid.
func (t *tx) insert(query string, args ...any) (int64, error) {
	st, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	t.wrote = true
	res, err := st.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, dbErr(err)
	}
	id, err := res.LastInsertId()
	return id, dbErr(err)
}

// one scans the first row of a query; ok is false when there is none.
func (t *tx) one(dest []any, query string, args ...any) (ok bool, err error) {
	st, err := t.stmt(query)
	if err != nil {
		return false, err
	}
	err = st.QueryRowContext(t.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, dbErr(err)
}

func (t *tx) each(f func(scan func(...any) error) error, query string, args ...any) error {
	return eachRow(t.ctx, t.conn, f, query, args...)
}
