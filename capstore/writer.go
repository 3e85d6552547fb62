package capstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

const (
	maxQueue = 1024 // jobs waiting for the writer; more wait in their callers
	maxGroup = 256  // jobs of one transaction
	// Entries of peers from which on a job gives way to others, and how many it enters before.
	bulkFrom = 32
	// calmAfter is how long after the last of these jobs no more are expected.
	calmAfter = 10 * time.Second
)

// job is one caller's part of a transaction.
type job struct {
	run    func(*tx) error
	ahead  func(*Store) []service.Looked // that run is going to make, as far as that is known; nil: none
	spaces []tinycloud.SpaceID           // that run is about to write to, as far as that is known
	plain  bool                          // what ahead returns is all that run looks at, nearly always
	proofs []tinycloud.Hash              // that its token names
	done   chan error
	more   []*job // of the same caller, that come right behind it
}

func newJob(run func(*tx) error) *job { return &job{run: run, done: make(chan error, 1)} }

// all is the job and what comes with it.
func (j *job) all() []*job { return append([]*job{j}, j.more...) }

// tx is the writer's transaction. Its methods run on the writer's goroutine.
type tx struct {
	// ctx is of the writer, not of a caller, who may go: as in database/sql, a transaction keeps what its statements run in.
	ctx     context.Context
	s       *Store
	conn    *db.Conn
	now     time.Time
	wrote   bool // by the current job
	failed  bool // a statement of the current job: a server ignores what follows
	dirty   map[*space]*Commit
	kept    map[*space]bool // see [tx.keeps]; those that were asked for
	older   map[*space]bool // the same of [tx.mixed]
	order   []*space
	created []*space
	// promoted are Spaces that were only imported before.
	promoted []*space
	revoked  map[tinycloud.Hash]tinycloud.Hash
	quotas   map[tinycloud.SpaceID]*int64 // nil: cleared
	tally    tally
	beside   bool            // rows beside the history came or went
	pairs    map[string]bool // nodes that are paired from now on, or no more
	ended    []ended         // Spaces that are joining no more
	// standings are Spaces that this node is removed from, or let into again.
	standings []*space
	heard     map[*space][]heard // see [tx.heardFrom]
	adopts    bool               // delegations are still to be adopted

	generation int64     // of the database at its begin; on a server
	turn       turn      // likewise
	numbers    numbers   // for epochs; likewise
	supposed   *supposed // nil: it asks
	known      known
	met        []commit // rows of generations that came before; nil: they were not asked for
	expected   expected // see [tx.expect]
	gathers    bool     // see [tx.gather]
	doubting   bool     // see [tx.doubtSpace]
	weights    map[*space]weight
	released   map[*space][][32]byte // values, see [tx.depart]
}

// Run writes until the context ends, then finishes the jobs it accepted. On a server's database it also
// follows what other processes write there.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.gone)
	w, own := &writer{s: s, guess: s.guess, calm: time.NewTimer(0)}, context.WithoutCancel(ctx) // jobs that were accepted are finished
	defer w.calm.Stop()
	defer w.close()
	if !s.db.Shared {
		if err := w.connect(own); err != nil {
			return err
		}
	}
	kept := s.keep(ctx)
	for {
		select {
		case <-ctx.Done():
			w.finish(own, kept)
			return nil
		case j := <-s.jobs:
			w.group(own, j)
		case <-w.calm.C:
			w.bulk(own, false)
		case j := <-s.bulk:
			w.bulk(own, true)
			w.each(own, []*job{j})
			w.calm.Reset(calmAfter)
			select { // who waited comes before the next one
			case j := <-s.jobs:
				w.group(own, j)
			default:
			}
		}
	}
}

// keep does what has to be done now and then, until the context ends. The channel is closed when all that has ended.
func (s *Store) keep(ctx context.Context) <-chan struct{} {
	var group sync.WaitGroup
	for _, f := range []func(context.Context){s.stayAboard, s.follow, s.hear, s.keepOpening, s.keepUnparking, s.keepReviewing, s.keepRedating, s.keepAdopting} {
		group.Go(func() { f(ctx) })
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		group.Wait()
	}()
	return ended
}

// finish runs the jobs that were accepted, and those of who is still at work: they wait for their jobs.
func (w *writer) finish(ctx context.Context, kept <-chan struct{}) {
	for {
		select {
		case j := <-w.s.jobs:
			w.group(ctx, j)
			continue
		case j := <-w.s.bulk:
			w.each(ctx, []*job{j})
			continue
		case <-kept:
		}
		break
	}
	for len(w.s.jobs) > 0 {
		w.group(ctx, <-w.s.jobs)
	}
	for len(w.s.bulk) > 0 {
		w.each(ctx, []*job{<-w.s.bulk})
	}
}

// do runs a job in a transaction and returns when that is durable.
func (s *Store) do(ctx context.Context, run func(*tx) error) error {
	return s.queue(ctx, s.jobs, run)
}

// add is [Store.do] of what takes room.
func (s *Store) add(ctx context.Context, run func(*tx) error) error {
	if err := s.o.Room(); err != nil {
		return err
	}
	return s.do(ctx, run)
}

func (s *Store) queue(ctx context.Context, jobs chan *job, run func(*tx) error) error {
	return s.queueAll(ctx, jobs, []*job{newJob(run)})[0]
}

// queueAll runs jobs one right behind the other.
func (s *Store) queueAll(ctx context.Context, jobs chan *job, all []*job) []error {
	errs := make([]error, len(all))
	if len(all) == 0 {
		return errs
	}
	all[0].more = all[1:]
	var err error
	select {
	case jobs <- all[0]:
	case <-s.gone:
		err = errClosing()
	case <-ctx.Done():
		err = ctx.Err()
	}
	for i, j := range all {
		if errs[i] = err; err == nil {
			errs[i] = s.await(j)
		}
	}
	return errs
}

// await returns what came of a job that was queued: it may take effect, so that is waited for even when the caller has
// gone.
func (s *Store) await(j *job) error {
	select {
	case err := <-j.done:
		return err
	case <-s.gone:
		select {
		case err := <-j.done:
			return err
		default:
			return errClosing()
		}
	}
}

func errClosing() error { return fmt.Errorf("database: closing: %w", tinycloud.ErrUnavailable) }

// writer is the one who writes.
type writer struct {
	s     *Store
	conn  *db.Conn // nil: to be opened
	spare *db.Conn // likewise, for the next transaction
	next  *opening // nil: none
	way   way      // of commits
	guess *guess

	crowded bool          // another process wrote between the last two transactions of this one
	usual   int           // jobs that there were at the last one: of it, and waiting
	held    time.Duration // for how long that had the lock

	busy bool // with many entries, see [db.Conn.Bulk]
	calm *time.Timer
}

// bulk says whether many entries come.
func (w *writer) bulk(ctx context.Context, on bool) {
	if w.busy == on || w.conn == nil {
		return
	}
	w.busy = on
	w.s.o.Busy(on)
	if err := w.conn.Bulk(ctx, on); err != nil {
		w.s.log.WarnContext(ctx, "cache of the database", "error", err)
	}
}

func (w *writer) connect(ctx context.Context) (err error) {
	w.conn, err = w.s.db.Writer(ctx)
	return err
}

func (w *writer) close() {
	for _, c := range []*db.Conn{w.conn, w.spare} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// drop ends a connection to a server whose state is in doubt.
func (w *writer) drop() {
	if w.s.db.Shared && w.conn != nil {
		if w.spare != nil {
			_ = w.spare.Close()
			w.spare = nil
		}
		w.conn.Lost()
		w.conn = nil
	}
}

// group commits a job together with those that wait behind it, and those that come meanwhile.
func (w *writer) group(ctx context.Context, first *job) {
	for jobs := first.all(); len(jobs) > 0; {
		if w.next != nil && w.next.done == nil {
			w.next = nil
		}
		switch {
		case w.next != nil:
		case w.supposes():
			if jobs = w.whole(ctx, jobs); len(jobs) == 0 {
				return
			}
		default:
			jobs = w.linger(jobs, nil)
		}
		w.guess.asking = max(0, w.guess.asking-1)
		o := w.transact(ctx, jobs, false, true)
		if w.next != nil && o == answered {
			jobs = w.next.jobs
			continue
		}
		next := w.abandon()
		if o == again {
			o = w.transact(ctx, jobs, true, false)
		}
		if o == alone { // one failed after it had written
			w.each(ctx, jobs)
		}
		jobs = next
	}
}

// each gives every job a transaction of its own.
func (w *writer) each(ctx context.Context, jobs []*job) {
	for _, j := range jobs {
		if w.transact(ctx, []*job{j}, false, false) == again {
			w.transact(ctx, []*job{j}, true, false)
		}
	}
}

// begin opens a transaction. A server may have ended a connection that was idle; a new one is tried.
func (w *writer) begin(ctx context.Context, jobs []*job) (*tx, error) {
	if t := w.opened(jobs); t != nil {
		return t, nil
	}
	for {
		fresh := w.conn == nil
		if fresh {
			if err := w.connect(ctx); err != nil {
				return nil, err
			}
		}
		t := newTx(ctx, w.s)
		t.conn = w.conn
		err := t.conn.Begin(ctx)
		if err == nil && w.s.db.Shared {
			if err = t.lock(jobs); err == nil {
				err = t.meet()
			}
		}
		if err == nil {
			return t, nil
		}
		_ = t.conn.Rollback(ctx) // of a server that was only slow
		w.drop()
		if fresh || !w.s.db.Shared {
			return nil, err
		}
	}
}

// transact runs jobs in one transaction. Without another try to come, it answers whatever happens. While it commits, the
// next may be opened if overlap says so.
func (w *writer) transact(ctx context.Context, jobs []*job, last, overlap bool) outcome {
	t, err := w.begin(ctx, jobs)
	if err != nil {
		w.s.log.ErrorContext(ctx, "database out of reach", "error", err, "jobs", len(jobs))
		finish(jobs, nil, err)
		w.refuse(err)
		return answered
	}
	w.crowded = t.turn.met
	if err := t.loadFor(jobs); err != nil {
		return w.undo(t, jobs, err, last)
	}
	errs := make([]error, len(jobs))
	for i, j := range jobs {
		t.wrote, t.failed = false, false
		if errs[i] = j.run(t); errs[i] == nil || !t.wrote && !t.failed {
			continue
		}
		return w.undo(t, jobs, errs[i], last)
	}
	if err := t.flush(); err != nil {
		return w.undo(t, jobs, err, last || len(jobs) == 1)
	}
	t.pend()
	if err := w.commit(ctx, t, overlap); err != nil {
		t.doubt()
		if db.Refused(err) { // what was kept back until then, or the COMMIT: nothing came of it
			t.failed = true
			return w.undo(t, jobs, err, last)
		}
		t.rollback()
		w.drop()
		w.s.log.ErrorContext(ctx, "commit failed", "error", err, "jobs", len(jobs))
		finish(jobs, nil, unavailable(err))
		return answered
	}
	w.usual, w.held = len(jobs)+len(w.s.jobs), t.turn.took()
	t.s.turns.ended(t.turn)
	if t.s.db.Shared {
		t.s.metrics.writes.WithLabelValues(sentAsking).Inc()
	}
	t.counted(len(jobs))
	t.publish()
	finish(jobs, errs, nil)
	return answered
}
