package capstore

import (
	"context"
	"sync"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Errands are what requests have done at a server beside the one who writes: the token of a read is remembered before its
// answer, since nothing else depends on it and reads then wait for no writer, here or in another process; and a row is read.
// Those of requests that come together go together, in one round trip, and their tokens share a commit. With it comes the
// generation, so that the memory is as new as whose token was remembered. Tokens of reads need not survive a loss of power, as
// they don't on SQLite: what they keep out is the same read again, within the minutes for which its token holds.

const (
	maxErrands   = 2  // round trips at the same time
	farErrands   = 6  // the same where the server is far away
	errandsOfOne = 64 // a row has up to 64 KiB of a value
)

// errand is a token to be remembered, or a row to be read.
type errand struct {
	token []byte
	until int64 // unix seconds

	query   db.Query // where there is no token
	columns int
	row     db.Row // nil: there is none

	err error // why not; set when its flight is over
}

// errands go to a server.
type errands struct {
	flights flights[*errand]

	mu   sync.Mutex
	idle []*db.Conn // guarded by mu
}

func newErrands() errands {
	return errands{flights: flights[*errand]{most: maxErrands, far: farErrands, full: errandsOfOne}}
}

func (x *errands) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.idle {
		_ = c.Close()
	}
	x.idle = nil
}

// remember is a refusal of class [tinycloud.ErrConflict] when a token was used before, here or elsewhere.
func (s *Store) remember(ctx context.Context, token []byte, until int64) error {
	return s.run(ctx, &errand{token: token, until: until})
}

// row scans the row of a query that takes a server no time, see [service.Reader].
func (s *Store) row(ctx context.Context, dest []any, query string, args []any) (ok bool, err error) {
	if !s.db.Shared {
		return s.db.Read.One(ctx, dest, query, args...)
	}
	e := &errand{columns: len(dest), query: db.Query{Text: query, Args: args}}
	if err := s.run(ctx, e); err != nil || e.row == nil {
		return false, err
	}
	return true, e.row.Scan(dest...)
}

func (s *Store) run(ctx context.Context, e *errand) error {
	select {
	case <-s.gone:
		return errClosing()
	default:
	}
	if err := s.errands.flights.fly(ctx, e, s.runAll); err != nil {
		return err
	}
	return e.err
}

// runAll runs errands together: without the tokens that turn out to be used, if there are such, or one by one when the server
// refused something else.
func (s *Store) runAll(ctx context.Context, all []*errand) error {
	err := s.runTogether(ctx, all)
	if db.Duplicate(err) {
		if all, err = s.withoutUsed(ctx, all); err == nil {
			err = s.runTogether(ctx, all)
		}
	}
	if err == nil || !db.Refused(err) {
		return err
	}
	for i, e := range all {
		if e.err = s.runTogether(ctx, all[i:i+1]); db.Duplicate(e.err) {
			e.err = errReplayed()
		}
	}
	return nil
}

// withoutUsed is errands without those whose tokens were used: these are over.
func (s *Store) withoutUsed(ctx context.Context, all []*errand) (rest []*errand, err error) {
	var tokens []any
	for _, e := range all {
		if e.token != nil {
			tokens = append(tokens, e.token)
		}
	}
	used := map[string]bool{}
	are, args := in("id", tokens)
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var id []byte
		err := scan(&id)
		used[string(id)] = true
		return err
	}, "SELECT id FROM replays WHERE "+are, args...)
	for _, e := range all {
		if used[string(e.token)] {
			e.err = errReplayed()
			continue
		}
		rest = append(rest, e)
	}
	return rest, err
}

// runTogether runs errands in one round trip, on a connection that is theirs.
func (s *Store) runTogether(ctx context.Context, all []*errand) (err error) {
	x := &s.errands
	x.mu.Lock()
	var c *db.Conn
	if n := len(x.idle); n > 0 {
		c, x.idle = x.idle[n-1], x.idle[:n-1]
	}
	x.mu.Unlock()
	fresh := c == nil
	for {
		if c == nil {
			if c, err = s.db.Hasty(ctx); err != nil {
				return err
			}
		}
		var generation int64
		if generation, err = runOn(ctx, c, all); err == nil || db.Refused(err) {
			x.mu.Lock()
			x.idle = append(x.idle, c)
			x.mu.Unlock()
			if err != nil {
				return err
			}
			return s.upTo(ctx, generation)
		}
		x.close() // the server may have ended all that were idle
		c.Lost()
		if c = nil; fresh {
			return err
		}
		fresh = true
	}
}

// runOn returns the generation of the database, 0 where no token was remembered.
func runOn(ctx context.Context, c *db.Conn, all []*errand) (generation int64, err error) {
	var queries []db.Query
	tokens := false
	for _, e := range all {
		if e.token == nil {
			queries = append(queries, e.asks())
			continue
		}
		if !tokens {
			err, tokens = c.Begin(ctx), true
		}
		if err == nil {
			_, err = c.Insert(ctx, onlyReplays, e.token, e.until)
		}
	}
	switch {
	case err != nil:
	case !tokens:
		return 0, c.Ask(ctx, queries)
	default:
		err = c.CommitWith(ctx, append(queries, db.Query{Text: readGeneration, Row: func(scan db.Scan) error { return scan(&generation) }}))
	}
	if err != nil && db.Refused(err) {
		if e := c.Rollback(ctx); e != nil {
			return 0, e
		}
	}
	return generation, err
}

// asks is the query of an errand that reads, which may be asked again.
func (e *errand) asks() db.Query {
	q := e.query
	e.row = nil
	q.Row = func(scan db.Scan) (err error) {
		if e.row == nil {
			e.row, err = db.ScanRow(scan, e.columns)
		}
		return err
	}
	return q
}

// onlyReplays is [intoReplays] that fails for a token that was used.
var onlyReplays = db.Insert{Into: intoReplays.Into, Columns: intoReplays.Columns}
