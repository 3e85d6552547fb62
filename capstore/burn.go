package capstore

import (
	"context"
	"sync"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// On a server the tokens of reads are remembered before the answers, by connections of their own: nothing else depends on
// them, so that reads wait for no writer, here or in another process. The tokens of those who come together share a commit.
// With it comes the generation, so that the memory is as new as who burned his token. They need not survive a loss of power, as
// they don't on SQLite: what they keep out is the same read again, within the minutes for which its token holds.

const (
	maxBurns  = 2   // transactions at the same time
	farBurns  = 6   // the same where the server is far away
	burnGroup = 256 // tokens of one
)

// used is a token to be remembered.
type used struct {
	id    []byte
	until int64 // unix seconds
	err   error // why not; set when its flight is over
}

// burns remember tokens.
type burns struct {
	flights flights[*used]

	mu   sync.Mutex
	idle []*db.Conn // guarded by mu
}

func newBurns() burns {
	return burns{flights: flights[*used]{most: maxBurns, far: farBurns, full: burnGroup}}
}

func (b *burns) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.idle {
		_ = c.Close()
	}
	b.idle = nil
}

// remember is a refusal of class [tinycloud.ErrConflict] when a token was used before, here or elsewhere.
func (s *Store) remember(ctx context.Context, u *used) error {
	select {
	case <-s.gone:
		return errClosing()
	default:
	}
	if err := s.burns.flights.fly(ctx, u, s.rememberAll); err != nil {
		return err
	}
	return u.err
}

// rememberAll remembers tokens in one transaction, or one by one when some were used before.
func (s *Store) rememberAll(ctx context.Context, all []*used) error {
	g, err := s.addUsed(ctx, all)
	if err == nil {
		return s.upTo(ctx, g)
	}
	if !db.Refused(err) {
		return err
	}
	for _, u := range all {
		switch g, err := s.addUsed(ctx, []*used{u}); {
		case err == nil:
			u.err = s.upTo(ctx, g)
		case db.Duplicate(err):
			u.err = errReplayed()
		default:
			u.err = err
		}
	}
	return nil
}

// addUsed returns the generation of the database, too.
func (s *Store) addUsed(ctx context.Context, all []*used) (generation int64, err error) {
	b := &s.burns
	b.mu.Lock()
	var c *db.Conn
	if n := len(b.idle); n > 0 {
		c, b.idle = b.idle[n-1], b.idle[:n-1]
	}
	b.mu.Unlock()
	fresh := c == nil
	for {
		if c == nil {
			if c, err = s.db.Hasty(ctx); err != nil {
				return 0, err
			}
		}
		if generation, err = insertUsed(ctx, c, all); err == nil || db.Refused(err) {
			b.mu.Lock()
			b.idle = append(b.idle, c)
			b.mu.Unlock()
			return generation, err
		}
		b.close() // the server may have ended all that were idle
		c.Lost()
		if c = nil; fresh {
			return 0, err
		}
		fresh = true
	}
}

func insertUsed(ctx context.Context, c *db.Conn, all []*used) (generation int64, err error) {
	err = c.Begin(ctx)
	for _, u := range all {
		if err == nil {
			_, err = c.Insert(ctx, onlyReplays, u.id, u.until)
		}
	}
	if err == nil {
		err = c.CommitWith(ctx, []db.Query{{Text: readGeneration, Row: func(scan db.Scan) error { return scan(&generation) }}})
	}
	if err != nil && db.Refused(err) {
		if e := c.Rollback(ctx); e != nil {
			return 0, e
		}
	}
	return generation, err
}

// onlyReplays is [intoReplays] that fails for a token that was used.
var onlyReplays = db.Insert{Into: intoReplays.Into, Columns: intoReplays.Columns}
