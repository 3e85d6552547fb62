package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// On a server a transaction takes two round trips: one takes the lock and reads what its jobs are about to ask, one writes
// and commits. While the second of one is on its way, so is the first of the next, on another connection: the server lets
// it have the lock once the one before is durable, or gone. It is run when what came of the one before is known.

// How long jobs are waited for that come together, in parts of the time that a commit takes: in all, and for one more.
const (
	gatherAll   = 5
	gatherQuiet = 20
	// The same of those that are sent whole: the clients that were answered by the one before come back now, and would else wait
	// for two.
	gatherWhole = 2
	gatherEach  = 8
)

// opening is a transaction whose lock is being taken.
type opening struct {
	jobs []*job
	t    *tx
	conn *db.Conn      // nil when err is not
	err  error         // why it does not stand
	done chan struct{} // closed when conn and err are there; nil: it is not taken, for the jobs are sent whole
}

func newTx(ctx context.Context, s *Store) *tx {
	return &tx{
		ctx: ctx, s: s, now: s.o.Now(), dirty: map[*space]*Commit{}, kept: map[*space]bool{}, older: map[*space]bool{},
		revoked: map[tinycloud.Hash]tinycloud.Hash{}, quotas: map[tinycloud.SpaceID]*int64{},
		pairs: map[string]bool{}, weights: map[*space]weight{}, released: map[*space][][32]byte{},
	}
}

// gather returns jobs with those that wait behind them.
func (w *writer) gather(jobs []*job) []*job {
	for len(jobs) < maxGroup && len(w.s.jobs) > 0 {
		jobs = append(jobs, (<-w.s.jobs).all()...)
	}
	return jobs
}

// A process that others share the lock with waits for more jobs before it asks for the lock, for a part of the time for which it
// had it last: at least one other will have it for about as long.
const (
	lingerShare = 4 // a fourth
	longestWait = 10 * time.Millisecond
)

// linger returns jobs with those that wait behind them, and those that come soon. Where processes take turns at the lock, one asks
// for it when the clients that it has just answered are back: while it waited for its turn they would wait for the turn after
// that, and each turn would have half of the jobs. If join is not nil, it is called with the jobs as they come, until it is false.
func (w *writer) linger(jobs []*job, join func([]*job) bool) []*job {
	enough := min(w.usual, maxGroup)
	switch {
	case join != nil: // nobody waits for this process: what is sent whole has the lock at the server alone
		return w.company(jobs, enough, w.way.least/gatherWhole, w.way.least/gatherEach, join)
	case !w.s.db.Shared, !w.crowded:
		return w.gather(jobs)
	}
	late := min(w.held/lingerShare, longestWait)
	return w.company(jobs, enough, late, late, all)
}

// all lets all jobs join.
func all([]*job) bool { return true }

// company returns jobs with those that wait behind them, and those that come within a time, each within another one after the
// last, until there are enough. It calls join with them as they come, until that is false.
func (w *writer) company(jobs []*job, enough int, within, each time.Duration, join func([]*job) bool) []*job {
	last, next := time.NewTimer(within), time.NewTimer(each)
	defer last.Stop()
	defer next.Stop()
	for came := 0; ; {
		jobs = w.gather(jobs)
		if !join(jobs[came:]) || len(jobs) >= enough {
			return jobs
		}
		came = len(jobs)
		next.Reset(each)
		select {
		case j := <-w.s.jobs:
			jobs = append(jobs, j.all()...)
			continue
		case <-last.C:
		case <-next.C:
		}
		return jobs
	}
}

// commit commits a transaction. Meanwhile it begins to take the lock for the next one, if overlap says so, once there are
// jobs for it, and no other process waits for the lock too.
func (w *writer) commit(ctx context.Context, t *tx, overlap bool) error {
	t.turn.sent = time.Now()
	if !overlap || !w.s.db.Shared || w.crowded {
		return t.conn.Commit(t.ctx)
	}
	began, done := time.Now(), make(chan error, 1)
	go func() { done <- t.conn.Commit(t.ctx) }()
	err, ended := w.openWith(ctx, done)
	if !ended {
		err = <-done
	}
	if err == nil {
		w.way.took(time.Since(began))
	}
	return err
}

// openWith opens the next transaction when there are jobs for it. Those whose answers came with the last commit ask again
// now, so it waits a little for others to come: what is sent together takes as long as one. It gives up when the commit is done.
func (w *writer) openWith(ctx context.Context, done <-chan error) (err error, ended bool) {
	if len(w.s.bulk) > 0 {
		return nil, false
	}
	var jobs []*job
	select {
	case j := <-w.s.jobs:
		jobs = j.all()
	case err := <-done:
		return err, true
	}
	jobs = w.company(jobs, maxGroup, w.way.least/gatherAll, w.way.least/gatherQuiet, all)
	if w.foresees(jobs) {
		w.next = &opening{jobs: jobs}
		return nil, false
	}
	w.open(ctx, jobs)
	return nil, false
}

// open begins to take the lock for some jobs.
func (w *writer) open(ctx context.Context, jobs []*job) {
	o := &opening{jobs: jobs, t: newTx(ctx, w.s), conn: w.spare, done: make(chan struct{})}
	w.next, w.spare = o, nil
	go func() {
		defer close(o.done)
		if o.conn == nil {
			if o.conn, o.err = w.s.db.Writer(ctx); o.err != nil {
				return
			}
		}
		o.t.conn = o.conn
		if o.err = o.conn.Begin(ctx); o.err == nil {
			o.err = o.t.lock(o.jobs)
		}
		if o.err != nil {
			o.conn.Lost()
			o.conn = nil
		}
	}()
}

// opened returns the transaction that was being opened for some jobs, nil if there was none or it does not stand.
func (w *writer) opened(jobs []*job) *tx {
	o := w.next
	if o == nil || o.done == nil || len(jobs) == 0 || o.jobs[0] != jobs[0] {
		return nil
	}
	w.next = nil
	<-o.done
	if o.err != nil {
		return nil
	}
	w.conn, w.spare = o.conn, w.conn
	o.t.now = w.s.o.Now()
	if err := o.t.meet(); err != nil {
		_ = w.conn.Rollback(o.t.ctx)
		w.drop()
		return nil
	}
	return o.t
}

// abandon gives back the lock that is being taken for the next transaction: what comes before has to be tried again. Its
// jobs stay, and begin again.
func (w *writer) abandon() (jobs []*job) {
	o := w.next
	if o == nil {
		return nil
	}
	w.next = nil
	if o.done == nil {
		return o.jobs
	}
	<-o.done
	if o.err == nil {
		if o.conn.Rollback(o.t.ctx) == nil {
			w.spare = o.conn
		} else {
			o.conn.Drop()
		}
	}
	return o.jobs
}
