package capstore

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// forming is a transaction that is about to be sent whole. Jobs join it as they come, and are judged while others are on their
// way.
type forming struct {
	w    *writer
	t    *tx
	all  []*job // that came
	ran  []*job // that are in it
	asks []*job // that have to ask
	lost bool   // something failed that had written
}

// whole runs jobs, and those that come soon, in a transaction that is sent whole, and returns those that have to be run in one
// that asks.
func (w *writer) whole(ctx context.Context, jobs []*job) (asks []*job) {
	defer w.s.letGo()
	t := newTx(ctx, w.s)
	t.supposed = &supposed{grown: map[*space]int64{}, rooms: map[*space]Room{}, rows: map[string]struct{}{}, added: map[string]struct{}{}}
	f := &forming{w: w, t: t}
	w.linger(jobs, f.join)
	switch {
	case t.conn == nil: // who asks says why
		return f.all
	case len(f.ran) == 0 && len(t.order) == 0:
		_ = t.conn.Rollback(ctx) // nothing was sent
		return f.all
	case f.lost || t.flush() != nil || len(t.order) == 0:
		w.give(t)
		return f.all
	}
	return f.send()
}

// send sends the transaction, and returns the jobs that have to ask.
func (f *forming) send() (asks []*job) {
	w, t := f.w, f.t
	t.afloat(true)
	began := time.Now()
	t.turn.begin, t.turn.sent = began, began
	err := w.sendWhole(t)
	if err == nil {
		w.way.took(time.Since(began))
		w.landed(t, f.ran)
		return f.asks
	}
	t.afloat(false)
	if db.Refused(err) {
		w.give(t)
		return f.all
	}
	t.rollback()
	w.drop()
	if w.settled(t.ctx, t, f.ran, err) {
		return f.asks
	}
	return f.all
}

// join runs jobs in the transaction, as far as they need not ask. It reports whether more may join. The first decide whether
// it is sent whole: most of them have to need nothing.
func (f *forming) join(jobs []*job) bool {
	w, t := f.w, f.t
	first := len(f.all) == 0
	f.all = append(f.all, jobs...)
	// What another process writes later to a Space of those that come later is found out as if it had been taken first.
	if generation := w.s.take(jobs); first {
		t.supposed.since = generation
	}
	var some [][]*job
	n := 0
	for unit := range units(jobs) {
		if slices.ContainsFunc(unit, func(j *job) bool { return !j.plain || !t.ready(j) || !t.supposes(w.guess, j) }) {
			f.asks = append(f.asks, unit...)
		} else {
			some, n = append(some, unit), n+len(unit)
		}
	}
	if first {
		if n == 0 || 2*n < len(jobs) || w.conn == nil && w.connect(t.ctx) != nil {
			return false
		}
		t.conn = w.conn
		t.conn.Suppose()
	}
	for i, unit := range some {
		if t.conn.Kept() > db.MostWhole {
			f.asks = append(slices.Concat(some[i:]...), f.asks...)
			return false
		}
		if !f.run(unit) {
			return false
		}
	}
	return len(f.asks) == 0 // else these wait
}

// run runs jobs that stay together. It reports false when the transaction has to be given up.
func (f *forming) run(unit []*job) bool {
	for _, j := range unit {
		f.t.wrote, f.t.failed = false, false
		before := len(f.t.supposed.looks)
		switch err := j.run(f.t); {
		case err == nil:
			f.ran = append(f.ran, j)
		case f.t.wrote || f.t.failed || len(unit) > 1: // those keep their order
			f.lost = true
			return false
		default:
			f.asks = append(f.asks, j) // who asks says whether it is so
			f.t.unused(before)
		}
	}
	return true
}

// units are jobs with what comes right behind them: they stay together.
func units(jobs []*job) iter.Seq[[]*job] {
	return func(yield func([]*job) bool) {
		for len(jobs) > 0 {
			n := 1 + len(jobs[0].more)
			if !yield(jobs[:n:n]) {
				return
			}
			jobs = jobs[n:]
		}
	}
}
