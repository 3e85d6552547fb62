package sql

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// cursor is a position in the log of a database.
type cursor struct {
	pos  uint64 // requests before it
	at   state
	last *service.Spot // of the operation before it; nil for none
	row  int64         // the greatest row of an epoch before it
}

func (c cursor) next(p *place) cursor {
	return cursor{c.pos + 1, p.after(c.at), &p.last, max(c.row, p.last.Row)}
}

const (
	windowSize   = 512     // places kept in memory, by which a change is found without reading the whole log
	batchSize    = 512     // requests that are read at once
	batchBytes   = 8 << 20 // likewise, in bytes, when these are read
	loadedAtOnce = 16      // requests that are read before their bytes are counted
	attempts     = 3       // to open a database whose files fail
)

// step is what there is to do next, by a look at the log.
type step struct {
	want   state // of the history
	done   bool
	rewind *uint64
	settle map[uint64]settled
	places []*place
	events []service.Event
}

// settled is a position whose state may be that of a mark.
type settled struct {
	digest tinycloud.Hash
	at     cursor
}

// follow brings the database up to the log, with the turn.
func (d *database) follow(ctx context.Context, store service.Store) error {
	if d.db != nil && d.aside.Load() != nil { // the files are as they are until it has ended
		if others, err := d.others(ctx, store, d.at.row); err != nil || !others {
			return err
		}
		d.endAside()
	}
	for failures := 0; ; {
		err := d.ready()
		if err == nil {
			err = d.chase(ctx, store)
		}
		switch {
		case err == nil:
			d.measure(ctx, store)
			return nil
		case errors.Is(err, engine.ErrLost), errors.Is(err, engine.ErrGone), errors.Is(err, engine.ErrBroken):
		default:
			d.lost = true
			return err
		}
		if failures++; failures > attempts {
			return fmt.Errorf("%w: %w", tinycloud.ErrUnavailable, err)
		}
		if err := d.anew(!errors.Is(err, engine.ErrBroken) || errors.Is(err, engine.ErrLost)); err != nil {
			return fmt.Errorf("%w: %w", tinycloud.ErrUnavailable, err)
		}
	}
}

func (d *database) chase(ctx context.Context, store service.Store) error {
	if !d.lost { // that nothing came costs least to find
		now, err := d.now(ctx, store)
		if err != nil {
			return err
		}
		if now == d.at.at {
			d.show()
			return nil
		}
	}
	for {
		var s step
		err := store.Log(ctx, d.of.space, request.Service, d.of.path, func(l service.Log) (err error) {
			s, err = d.look(ctx, l)
			return err
		})
		if err != nil {
			return err
		}
		if d.limit > 0 && !s.done {
			if cost, _ := d.cost(s); cost > d.limit {
				return errFar
			}
		}
		if d.long(s) {
			if others, err := d.others(ctx, store, d.at.row); err != nil {
				return err
			} else if !others && d.replayAside(store, false) {
				return nil
			}
		}
		switch {
		case s.done:
			d.show()
			return nil
		case s.rewind != nil:
			err = d.rewind(*s.rewind)
		case s.settle != nil:
			err = d.settle(s.settle)
		default:
			err = d.run(ctx, store, s)
		}
		if err != nil {
			return err
		}
	}
}

// look compares the log with where the engine is.
func (d *database) look(ctx context.Context, l service.Log) (s step, err error) {
	b, err := l.State(ctx)
	if err != nil {
		return s, err
	}
	want, err := decodeState(b)
	if err != nil {
		return s, err
	}
	defer func() { s.want = want }()
	if d.lost {
		s.settle, err = d.scan(ctx, l, want)
		return s, err
	}
	if want == d.at.at {
		s.done = true
		return s, nil
	}
	at := d.at
	err = each(ctx, l, d.at.last, func(p *place) error {
		if at = at.next(p); len(s.places) == batchSize && want == d.sure && want.n > 0 {
			return errEnough
		} else if len(s.places) < batchSize {
			s.places = append(s.places, p)
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return s, d.load(ctx, l, &s)
	case err != nil:
		return s, err
	case at.at == want:
		d.sure = want
		return s, d.load(ctx, l, &s)
	}
	pos, ok, err := d.differs(ctx, l, want)
	if err != nil || ok {
		return step{rewind: &pos}, err
	}
	s = step{}
	s.settle, err = d.scan(ctx, l, want)
	return s, err
}

// errEnough ends the reading of a log.
var errEnough = errors.New("enough is read")

func each(ctx context.Context, l service.Log, after *service.Spot, f func(*place) error) error {
	g := grouper{each: f}
	if err := l.Spots(ctx, after, g.take); err != nil {
		return err
	}
	return g.flush()
}

// load reads the requests of a step, up to a number of bytes.
func (d *database) load(ctx context.Context, l service.Log, s *step) error {
	size := 0
	for len(s.events) < len(s.places) && size <= batchBytes {
		var at []service.Spot
		for _, p := range s.places[len(s.events):min(len(s.places), len(s.events)+loadedAtOnce)] {
			at = append(at, p.first)
		}
		events, err := l.Events(ctx, at)
		if err != nil {
			return err
		}
		s.events = append(s.events, events...)
		for _, e := range events {
			for _, b := range e.Ops {
				size += len(b)
			}
		}
	}
	s.places = s.places[:len(s.events)]
	return nil
}

// differs finds the first place of the window that is another now; ok is false if what is before the window is.
func (d *database) differs(ctx context.Context, l service.Log, want state) (pos uint64, ok bool, err error) {
	at, i, same := d.base, 0, 0
	err = each(ctx, l, d.base.last, func(p *place) error {
		if i == same && i < len(d.window) && d.window[i].key == p.key {
			same++
		}
		i++
		at = at.next(p)
		return nil
	})
	return d.base.pos + uint64(same), at.at == want, err
}

// scan reads the whole log, and what its digests are at the marks of the engine.
func (d *database) scan(ctx context.Context, l service.Log, want state) (map[uint64]settled, error) {
	marks := map[uint64]settled{}
	for _, m := range d.db.Marks() {
		marks[m.Pos] = settled{}
	}
	known := map[uint64]settled{0: {}}
	var at settled
	err := each(ctx, l, nil, func(p *place) error {
		at.digest, at.at = engine.Next(at.digest, p.key), at.at.next(p)
		if _, ok := marks[at.at.pos]; ok {
			known[at.at.pos] = at
		}
		return nil
	})
	if err == nil && at.at.at != want {
		err = fmt.Errorf("database %q of %s: the history holds another number of operations than it says", d.of.path, d.of.space)
	}
	return known, err
}

// goesBack is called before the files go back: queries see them no more, and what was found of the log may not hold.
func (d *database) goesBack() {
	d.shown.Store(nil)
	d.sure = state{}
	d.back++
}

// settle goes back to the last state of the engine that is one of the log.
func (d *database) settle(known map[uint64]settled) error {
	d.goesBack()
	pos, err := d.db.Settle(func(pos uint64) (tinycloud.Hash, bool) {
		k, ok := known[pos]
		return k.digest, ok
	})
	if err != nil {
		return err
	}
	d.base, d.at, d.window, d.lost = known[pos].at, known[pos].at, nil, false
	d.since = min(d.since, pos)
	return nil
}

// rewind goes back to a position or before it.
func (d *database) rewind(to uint64) error {
	d.goesBack()
	was, _ := d.db.Position()
	pos, err := d.db.Rewind(to)
	if err != nil {
		return err
	}
	if d.tells {
		d.counts.rewinds.WithLabelValues(rewindBack).Inc()
		d.counts.replayed.Add(float64(was - pos))
	}
	d.since = min(d.since, pos)
	if pos < d.base.pos {
		d.lost = true
		return nil
	}
	d.window = d.window[:pos-d.base.pos]
	d.at = d.base
	for _, p := range d.window {
		d.at = d.at.next(p)
	}
	return nil
}

// run has the engine take what comes next.
func (d *database) run(ctx context.Context, store service.Store, s step) (err error) {
	ops := make([]engine.Op, len(s.events))
	for i, e := range s.events {
		ops[i] = d.read(s.places[i], e)
	}
	if t := d.telling(store, s); t != nil {
		err = d.db.Apply(ctx, ops, t.verdict, func() error { return t.tell(ctx) })
	} else {
		err = d.db.Apply(ctx, ops, d.verdict, nil)
	}
	if err != nil {
		return err
	}
	if d.tells {
		d.counts.caughtUp(s.places[len(s.places)-1].first.Written, store.Now())
	}
	return d.advance(s.places)
}

// advance notes that the engine has taken what stands at some places.
func (d *database) advance(places []*place) error {
	for _, p := range places {
		d.at = d.at.next(p)
		d.window = append(d.window, p)
	}
	if n := len(d.window) - windowSize; n > 0 {
		for _, p := range d.window[:n] {
			d.base = d.base.next(p)
		}
		d.window = append([]*place(nil), d.window[n:]...)
	}
	if pos, _ := d.db.Position(); pos != d.at.pos {
		return fmt.Errorf("%w: at %d, not %d", engine.ErrBroken, pos, d.at.pos)
	}
	return nil
}

// show has queries see where the database is.
func (d *database) show() {
	at := d.at
	d.shown.Store(&at)
}

// maxFailed is of how many requests it is known why they did nothing.
const maxFailed = 4096

func (d *database) verdict(op *engine.Op, r engine.Result) {
	if d.told != nil {
		d.told(op, r)
	}
	d.pace.add(r.Cost)
	if d.tells {
		d.counts.followed(r)
	}
	delete(d.failed, op.Key)
	if r.Err == nil {
		return
	}
	if len(d.failed) >= maxFailed {
		clear(d.failed)
		d.since, _ = d.db.Position()
	}
	d.failed[op.Key] = r.Err.Error()
}
