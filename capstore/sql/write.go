package sql

import (
	"context"
	"errors"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// written is what came of a request that may write.
type written struct {
	answer []byte
	epoch  tinycloud.Hash // of the event that it made; zero for none
}

var (
	// errRaced is the error of a plan for a database to which operations have come since it was followed.
	errRaced = errors.New("operations have come meanwhile")
	// errBehind is the error of a plan that rests on another that came to nothing.
	errBehind = errors.New("what it rests on was not written")
)

const (
	// retries is how often a request is tried again because other operations came. Then it is made an operation all the
	// same: its answer is tentative anyway.
	retries = 2
	// maxGroup is how many requests are made durable together, and groupBytes from how many bytes of theirs on no more are.
	maxGroup   = 64
	groupBytes = 4 << 20
	// groupTime is how long requests are tried before those that were are made durable.
	groupTime = 50 * time.Millisecond
)

// errRules is the error of a plan by other rules than the hosts know.
var errRules = tinycloud.Refuse(tinycloud.ErrUnavailable, "Hosts of the space are being upgraded; retry the request")

// maxRules is how often a request is tried again because of that.
const maxRules = 8

// write carries a request out that may write. The error is a refusal, or says that the machine failed. done says that it
// was executed, and made nothing.
func (d *database) write(ctx context.Context, c service.Call, a authority, q *request.Request) (out written, done bool, err error) {
	if begins(c.Token).After(c.Store.Now().Add(slack)) {
		return out, false, tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invocation lifetime exceeds server maximum")
	}
	try := func(db *engine.DB, op *engine.Op) (engine.Result, error) { return db.Try(ctx, op) }
	w := &writing{left: ctx.Err, run: try, token: c.Token, a: a, q: q, ended: make(chan struct{})}
	d.queue.add(w)
	for gone := ctx.Done(); ; {
		select {
		case <-w.ended:
			return w.out, w.done, w.err
		case d.turn <- struct{}{}:
			err = d.writeGroup(ctx, c.Store)
			d.leave()
		case <-gone:
			err, gone = ctx.Err(), nil // if somebody carries it out, what comes of it is waited for
		}
		if err != nil && d.queue.drop(w) {
			return out, false, err
		}
	}
}

// group are requests that are tried one on top of the other, and made durable together. Source: docs/decisions/sql.md,
// "Writes, queries and replays".
type group struct {
	d      *database
	from   cursor // where the first was tried
	strict bool   // they become operations only where they were tried
	shared bool   // other processes write the database, too
	aside  *aside // a replay beside: what is durable is kept where it was tried all the same, until that has ended; nil for none
	ops    []*writing
	size   int // of ops, in bytes
	rest   []resting
	errs   []error // of ops, once they are made durable
}

// resting is a request that made nothing, and whose answer follows from so many of the group.
type resting struct {
	*writing
	on int
}

// writeGroup carries out requests that wait, with the turn. The error is of whoever has the turn: those that it took have
// their answers, or wait again.
func (d *database) writeGroup(ctx context.Context, store service.Store) error {
	if err := d.follow(ctx, store); err != nil {
		return err
	}
	g := &group{d: d, from: d.at, aside: d.aside.Load(), shared: store.Shared()}
	g.strict = g.aside == nil
	if g.fill(store); len(g.ops) == 0 {
		return g.alone(ctx, store)
	}
	size, err := d.db.SizeTried()
	if err != nil {
		g.giveUp()
		return d.unusable(err)
	}
	ctx = context.WithoutCancel(ctx)
	g.errs = store.PerformAll(ctx, g.requests(size))
	n := g.durable()
	// What is durable is answered as such: what fails from here on is made up for when the database is used next.
	whole := g.keep(n) == nil && n == len(g.ops)
	if whole {
		d.show()
	} else {
		_ = d.follow(ctx, store)
	}
	d.ahead.clear(whole)
	g.answer()
	return nil
}

// fill tries requests that wait.
func (g *group) fill(store service.Store) {
	begin := time.Now()
	for len(g.ops)+len(g.rest) < maxGroup && g.size < groupBytes && time.Since(begin) < groupTime {
		w := g.d.queue.take()
		if w == nil {
			break
		}
		if err := g.try(w, store.Now().UnixMilli()); err != nil {
			g.giveUp()
			w.end(false, g.d.unusable(err))
			return
		}
	}
	if len(g.ops) > 0 {
		return
	}
	if err := g.d.db.Rollback(); err != nil {
		_ = g.d.unusable(err)
	}
}

// try runs a request on top of those before it. The error says that the machine failed.
func (g *group) try(w *writing, now int64) error {
	d := g.d
	if err := w.left(); err != nil {
		w.end(false, err)
		return nil
	}
	if d.at.last != nil {
		now = max(now, d.at.last.Written)
	}
	w.place, w.meets, w.epoch = nil, false, tinycloud.Hash{}
	w.op = engine.Op{Event: w.token.ID, Now: now, Rules: d.rules, Request: w.q, Held: w.a.held, Facts: w.a.facts}
	var err error
	if w.res, err = w.run(d.db, &w.op); err != nil {
		return err
	}
	w.out.answer = w.res.Answer
	d.counts.spent(w.res)
	if w.res.Err == nil && w.res.Changed {
		o := request.Operation{Now: w.op.Now, Rules: w.op.Rules, Request: *w.q}
		if w.parts, err = o.Encode(d.of.path); err == nil {
			g.ops, g.strict = append(g.ops, w), g.strict && w.races < retries
			for _, b := range w.parts {
				g.size += len(b)
			}
			return nil
		}
		w.res.Err = err
		if err := d.db.Untry(); err != nil {
			return err
		}
	}
	switch {
	case w.res.Err != nil && w.left() != nil: // it was stopped
		w.end(false, w.left())
	case len(g.ops) == 0 && !g.shared:
		w.end(true, w.res.Err)
	default: // it saw what is not durable yet, or that was all by then
		g.rest = append(g.rest, resting{w, max(1, len(g.ops))})
	}
	return nil
}

// giveUp has all requests of the group wait again.
func (g *group) giveUp() {
	for _, r := range g.rest {
		g.ops = append(g.ops, r.writing)
	}
	g.d.queue.back(g.ops)
	g.ops, g.rest = nil, nil
}

// requests are what the history is asked for. size is of the database, in bytes.
func (g *group) requests(size int64) []service.Request {
	out := make([]service.Request, len(g.ops))
	for i, w := range g.ops {
		plan := service.Plan{Ops: w.parts, Size: &service.Size{Subject: g.d.of.path, Bytes: size}}
		out[i] = service.Request{Token: w.token, Service: request.Service, Adds: true, Parts: []service.Part{{
			Space: g.d.of.space,
			Plan:  func(tx service.Tx) (service.Plan, error) { return plan, g.permit(tx, i) },
			Made:  func(tx service.Tx, s service.Spot) error { return g.made(tx, i, s) },
			Ahead: service.StateAhead(request.Service, g.d.of.path),
		}}}
	}
	return out
}

// permit judges whether a request may become an operation, in the transaction of the history.
func (g *group) permit(tx service.Tx, i int) error {
	w := g.ops[i]
	w.place, w.meets, w.epoch = nil, false, tinycloud.Hash{}
	if older, err := tx.Older(); err != nil {
		return err
	} else if older {
		return tinycloud.Refuse(tinycloud.ErrUnsupported, "SQL is not written while another host of the space is of a release without it")
	}
	known, err := tx.Spoken()
	if err != nil {
		return err
	}
	if known = max(known, 1); known != w.op.Rules {
		g.d.rules = known
		return errRules
	}
	if !g.strict {
		return g.alike(tx, i)
	}
	want := g.from
	if i > 0 {
		if !g.ops[i-1].meets {
			return errBehind
		}
		want = g.ops[i-1].next
	}
	now, err := stateIn(tx, g.d.of.path)
	if err == nil && now != want.at {
		err = errRaced
	}
	return err
}

// alike judges the same where it doesn't matter what other hosts wrote meanwhile.
func (g *group) alike(tx service.Tx, i int) error {
	if !g.shared {
		return nil
	}
	row := g.from.row
	for _, w := range g.ops[:i] {
		if w.place != nil {
			row = max(row, w.place.last.Row)
		}
	}
	others, err := tx.OwnSince(g.d.of.path, row)
	if err == nil && others {
		err = errRaced
	}
	return err
}

// made notes where a request came to stand, in the transaction of the history: whether that is behind all that it was tried
// on, and nothing else came.
func (g *group) made(tx service.Tx, i int, s service.Spot) error {
	w, before := g.ops[i], g.from
	if i > 0 {
		before = g.ops[i-1].next
	}
	w.epoch = s.At.Epoch
	parts := grouper{each: func(p *place) error { w.place = p; return nil }}
	for n := range w.parts {
		s.N = n
		if err := parts.take(s); err != nil {
			return err
		}
	}
	if err := parts.flush(); err != nil {
		return err
	}
	now, err := stateIn(tx, g.d.of.path)
	if err != nil {
		return err
	}
	w.next = before.next(w.place)
	w.meets = (i == 0 || g.ops[i-1].meets) && now == w.next.at && w.op.Index == s.At.Index &&
		(before.last == nil || before.last.Compare(w.place.first) < 0) && untimely(w.op.Now, s.Written, w.token) == nil
	if w.meets {
		g.d.ahead.add(now)
	}
	if n, ok := newsOf(w.place.first, w.token.ID, w.token, w.res); ok && (w.meets || g.aside != nil) {
		return tx.Tell(g.d.of.path, n)
	}
	return nil
}

// durable is how many are durable, from the first, and stand where they were tried.
func (g *group) durable() (n int) {
	for n < len(g.ops) && g.errs[n] == nil && (g.ops[n].meets || g.aside != nil && g.ops[n].place != nil) {
		n++
	}
	return n
}

// keep keeps the effect of so many, and takes back that of the others.
func (g *group) keep(n int) error {
	d := g.d
	places := make([]*place, n)
	for i, w := range g.ops[:n] {
		w.op.Key, places[i] = w.place.key, w.place
		d.db.Take(&w.op)
		delete(d.failed, w.op.Key)
		d.pace.add(w.res.Cost)
		if g.aside != nil {
			g.aside.wrote(w)
		}
	}
	err := d.db.Commit()
	switch {
	case err == nil && g.aside == nil:
		err = d.advance(places)
	case err == nil:
		for _, p := range places {
			d.at.row = max(d.at.row, p.last.Row)
		}
	}
	if err != nil {
		_ = d.anew(errors.Is(err, engine.ErrLost))
	}
	return err
}

// answer answers those that have an outcome, and has the others wait again.
func (g *group) answer() {
	var again []*writing
	rest := g.rest
	all := true // those before are durable
	for i, w := range g.ops {
		for len(rest) > 0 && rest[0].on <= i {
			again = rest[0].settle(all, again)
			rest = rest[1:]
		}
		switch err := g.errs[i]; {
		case err == nil:
			w.out.epoch = w.epoch
			w.end(false, nil)
		case errors.Is(err, errRaced):
			w.races++
			again = append(again, w)
		case errors.Is(err, errRules) && w.outdated < maxRules:
			w.outdated++
			again = append(again, w)
		case errors.Is(err, errBehind):
			again = append(again, w)
		default:
			w.end(false, err)
		}
		all = all && g.errs[i] == nil
	}
	for _, r := range rest {
		again = r.settle(all, again)
	}
	g.d.queue.back(again)
}

// settle answers the request, if what its answer follows from is durable, or adds it to those that wait again.
func (r resting) settle(durable bool, again []*writing) []*writing {
	if !durable {
		return append(again, r.writing)
	}
	r.end(true, r.res.Err)
	return again
}

// unusable has the files be opened again, and says that the request may be tried again.
func (d *database) unusable(err error) error {
	return errors.Join(tinycloud.Refuse(tinycloud.ErrUnavailable, "The database could not be used; retry the request"), err, d.anew(errors.Is(err, engine.ErrLost)))
}
