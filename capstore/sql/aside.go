package sql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// A replay that would take long is done on a copy of the files, while queries see the files as they are and writes go on there:
// what was answered is in them, what others wrote is not yet, and the answers are as tentative as ever. Then the copy takes
// their place. Source: docs/decisions/sql.md, "Writes, queries and replays".

const (
	// creditShare is the part of the time that replays which go back may take while requests wait for them.
	creditShare = 10
	// shortFollow is how long the last look at the log of a replay may take, while requests wait; roundsAside is how often it
	// is tried to come to that.
	shortFollow = 100 * time.Millisecond
	roundsAside = 5
)

// pace estimates how long requests take, from what those took that ran, as the engine counts it: the machine's load is not in
// it.
type pace struct {
	of   uint64        // requests
	took time.Duration // by them
}

// paced is of how many requests the average is taken.
const paced = 1024

func (p *pace) add(c engine.Cost) {
	if p.of >= paced {
		p.of, p.took = p.of/2, p.took/2
	}
	p.of++
	p.took += 40*time.Microsecond + time.Duration(20*c.Steps+c.Bytes+10*c.Rows)
}

func (p *pace) estimate(n uint64) time.Duration {
	each := 50 * time.Microsecond
	if p.of > 0 {
		each = p.took / time.Duration(p.of)
	}
	return time.Duration(min(n, 1<<30)) * each
}

// credit is how long replays that go back may take while requests wait for them. It comes back with time.
type credit struct {
	debt time.Duration
	at   time.Time
}

// spend reports whether there was enough of most.
func (c *credit) spend(cost, most time.Duration, now time.Time) bool {
	c.debt, c.at = max(0, c.debt-now.Sub(c.at)/creditShare), now
	if c.debt+cost > most {
		return false
	}
	c.debt += cost
	return true
}

// aside is a replay on a copy.
type aside struct {
	whole bool       // from an empty file, not from the files that are here
	local []*writing // what was written here since it began; guarded by the turn
	size  int        // of it, in bytes
	over  bool       // that was too much to keep
}

// maxLocal and maxLocalBytes bound the requests that are kept that are written beside a replay.
const (
	maxLocal      = 4096
	maxLocalBytes = 8 << 20
)

func (a *aside) wrote(w *writing) {
	for _, b := range w.parts {
		a.size += len(b)
	}
	a.local = append(a.local, w)
	if a.over = a.over || len(a.local) > maxLocal || a.size > maxLocalBytes; a.over {
		a.local = nil
	}
}

// beyond is what was written here and is not where a database has followed the history to.
func (a *aside) beyond(d *database) (ops []engine.Op) {
	has := map[tinycloud.Hash]bool{}
	for _, p := range d.window {
		has[p.key] = true
	}
	for _, w := range a.local {
		if !has[w.place.key] && (d.base.last == nil || d.base.last.Compare(w.place.first) < 0) {
			ops = append(ops, w.op)
		}
	}
	return ops
}

// errFar is the error of a follow that would take longer than it may.
var errFar = errors.New("the history is far ahead")

// cost estimates how long what there is to do next takes, and whether the files go back for it.
func (d *database) cost(s step) (cost time.Duration, back bool) {
	from := d.at.pos
	switch {
	case s.rewind != nil:
		back, from = true, d.landing(func(m engine.Mark) bool { return m.Pos <= *s.rewind })
	case s.settle != nil:
		back, from = true, d.landing(func(m engine.Mark) bool {
			k, ok := s.settle[m.Pos]
			return ok && k.digest == m.Digest
		})
	}
	return d.pace.estimate(s.want.n - min(s.want.n, from)), back
}

// long reports whether what there is to do next is to be done aside. If requests wait for it, it counts.
func (d *database) long(s step) bool {
	if d.s == nil || d.shown.Load() == nil || s.done {
		return false
	}
	cost, back := d.cost(s)
	return cost > d.s.o.Wait || back && !d.credit.spend(cost, d.s.o.Wait, time.Now())
}

// landing is the last state of the engine that it may go back to.
func (d *database) landing(may func(engine.Mark) bool) (pos uint64) {
	for _, m := range d.db.Marks() {
		if may(m) {
			pos = max(pos, m.Pos)
		}
	}
	return pos
}

// asked is a replay to be done aside.
type asked struct {
	d     *database // in use until it is done
	a     *aside
	store service.Store
}

// replayAside has a replay be done on a copy, or from the beginning, with the turn. It is false if nobody does that.
func (d *database) replayAside(store service.Store, whole bool) bool {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &aside{whole: whole}
	if !s.news.ask(asked{d, a, store}) {
		return false
	}
	d.refs++
	s.metrics.rewinds.WithLabelValues(rewindAside).Inc()
	d.aside.Store(a)
	return true
}

// replay does what was asked for, until the database has caught up.
func (r asked) replay(ctx context.Context) {
	d := r.d
	defer d.s.release(d)
	for {
		d.turn <- struct{}{}
		rest := min(backShare*d.replayed, longestRest) - time.Since(d.replayedAt)
		d.leave()
		far, err := d.replayOnce(ctx, r.store, r.a, rest)
		if err != nil {
			d.giveUp(ctx, r.a, err)
		}
		if err != nil || !far {
			return
		}
	}
}

// giveUp has requests wait for a replay that failed.
func (d *database) giveUp(ctx context.Context, a *aside, err error) {
	d.turn <- struct{}{}
	defer d.leave()
	if d.aside.Load() == a {
		d.endAside()
	}
	if ctx.Err() == nil {
		d.s.o.Log.WarnContext(ctx, "database not replayed aside", "space", d.of.space, "database", d.of.path, "error", err)
	}
}

// replayOnce replays a copy after some time, and puts it in the place of the files. far says that the history has become another
// before it was done, and that there is another to be made.
func (d *database) replayOnce(ctx context.Context, store service.Store, a *aside, rest time.Duration) (far bool, err error) {
	if !wait.For(ctx, rest) {
		return false, ctx.Err()
	}
	select {
	case d.s.replaying <- struct{}{}:
		defer func() { <-d.s.replaying }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	begin := time.Now()
	dir, err := d.s.passingDir()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	next := d.s.detached(d.of, filepath.Join(dir, "database"))
	next.tells = true
	defer func() { err = errors.Join(err, next.close()) }()
	if !a.whole {
		if err := d.copyTo(next.dir); err != nil {
			return false, err
		}
	}
	for range roundsAside {
		round := time.Now()
		if err := next.follow(ctx, store); err != nil {
			return false, err
		}
		if time.Since(round) < shortFollow {
			break
		}
	}
	if err := d.enter(ctx); err != nil {
		return false, err
	}
	defer d.leave()
	if d.aside.Load() != a {
		return false, nil // the files were lost meanwhile, and made anew
	}
	next.limit = d.s.o.Wait
	err = next.follow(ctx, store)
	if far = errors.Is(err, errFar); far {
		err = next.db.Apply(ctx, a.beyond(next), next.verdict, nil)
	}
	if err == nil && !(far && a.over) {
		err = d.replace(next, filepath.Join(dir, "before"))
	}
	d.replayed, d.replayedAt = time.Since(begin), time.Now()
	switch {
	case err != nil:
		return false, err
	case !far:
		d.aside.Store(nil)
	}
	d.show()
	return far, nil
}

// endAside has requests wait for what was to be replayed aside, with the turn.
func (d *database) endAside() {
	d.aside.Store(nil)
	d.lost = true
	d.shown.Store(nil)
}

func (d *database) copyTo(dir string) error {
	d.files.RLock()
	defer d.files.RUnlock()
	if d.db == nil {
		return fmt.Errorf("copy of a database: %w", engine.ErrBroken)
	}
	return d.db.CopyTo(dir)
}

// replace puts the files of another in the place of those that are here, which go where before says, with the turn.
func (d *database) replace(next *database, before string) error {
	d.shown.Store(nil)
	if d.db != nil {
		d.db.StopViews()
	}
	d.files.Lock()
	defer d.files.Unlock()
	pos, _ := next.db.Position()
	err := next.db.Close()
	next.db = nil
	if d.db != nil {
		err = errors.Join(err, d.db.Close())
		d.db = nil
	}
	if err == nil {
		err = errors.Join(os.Rename(d.dir, before), os.Rename(next.dir, d.dir))
	}
	if err != nil {
		return err
	}
	db, err := engine.Open(d.dir, engine.Options{})
	if err != nil {
		return err
	}
	if at, _ := db.Position(); at != pos {
		return errors.Join(fmt.Errorf("%w: at %d, not %d", engine.ErrBroken, at, pos), db.Close())
	}
	row := max(d.at.row, next.at.row) // of what was written here meanwhile, too
	d.db, d.base, d.at, d.window, d.lost, d.sure = db, next.base, next.at, next.window, false, state{}
	d.at.row = row
	d.failed, d.since = next.failed, next.since
	d.pace = next.pace
	d.back++
	return nil
}
