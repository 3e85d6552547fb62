package capstore

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// What most requests ask a server is known beforehand: that their tokens were not used, and that the keys that they write and
// the values are new. So a transaction of such requests supposes the answers, and is sent whole: one round trip, in which
// locks are held by the server alone. It asks the server to check all that was supposed, and that nobody else wrote to its
// Spaces since this process knew them; where anything was wrong, nothing is done, and the requests are judged again in a
// transaction that asks.

const (
	// Where what was supposed was wrong, so many groups of requests ask, and twice as many the next time; one less after each group
	// that was sent whole.
	leastAsking, mostAsking = 4, 256
	// absentInARow is how many rows have to be new after one that was not, before others are supposed to be.
	absentInARow = 4
	// rememberedRows are rows that are known to be there.
	rememberedRows = 1 << 14
	maxElsewhere   = 1024 // transactions of other processes since the Spaces were known
	plainCaps      = 8    // of a request: each may write a value that comes along
)

// supposed is what a transaction supposes, and what it gave names to that the server will number.
type supposed struct {
	since int64 // generation that the memory was up to when the first Space was taken
	looks []service.Looked
	made  []*node             // epochs
	grown map[*space]int64    // bytes that have to be left in the limits of Spaces, beyond what is known of these
	rooms map[*space]Room     // what is known
	rows  map[string]struct{} // that requests are about, each by one
	added map[string]struct{} // that the transaction inserts, and fails if they are there
}

// guess is what the writer believes of rows that it has not asked for.
type guess struct {
	seed    maphash.Seed
	there   *lru.Cache[uint64, struct{}]
	absent  map[service.Look]int // looks in a row that found nothing
	asking  int                  // groups that ask, from now on
	penalty int                  // how many will the next time
}

func newGuess() *guess {
	g := &guess{seed: maphash.MakeSeed(), absent: map[service.Look]int{}, penalty: leastAsking}
	g.there, _ = lru.New[uint64, struct{}](rememberedRows)
	return g
}

func (g *guess) hash(row string) uint64 { return maphash.String(g.seed, row) }

// is notes a row that is there, see [rowOf].
func (g *guess) is(row string) { g.there.Add(g.hash(row), struct{}{}) }

// found notes what the database said.
func (g *guess) found(l service.Look, args []any, row []any) {
	if isAbsent(l, row) {
		g.absent[l]++
		return
	}
	g.absent[l] = -absentInARow
	g.is(rowOf(l, args))
}

// isNew reports whether a row is believed not to be there.
func (g *guess) isNew(l service.Look, args []any) bool {
	return g.absent[l] >= 0 && !g.there.Contains(g.hash(rowOf(l, args)))
}

func (g *guess) allNew(looks []service.Looked) bool {
	return !slices.ContainsFunc(looks, func(l service.Looked) bool { return !g.isNew(l.Look, l.Args) })
}

// wrong has the next requests ask.
func (g *guess) wrong() {
	g.asking = g.penalty
	g.penalty = min(2*g.penalty, mostAsking)
}

// absentRow is the answer to a look that finds nothing.
func absentRow(l service.Look) []any {
	if l.Counts() {
		return []any{int64(0)}
	}
	return nil
}

func isAbsent(l service.Look, row []any) bool {
	return row == nil || l.Counts() && row[0] == int64(0)
}

// supposes reports whether transactions may be sent whole now.
func (w *writer) supposes() bool { return w.s.db.Shared && !w.s.doubts && w.guess.asking == 0 }

// take has nobody else change the loaded Spaces of jobs until they are let go, and returns the generation that the memory is up
// to. What another process wrote to one of them meanwhile has it loaded again; the transaction is refused then.
func (s *Store) take(jobs []*job) (generation int64) {
	o := &s.others
	o.mu.Lock()
	defer o.mu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, j := range jobs {
		for _, id := range j.spaces {
			if sp := s.spaces[id]; sp != nil {
				o.taken[sp] = struct{}{}
			}
		}
	}
	return o.generation.Load()
}

// letGo ends what take began.
func (s *Store) letGo() {
	s.others.mu.Lock()
	defer s.others.mu.Unlock()
	clear(s.others.taken)
}

// foresees reports whether what most jobs look at is likely to be new, so that they are better sent whole.
func (w *writer) foresees(jobs []*job) bool {
	if !w.supposes() {
		return false
	}
	some := 0
	for _, j := range jobs {
		if j.plain && w.guess.allNew(j.ahead(w.s)) {
			some++
		}
	}
	return 2*some >= len(jobs)
}

// ready reports whether the Spaces of a job are as they are nearly always, so that nothing has to be asked of them.
func (t *tx) ready(j *job) bool {
	for _, id := range j.spaces {
		t.s.mu.RLock()
		sp := t.s.spaces[id]
		t.s.mu.RUnlock()
		if sp == nil || sp.waits() || sp.closed || sp.limit != 0 || sp.pending != 0 || sp.parked != (parking{}) {
			return false
		}
		if _, known := sp.memory[dag.KV]; !known {
			return false
		}
		if own := sp.own(); own == nil || own.tip == nil || sp.todo.some() {
			return false
		}
		if slices.ContainsFunc(j.proofs, func(p tinycloud.Hash) bool { return !sp.placed[p] }) {
			return false
		}
	}
	return true
}

// some reports whether anything is to be done, but for what waits for news.
func (x *todo) some() bool {
	return x.all || x.removals || x.times || len(x.epochs)+len(x.cuts) > 0
}

// supposes supposes what a job looks at. Two jobs that are about one row have to follow each other.
func (t *tx) supposes(g *guess, j *job) bool {
	looks := j.ahead(t.s)
	if !g.allNew(looks) {
		return false
	}
	for _, l := range looks {
		if l.Look != service.LookValue && l.Look != service.LookPast {
			row := rowOf(l.Look, l.Args)
			if _, twice := t.supposed.rows[row]; twice {
				return false
			}
			t.supposed.rows[row] = struct{}{}
		}
		if t.known.at(l.Look, l.Args) == nil {
			t.known.learn(l.Look, l.Args, absentRow(l.Look))
			t.known.at(l.Look, l.Args).supposed = true
		}
	}
	return true
}

// used notes an answer that was supposed and is about to be relied on.
func (t *tx) used(a *answer, l service.Look, args []any) {
	if a.supposed {
		a.supposed = false
		t.supposed.looks = append(t.supposed.looks, service.Looked{Look: l, Args: args})
	}
}

// unused forgets that answers were relied on, but for so many.
func (t *tx) unused(but int) {
	for _, l := range t.supposed.looks[but:] {
		if a := t.known.at(l.Look, l.Args); a != nil {
			a.supposed = true
		}
	}
	t.supposed.looks = t.supposed.looks[:but]
}

// give gives up a transaction of which nothing came.
func (w *writer) give(t *tx) {
	w.guess.wrong()
	w.s.turns.wrong.Add(1)
	w.s.metrics.writes.WithLabelValues(supposedWrong).Inc()
	if t.conn.Rollback(t.ctx) != nil {
		w.drop()
	}
	t.unlearn()
}

// sendWhole sends the transaction, and learns what the server gave it.
func (w *writer) sendWhole(t *tx) error {
	var generation, first int64
	x := t.supposed
	var sids []any
	for _, sp := range t.order {
		sids = append(sids, sp.sid)
	}
	ours, args := in("sid", sids)
	whole := db.Whole{
		Rows:  db.Query{Text: "SELECT sid FROM spaces WHERE " + ours + " ORDER BY sid" + t.s.db.ForUpdate, Args: args},
		Given: len(x.made), First: &first, Check: t.checks(),
		Generation: &generation,
		// Both ends of the generations are named, so that PostgreSQL, which plans without their values, looks at those alone.
		CheckLate: db.Condition{
			Holds: "(SELECT generation FROM node WHERE id = 1) <= ? AND NOT EXISTS (SELECT 1 FROM commits WHERE generation > ? AND generation <= ? AND (flags <> 0 OR sid = 0 OR length(revoked) > 0 OR " + ours + "))",
			Args:  append([]any{x.since + maxElsewhere, x.since, x.since + maxElsewhere}, args...),
		},
	}
	if met := t.s.others.met.Load(); met > 0 && x.since-met < meetAhead {
		t.met = []commit{}
		whole.Ask = append(whole.Ask, askCommits(&t.met, x.since, maxBehind))
	}
	if err := t.conn.SendWhole(t.ctx, whole); err != nil {
		return err
	}
	t.generation = generation - 1
	x.number(t, first)
	return nil
}

// adds notes an insert of a row that a look would have found: the server refuses it if the row is there.
func (x *supposed) adds(i db.Insert, l service.Look, row string) {
	if i.Key == "" && !l.Counts() {
		x.added[row] = struct{}{}
	}
}

// rowOf names the row that a look is about.
func rowOf(l service.Look, args []any) string { return l.Table + " " + spelled(args) }

// checks are that all that was supposed is so, but for what the server finds out itself.
func (t *tx) checks() (all []db.Condition) {
	x := t.supposed
	of := map[service.Look][][]any{}
	var order []service.Look
	for _, l := range x.looks {
		if _, added := x.added[rowOf(l.Look, l.Args)]; added {
			continue
		}
		if of[l.Look] == nil {
			order = append(order, l.Look)
		}
		of[l.Look] = append(of[l.Look], l.Args)
	}
	for _, l := range order {
		all = append(all, t.s.db.None(l.Table, l.Where(), of[l])...)
	}
	var rooms [][]any
	for sp, r := range x.rooms {
		rooms = append(rooms, []any{sp.sid, r.Limit - r.Ops - r.excess() - x.grown[sp]})
	}
	return append(all, t.s.db.Each("(SELECT bytes + sizes FROM spaces WHERE sid = ?"+t.s.db.Apart+") <= ?", rooms)...)
}

// grow has a Space grow by some bytes of values: the server checks that there is room.
func (x *supposed) grow(sp *space, r Room, by int64) {
	if x.grown[sp] += by; x.grown[sp] > 0 || r.excess() > 0 {
		x.rooms[sp] = r
	}
}

// number gives the epochs of the transaction their numbers.
func (x *supposed) number(t *tx, first int64) {
	by := first - db.FirstGiven
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

// landed answers the jobs of a transaction that is durable.
func (w *writer) landed(t *tx, jobs []*job) {
	x := t.supposed
	w.crowded = t.generation > x.since
	t.turn.met = w.crowded
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
	w.usual, w.held = len(jobs)+len(w.s.jobs), t.turn.took()
	t.s.turns.ended(t.turn)
	t.s.turns.whole.Add(1)
	t.s.metrics.writes.WithLabelValues(sentWhole).Inc()
	t.counted(len(jobs))
	t.publish()
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
		_, err = t.one([]any{&n}, "SELECT count(*) FROM commits WHERE generation > ? AND holder = ?", lost.supposed.since, t.s.me[:])
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
	o.pending, o.afloat = 0, on
	if on {
		o.pending = t.supposed.since + 1
	}
}

// plainly reports whether a request is of the kind whose transaction may be sent whole: it writes keys.
func plainly(r service.Request) bool {
	return r.Service == dag.KV && r.Adds && !r.Only && len(r.Token.Caps) <= plainCaps && !slices.ContainsFunc(r.Parts, func(p service.Part) bool { return p.Made != nil || p.Ahead == nil })
}
