package capstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// A long history is judged anew in parts, between which others write. Meanwhile its Space is closed: it takes no entries,
// own or of peers, and its reads are answered with what its keys held before, one key after another with what they hold
// now. That it is closed is durable: spaces.rules is 0 until all is done, and who finds it so begins anew.

const (
	reviewAtOnce = 1000                  // epochs of a history that is judged anew in one transaction
	reviewSlice  = 20 * time.Millisecond // of a part
	forever      = time.Duration(1<<63 - 1)
	reviewKeys   = 256 // that are read at a time
)

func errClosed() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space's history is being judged anew; retry in a moment")
}

// rules is by which rules the verdicts on the Space's history are.
func (sp *space) rules() int {
	if sp.closed {
		return 0
	}
	return judge.Rules
}

// outdated has the history of a Space judged anew that was judged by other rules, or not to the end.
func (t *tx) outdated(sp *space) {
	sp.todo.all = true
	t.touch(sp)
	t.tooLong(sp)
}

// tooLong closes a Space that is to be judged anew if that takes longer than others should wait.
func (t *tx) tooLong(sp *space) bool {
	if sp.epochs <= t.s.reviewAtOnce {
		return false
	}
	sp.closed = true
	t.s.outdated.Give()
	return true
}

// review is how far the history of a Space is judged anew.
type review struct {
	step int
	eids []int64 // parents first
	next int     // of eids
	from any     // key to go on from
}

// The steps of a review.
const (
	reviewBegin = iota
	reviewEntries
	reviewRemovals
	reviewEpochs
	reviewFolds
	reviewEnd
	reviewOver
)

func (r *review) over() bool { return r.step == reviewOver }

// reviewSome goes on with a review for some time.
func (t *tx) reviewSome(sp *space, r *review, limit time.Duration) error {
	sp.folding = true
	defer func() { sp.folding = false }()
	t.deepen(sp)
	for began := time.Now(); !r.over() && time.Since(began) < limit; {
		if err := t.reviewStep(sp, r); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) reviewStep(sp *space, r *review) error {
	switch r.step {
	case reviewBegin:
		return t.reviewBegin(sp, r)
	case reviewEntries:
		return r.each(func(eid int64) error { return t.dateEntries(sp, eid) })
	case reviewRemovals:
		r.step++
		err := t.settleRemovals(sp)
		clear(sp.todo.epochs) // all are
		return err
	case reviewEpochs:
		return r.each(func(eid int64) error {
			n, err := t.nodeBy(sp, "eid = ?", eid)
			if err == nil {
				_, err = t.rejudgeEpoch(sp, n, map[subject]struct{}{})
			}
			return err
		})
	case reviewFolds:
		subjects, next, err := t.subjectsFrom(sp, r.from)
		if err != nil {
			return err
		}
		if r.from = next; next == nil {
			r.step++
		}
		for _, about := range subjects {
			if err := t.refoldSubject(sp, about); err != nil {
				return err
			}
		}
		return nil
	}
	r.step++
	return t.reviewEnd(sp)
}

// each calls f for the next of the epochs, and goes on to the next step after the last.
func (r *review) each(f func(eid int64) error) error {
	if r.next == len(r.eids) {
		r.step, r.next = r.step+1, 0
		return nil
	}
	r.next++
	return f(r.eids[r.next-1])
}

func (t *tx) reviewBegin(sp *space, r *review) error {
	r.step++
	sp.todo.all, sp.todo.unsure, sp.todo.times = false, false, false
	sp.facts.Forget()
	sp.nodes.Purge() // times change
	r.from = t.s.key("")
	if err := t.exec("DELETE FROM stale WHERE sid = ?", sp.sid); err != nil {
		return err
	}
	return t.each(func(scan db.Scan) error {
		var eid int64
		err := scan(&eid)
		r.eids = append(r.eids, eid)
		return err
	}, "SELECT eid FROM epochs WHERE sid = ? ORDER BY seq, id", sp.sid)
}

func (t *tx) reviewEnd(sp *space) error {
	if err := t.findHeads(sp); err != nil {
		return err
	}
	for _, x := range t.s.held.tables { // rows of subjects that no operation is on, of which only damage leaves some
		if x.Key == "" {
			continue
		}
		err := t.exec("DELETE FROM "+x.Name+" WHERE sid = ? AND NOT EXISTS (SELECT 1 FROM ops o WHERE o.sid = "+x.Name+".sid AND o.key = "+x.Name+"."+x.Key+" AND o.service = ?)", sp.sid, x.service)
		if err != nil {
			return err
		}
	}
	sp.folding, sp.closed, sp.next = false, false, nil
	if err := t.sweep(sp); err != nil {
		return err
	}
	return t.enforce(sp)
}

// subjectsFrom returns the next subjects of operations, and as the column has it the one to go on from, nil at the end.
func (t *tx) subjectsFrom(sp *space, from any) (subjects []subject, next any, err error) {
	type row struct {
		service string
		column  []byte
	}
	var rows []row
	err = t.each(func(scan db.Scan) error {
		var r row
		err := scan(&r.service, &r.column)
		rows = append(rows, r)
		return err
	}, "SELECT DISTINCT o.service, o.key FROM ops o WHERE o.sid = ? AND o.key >= ? ORDER BY o.key, o.service LIMIT ?", sp.sid, from, reviewKeys+1)
	if err != nil {
		return nil, nil, err
	}
	for i, r := range rows {
		column := t.s.stored(r.column)
		if i == reviewKeys && len(subjects) > 0 && !bytes.Equal(r.column, rows[0].column) {
			return subjects, column, nil
		}
		name := string(r.column)
		if len(r.column) >= db.KeyHead { // it may hold what stands for a longer one
			var op []byte
			if _, err := t.one([]any{&op}, "SELECT o.bytes FROM ops o WHERE o.sid = ? AND o.key = ? AND o.service = ? LIMIT 1", sp.sid, column, r.service); err != nil {
				return nil, nil, err
			}
			o, _, err := dag.ReadOperation(op)
			if err != nil {
				return nil, nil, fmt.Errorf("stored operation: %w", err)
			}
			name = o.Subject
		}
		subjects = append(subjects, subject{r.service, name})
	}
	return subjects, nil, nil
}

// Review judges the histories anew that were judged by other rules, or whose review was not finished. [Store.Run] does
// so at its begin and whenever there is a long one.
func (s *Store) Review(ctx context.Context) error {
	s.reviewing.Lock()
	defer s.reviewing.Unlock()
	ids, err := s.named(ctx, "SELECT space FROM spaces WHERE rules <> ? AND epochs > 0 ORDER BY epochs", judge.Rules)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.reviewSpace(ctx, id); err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (s *Store) reviewSpace(ctx context.Context, id tinycloud.SpaceID) error {
	r, began := &review{}, time.Now()
	for done := false; !done && !r.over(); {
		before := *r
		err := s.queue(ctx, s.bulk, func(t *tx) error {
			*r = before // the transaction may be tried twice
			sp, err := t.anySpace(id)
			if err != nil {
				return err
			}
			if done = !sp.closed; done {
				return nil // a short one is judged by now
			}
			sp.mu.Lock()
			defer sp.mu.Unlock()
			return t.reviewSome(sp, r, s.reviewSlice)
		})
		if err != nil {
			return err
		}
	}
	if r.over() {
		s.log.InfoContext(ctx, "a space's history was judged anew", "space", id.String(), "epochs", len(r.eids), "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// anySpace returns a Space that is hosted, or imported only.
func (t *tx) anySpace(id tinycloud.SpaceID) (*space, error) {
	if t.s.importedID(id) != 0 {
		return t.importedSpace(id)
	}
	return t.space(id)
}

// keepReviewing judges anew what has to be, until the context ends: one process does, of those that share a database.
func (s *Store) keepReviewing(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.Lead(ctx, judging, func(ctx context.Context) error {
			for {
				again := s.lookAgain()
				if err := s.Review(ctx); err != nil && ctx.Err() == nil {
					s.log.WarnContext(ctx, "cannot judge a history anew, trying again", "error", err)
					again = min(again, time.Minute)
				}
				if !s.outdated.Within(ctx, again) {
					return nil
				}
			}
		})
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot lead the judging", "error", err)
			wait.For(ctx, claimEvery)
		}
	}
}

// lookAgain is how long after a look for histories to judge anew the next is, when this process knows of none: others
// that share the database may.
func (s *Store) lookAgain() time.Duration {
	if s.db.Shared {
		return claimEvery
	}
	return time.Hour
}
