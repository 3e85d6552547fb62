package capstore

import (
	"context"
	"errors"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Transactions that are sent whole are answered when the server has them durable. Meanwhile the one who writes judges what
// comes for other Spaces, and sends it too. What comes for the same Spaces waits for the answer, and so does every transaction
// that asks: it is alone.

const (
	// maxParcels is how many of them may be unanswered at the same time, with a server far away.
	maxParcels = 2
	// farParcels is how long a transaction takes from which on a server is far away.
	farParcels = 6 * time.Millisecond
)

// parcel is a transaction that was sent whole.
type parcel struct {
	t    *tx
	jobs []*job
	err  error // what came of it
}

// line returns a connection for a parcel, nil if there is none.
func (w *writer) line(ctx context.Context) *db.Conn {
	if n := len(w.conns); n > 0 {
		c := w.conns[n-1]
		w.conns = w.conns[:n-1]
		return c
	}
	c, err := w.s.db.Writer(ctx)
	if err != nil {
		return nil
	}
	return c
}

// parcelsAtOnce is how many may be unanswered. Near the server larger ones are worth more.
func (w *writer) parcelsAtOnce() int {
	if w.way.least < w.s.farParcels {
		return 1
	}
	return maxParcels
}

// full reports whether no more jobs are to be taken before a parcel is answered.
func (w *writer) full() bool {
	return len(w.parcels) >= w.parcelsAtOnce() || len(w.waiting) >= maxGroup
}

// under is how many jobs are under way, or wait.
func (w *writer) under() int {
	n := len(w.s.jobs) + len(w.waiting)
	for _, f := range w.parcels {
		n += len(f.jobs)
	}
	return n
}

// taken reports whether a job is about a Space that a parcel writes to.
func (w *writer) taken(j *job) bool {
	return slices.ContainsFunc(j.spaces, func(id tinycloud.SpaceID) bool {
		return slices.ContainsFunc(w.parcels, func(f *parcel) bool {
			return slices.ContainsFunc(f.t.order, func(sp *space) bool { return sp.id == id })
		})
	})
}

// wait has jobs wait whose Spaces are written to by a parcel, or that are too many, and returns the others.
func (w *writer) wait(jobs []*job) (free []*job) {
	for unit := range units(jobs) {
		if len(free) > 0 && len(free)+len(unit) > maxGroup || slices.ContainsFunc(unit, w.taken) {
			w.waiting = append(w.waiting, unit...)
		} else {
			free = append(free, unit...)
		}
	}
	return free
}

// whole sends jobs in a transaction that is sent whole, as far as they need not ask, and returns those that have to be run in
// one that asks. They are alone then.
func (w *writer) whole(ctx context.Context, jobs []*job) (asks []*job) {
	for len(w.parcels) >= w.parcelsAtOnce() {
		w.receive(ctx, <-w.replies)
	}
	jobs = append(w.waiting, jobs...)
	w.waiting = nil
	if jobs = w.wait(jobs); len(jobs) == 0 {
		return nil
	}
	asks = w.depart(ctx, jobs)
	if len(asks) > 0 {
		w.receiveAll(ctx)
	}
	return asks
}

// departure is a transaction that is about to be sent whole.
type departure struct {
	w    *writer
	t    *tx
	all  []*job // that came
	ran  []*job // that are in it
	asks []*job // that have to ask
	lost bool   // something failed that had written
}

// depart is whole of jobs whose Spaces no parcel writes to. Those that come meanwhile join them.
func (w *writer) depart(ctx context.Context, jobs []*job) (asks []*job) {
	d := &departure{w: w, t: newTx(ctx, w.s)}
	t := d.t
	t.supposed = &supposed{since: -1, grown: map[*space]int64{}, rooms: map[*space]Room{}, rows: map[string]struct{}{}}
	w.linger(jobs, d.join)
	switch {
	case t.conn == nil: // who asks says why
		w.s.letGo(t.supposed)
		return d.all
	case len(d.ran) == 0 && len(t.order) == 0:
		w.back(t) // nothing was sent
		return d.all
	case d.lost || t.flush() != nil || len(t.order) == 0:
		w.give(t)
		return d.all
	}
	w.dispatch(&parcel{t: t, jobs: d.ran})
	return d.asks
}

// join runs jobs in the transaction, as far as they need not ask. It reports whether more may join. The first decide whether
// it is sent whole: most of them have to need nothing.
func (d *departure) join(jobs []*job) bool {
	w, t := d.w, d.t
	first := len(d.all) == 0
	if !first {
		jobs = w.wait(jobs)
	}
	d.all = append(d.all, jobs...)
	t.take(jobs)
	var some [][]*job
	n := 0
	for unit := range units(jobs) {
		if slices.ContainsFunc(unit, func(j *job) bool { return !j.plain || !t.ready(j) || !t.supposes(w.guess, j) }) {
			d.asks = append(d.asks, unit...)
		} else {
			some, n = append(some, unit), n+len(unit)
		}
	}
	if first {
		if 2*n < max(1, len(jobs)) {
			return false
		}
		if t.conn = w.line(t.ctx); t.conn == nil {
			return false
		}
		t.conn.Suppose()
	}
	for i, unit := range some {
		if t.conn.Kept() > db.MostWhole {
			d.asks = append(d.asks, slices.Concat(some[i:]...)...)
			return false
		}
		if !d.run(unit) {
			return false
		}
	}
	return len(d.asks) == 0 // else these wait
}

// run runs jobs that stay together. It reports false when the transaction has to be given up.
func (d *departure) run(unit []*job) bool {
	for _, j := range unit {
		d.t.wrote, d.t.failed = false, false
		before := len(d.t.supposed.looks)
		switch err := j.run(d.t); {
		case err == nil:
			d.ran = append(d.ran, j)
		case d.t.wrote || d.t.failed || len(unit) > 1: // those keep their order
			d.lost = true
			return false
		default:
			d.asks = append(d.asks, j) // who asks says whether it is so
			d.t.unused(before)
		}
	}
	return true
}

// dispatch sends a transaction.
func (w *writer) dispatch(f *parcel) {
	f.t.afloat(true)
	for _, sp := range f.t.order {
		sp.sent = true
	}
	w.parcels = append(w.parcels, f)
	now := time.Now()
	f.t.turn.begin, f.t.turn.sent = now, now
	go func() {
		f.err = f.t.send()
		w.replies <- f
	}()
}

// receive answers the jobs of a parcel, or has them wait to be tried again.
func (w *writer) receive(ctx context.Context, f *parcel) {
	t := f.t
	w.parcels = slices.DeleteFunc(w.parcels, func(x *parcel) bool { return x == f })
	for _, sp := range t.order {
		sp.sent = false
	}
	switch {
	case f.err == nil:
		w.way.took(t.turn.took())
		w.received(t, f.jobs)
		w.conns = append(w.conns, t.conn)
		return
	case db.Refused(f.err):
		t.afloat(false)
		w.give(t)
	default:
		t.afloat(false)
		t.rollback()
		w.s.letGo(t.supposed)
		t.conn.Lost()
		for _, c := range w.conns { // the server may have ended all of them
			c.Drop()
		}
		w.conns = nil
		if w.settled(ctx, t, f.jobs, f.err) {
			return
		}
	}
	w.waiting = append(slices.Clone(f.jobs), w.waiting...)
}

// receiveAll waits for all parcels. What has to be tried again waits.
func (w *writer) receiveAll(ctx context.Context) {
	for len(w.parcels) > 0 {
		w.receive(ctx, <-w.replies)
	}
}

// resume runs the jobs that wait for parcels, as far as these are answered.
func (w *writer) resume(ctx context.Context) {
	if jobs := w.waiting; len(jobs) > 0 {
		w.waiting = nil
		w.run(ctx, jobs)
	}
}

// rest has all parcels arrive, and runs what waits.
func (w *writer) rest(ctx context.Context) {
	for len(w.parcels)+len(w.waiting) > 0 {
		w.receiveAll(ctx)
		w.resume(ctx)
	}
}

// back gives the connection of a transaction back of which nothing was sent, or came.
func (w *writer) back(t *tx) {
	w.s.letGo(t.supposed)
	if t.conn.Rollback(t.ctx) != nil {
		t.conn.Lost()
		return
	}
	w.conns = append(w.conns, t.conn)
}

// give gives up a transaction of which nothing came.
func (w *writer) give(t *tx) {
	w.guess.wrong()
	w.s.turns.wrong.Add(1)
	w.s.metrics.writes.WithLabelValues(supposedWrong).Inc()
	w.back(t)
	t.unlearn()
}

// send sends the transaction, and learns what the server gave it. It runs beside the one who writes, who leaves the transaction
// alone meanwhile.
func (t *tx) send() error {
	x := t.supposed
	var sids []any
	for _, sp := range t.order {
		sids = append(sids, sp.sid)
	}
	ours, args := in("sid", sids)
	whole := db.Whole{
		Rows:  db.Query{Text: "SELECT sid FROM spaces WHERE " + ours + " ORDER BY sid" + t.s.db.ForUpdate, Args: args},
		Given: len(x.made), First: &x.first, Check: t.checks(),
		Lock: []db.Query{
			{Text: "UPDATE node SET generation = generation + 1 WHERE id = 1"},
			{Text: readGeneration, Row: func(scan db.Scan) error { return scan(&x.generation) }},
			// Both ends of the generations are named, so that PostgreSQL, which plans without their values, looks at those alone.
			check("(SELECT generation FROM node WHERE id = 1) <= ? AND NOT EXISTS (SELECT 1 FROM commits WHERE generation > ? AND generation <= ? AND (flags <> 0 OR sid = 0 OR length(revoked) > 0 OR "+ours+"))",
				append([]any{x.since + maxElsewhere, x.since, x.since + maxElsewhere}, args...)),
		},
	}
	if met := t.s.others.met.Load(); met > 0 && x.since-met < meetAhead {
		t.met = []commit{}
		whole.Lock = append(whole.Lock, askCommits(&t.met, x.since, maxBehind))
	}
	return t.conn.SendWhole(t.ctx, whole)
}

// number gives the epochs of the transaction their numbers.
func (t *tx) number() {
	x := t.supposed
	by := x.first - db.FirstGiven
	for _, sp := range t.order {
		sp.mu.Lock()
	}
	for _, n := range x.made {
		n.eid += by
	}
	for _, sp := range t.order {
		sp.mu.Unlock()
		c := t.dirty[sp]
		if c.LastWrite.Epoch >= db.FirstGiven {
			c.LastWrite.Epoch += by
		}
		for i := range c.Writes {
			if c.Writes[i].Cursor.Epoch >= db.FirstGiven {
				c.Writes[i].Cursor.Epoch += by
			}
		}
	}
}

// received answers the jobs of a transaction that is durable.
func (w *writer) received(t *tx, jobs []*job) {
	x := t.supposed
	t.generation = x.generation - 1
	t.number()
	t.supposed = nil
	w.guess.penalty = max(leastAsking, w.guess.penalty-1)
	for _, l := range x.looks {
		w.guess.found(l.Look, l.Args, absentRow(l.Look))
	}
	if t.generation > t.s.others.generation.Load() {
		if err := t.between(); err != nil { // who asks next reads it
			t.s.log.WarnContext(t.ctx, "cannot follow the other processes yet", "error", err)
		}
	}
	w.crowded = t.s.others.met.Load() > x.since
	t.turn.met = w.crowded
	w.usual, w.spread, w.held = w.under()+len(jobs), len(t.order), t.turn.took()
	t.s.turns.ended(t.turn)
	t.s.turns.whole.Add(1)
	t.s.metrics.writes.WithLabelValues(sentWhole).Inc()
	t.counted(len(jobs))
	t.publish()
	t.s.letGo(x)
	finish(jobs, make([]error, len(jobs)), nil)
}

// between learns what others wrote since the memory was known, before the transaction.
func (t *tx) between() error {
	if t.met == nil || len(t.met) >= maxBehind {
		return t.s.catchUp(t.ctx, t.s.db.Read, t.generation)
	}
	return t.s.catchUpBy(t.ctx, t.s.db.Read, t.generation, func(known int64) ([]commit, error) {
		return slices.DeleteFunc(t.met, func(c commit) bool { return c.generation <= known }), nil
	})
}

// settled finds out what came of a transaction whose answer was lost: the rows of its commits are there, or not. It reports
// false when nothing did, so that its jobs may be tried again.
func (w *writer) settled(ctx context.Context, lost *tx, jobs []*job, why error) bool {
	t, err := w.begin(ctx, nil) // under the lock: the transaction is over
	var n int64
	if err == nil {
		// Others of this process that are under way at the same time write to other Spaces.
		_, err = t.one([]any{&n}, "SELECT count(*) FROM commits WHERE generation > ? AND holder = ? AND sid = ?", lost.supposed.since, t.s.me[:], lost.order[0].sid)
		t.rollback()
	}
	switch {
	case err != nil:
		w.drop()
		w.s.log.ErrorContext(ctx, "commit failed", "error", errors.Join(why, err), "jobs", len(jobs))
		finish(jobs, nil, unavailable(why))
		return true
	case n == 0:
		return false
	}
	finish(jobs, make([]error, len(jobs)), nil) // it is met as one of another process
	return true
}

// afloat says whether the transaction's outcome is unknown from now on.
func (t *tx) afloat(on bool) {
	o := &t.s.others
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(t, on)
}

// note notes that a transaction's outcome is unknown, or known. The caller holds mu.
func (o *others) note(t *tx, on bool) {
	delete(o.sent, t)
	if on {
		o.sent[t] = t.supposed.since + 1
	}
	o.pending, o.afloat = 0, len(o.sent) > 0
	for _, least := range o.sent {
		if o.pending == 0 || least < o.pending {
			o.pending = least
		}
	}
}
