package capstore

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// On a server a transaction takes two round trips: one takes the lock and reads what its jobs are about to ask, one writes
// and commits. While the second of one is on its way, so is the first of the next, on another connection: the server lets
// it have the lock once the one before is durable, or gone. It is run when what came of the one before is known.

// opening is a transaction whose lock is being taken.
type opening struct {
	jobs []*job
	t    *tx
	conn *db.Conn      // nil when err is not
	err  error         // why it does not stand
	done chan struct{} // closed when conn and err are there
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

// open begins to take the lock for the jobs that wait, if any do and nothing else has its turn.
func (w *writer) open(ctx context.Context) {
	if !w.s.db.Shared || len(w.s.jobs) == 0 || len(w.s.bulk) > 0 {
		return
	}
	o := &opening{jobs: w.gather(nil), t: newTx(ctx, w.s), conn: w.spare, done: make(chan struct{})}
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
	if o == nil || len(jobs) == 0 || o.jobs[0] != jobs[0] {
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
