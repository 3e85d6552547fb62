package capstore

import (
	"context"
	"maps"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// An epoch has two times (docs/replication.md, "Two times"): node.t, by which entries are judged, and the one in
// node.age, by which writes are ordered. Both follow from its entries and its parents. A further entry, or a removal,
// may change them: the epoch is noted in the table stale, and what changes is carried forward from there, to those
// alone that it changes.

const (
	redateSlice = 64          // epochs of one transaction
	redateEvery = time.Second // between two goes at a Space; longer when they take long
	redateShare = 20          // so much longer than a go is the time until the next
	redateLook  = time.Minute // between looks for what another process, or an earlier life of this one, left
)

// firstAge is the age of a new epoch with its first entry.
func (sp *space) firstAge(p *hostlog.Parsed, valid bool, g ground) judge.Age {
	d := judge.Dating{Space: sp.id}
	for i := range p.DecodedEvents {
		d.Add(p.DecodedEvents[i].Token)
	}
	if valid {
		d.Entries = []judge.Witness{{At: p.Entry.At, Imported: p.ImportedAt != 0}}
	}
	return d.Age(g.ages())
}

// dated is a valid entry of an epoch as its age follows from it.
func (sp *space) dated(r entryRow, n *node) judge.Witness {
	w := sp.witness(r.branch, r.digest)
	return judge.Witness{At: r.at, Imported: w.importedAt != 0, Ended: sp.ended(w, r.at, n)}
}

// redateEnded has the age of the epochs found anew that witnesses stand in of whom other delegations are ended by removals
// than before.
func (t *tx) redateEnded(sp *space, before map[tinycloud.Hash]bool) error {
	after := sp.facts.EndedHosts()
	hosts := map[hostlog.Key]bool{}
	for _, sets := range [][2]map[tinycloud.Hash]bool{{before, after}, {after, before}} {
		for id := range sets[0] {
			if d := sp.facts.Delegation(id); d != nil && !sets[1][id] {
				host, ok := hostlog.KeyOf(d.Audience)
				hosts[host] = ok
			}
		}
	}
	for _, l := range sp.logs() {
		if !hosts[l.host] {
			continue
		}
		sp.todo.times = true
		t.touch(sp)
		// Alone an entry dates its epoch in any case.
		err := t.exec(`INSERT INTO stale (sid, seq, eid) SELECT DISTINCT p.sid, p.seq, p.eid FROM entries e JOIN epochs p ON p.eid = e.eid
			WHERE e.sid = ? AND e.branch = ? AND e.valid = 1 AND EXISTS (SELECT 1 FROM entries o WHERE o.eid = e.eid AND o.branch <> e.branch)
			AND NOT EXISTS (SELECT 1 FROM stale s WHERE s.sid = p.sid AND s.seq = p.seq AND s.eid = p.eid)`, sp.sid, l.branch)
		if err == nil {
			err = t.doubtPlaces(sp, "e.sid = ? AND e.branch = ?", sp.sid, l.branch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// doubtPlaces has the epochs of some entries judged again that have an event of a service which stands in other places too:
// which of them counts may depend on who says that each stands.
func (t *tx) doubtPlaces(sp *space, entries string, args ...any) error {
	if sp.ops == 0 {
		return nil // there is nothing but keys
	}
	return t.each(func(scan db.Scan) error {
		var eid int64
		err := scan(&eid)
		sp.todo.epochs[eid] = struct{}{}
		return err
	}, "SELECT DISTINCT e.eid FROM entries e JOIN events x ON x.eid = e.eid WHERE "+entries+` AND EXISTS (SELECT 1 FROM ops o WHERE o.eid = x.eid AND o.idx = x.idx AND o.service <> ?)
		AND EXISTS (SELECT 1 FROM events y WHERE y.sid = x.sid AND y.id = x.id AND y.eid <> x.eid)`, append(args, dag.KV)...)
}

func (g ground) ages() []judge.Age {
	out := make([]judge.Age, len(g.parents))
	for i, n := range g.parents {
		out[i] = n.age
	}
	return out
}

// ageOf computes the age of a stored epoch from the verdicts on its entries.
func (t *tx) ageOf(sp *space, n *node, g ground) (judge.Age, error) {
	d := judge.Dating{Space: sp.id}
	err := t.each(func(scan db.Scan) error {
		var ms int64
		var branch uint32
		var digest []byte
		err := scan(&ms, &branch, &digest)
		d.Entries = append(d.Entries, sp.dated(entryRow{branch: branch, at: ms, digest: tinycloud.Hash(digest)}, n))
		return err
	}, "SELECT at, branch, digest FROM entries WHERE eid = ? AND valid = 1", n.eid)
	if err != nil {
		return judge.Age{}, err
	}
	err = t.each(func(scan db.Scan) error {
		var kind token.Kind
		var b []byte
		if err := scan(&kind, &b); err != nil {
			return err
		}
		tok, err := token.Decode(b, kind == token.Invocation)
		d.Add(tok)
		return err
	}, "SELECT kind, bytes FROM events WHERE eid = ? AND kind IN (1, 2)", n.eid)
	return d.Age(g.ages()), err
}

// link notes that an epoch follows others.
func (t *tx) link(parents []*node, n *node) error {
	for _, p := range parents {
		if err := t.add(db.Insert{Into: "links", Columns: "parent child", Key: "parent child"}, p.eid, n.eid); err != nil {
			return err
		}
	}
	return nil
}

// suspect notes that the times of an epoch may have changed.
func (t *tx) suspect(sp *space, n *node) error {
	t.touch(sp)
	sp.todo.times = true
	return t.add(db.Insert{Into: "stale", Columns: "sid seq eid", Key: "sid seq eid"}, sp.sid, n.seq, n.eid)
}

// dates computes both times of an epoch anew and stores them. It reports what changed.
func (t *tx) dates(sp *space, n *node) (floor, age bool, err error) {
	g, err := t.groundOf(sp, n)
	if err != nil {
		return false, false, err
	}
	rows, err := t.entriesOf(n)
	if err != nil {
		return false, false, err
	}
	ms := g.floor
	for i, r := range rows {
		if i == 0 {
			ms = max(ms, r.at)
		}
		if late := r.at < judge.Earliest(g.floor); late == (r.is != entryVoid) {
			// The rule by which entries are void that are older than what they build on: for once it reaches what was judged.
			if late || sp.able(sp.witness(r.branch, r.digest), r.at, n) == nil {
				sp.todo.all = true
			}
		}
	}
	is, err := t.ageOf(sp, n, g)
	if err != nil {
		return false, false, err
	}
	floor, age = ms != n.t, is != n.age
	if !floor && !age {
		return false, false, nil
	}
	t.touch(sp)
	n.t, n.age = ms, is
	sp.next = nil
	return floor, age, t.exec("UPDATE epochs SET t = ?, written = ?, begin_of = ? WHERE eid = ?", n.t, n.age.Time, n.age.Encode(), n.eid)
}

// redateSome carries changed times forward, of so many epochs at most. It reports whether that was all.
func (t *tx) redateSome(sp *space) (all bool, err error) {
	t.deepen(sp)
	var eids, seqs []int64
	err = t.each(func(scan db.Scan) error {
		var seq, eid int64
		err := scan(&seq, &eid)
		seqs, eids = append(seqs, seq), append(eids, eid)
		return err
	}, "SELECT seq, eid FROM stale WHERE sid = ? ORDER BY seq, eid LIMIT ?", sp.sid, redateSlice)
	if err != nil {
		return false, err
	}
	var moved []*node
	for i, eid := range eids {
		n, err := t.nodeBy(sp, "eid = ?", eid)
		if err != nil {
			return false, err
		}
		floor, age, err := t.dates(sp, n)
		if err != nil {
			return false, err
		}
		if age {
			moved = append(moved, n)
		}
		if floor || age {
			if err := t.suspectChildren(sp, n); err != nil {
				return false, err
			}
		}
		if err := t.exec("DELETE FROM stale WHERE sid = ? AND seq = ? AND eid = ?", sp.sid, seqs[i], eid); err != nil {
			return false, err
		}
	}
	if err := t.refoldMoved(sp, moved); err != nil {
		return false, err
	}
	var one int
	more, err := t.one([]any{&one}, "SELECT 1 FROM stale WHERE sid = ? LIMIT 1", sp.sid)
	sp.todo.times = more
	return !more, err
}

func (t *tx) suspectChildren(sp *space, n *node) error {
	sp.todo.times = true
	return t.exec(`INSERT INTO stale (sid, seq, eid) SELECT p.sid, p.seq, p.eid FROM links l JOIN epochs p ON p.eid = l.child
		WHERE l.parent = ? AND NOT EXISTS (SELECT 1 FROM stale s WHERE s.sid = p.sid AND s.seq = p.seq AND s.eid = p.eid)`, n.eid)
}

// refoldMoved folds the subjects anew of epochs whose place in the order is another.
func (t *tx) refoldMoved(sp *space, moved []*node) error {
	subjects := map[subject]struct{}{}
	for _, n := range moved {
		if err := t.subjectsOf(n, subjects); err != nil {
			return err
		}
	}
	return t.refoldAll(sp, subjects)
}

// redate carries changed times of a Space forward now, if it is not too soon since the last time.
func (t *tx) redate(sp *space) error {
	if !sp.todo.times {
		return nil
	}
	if began := time.Now(); !began.Before(t.s.redating.due(sp.id)) {
		if _, err := t.redateSome(sp); err != nil {
			return err
		}
		t.s.redating.done(sp.id, began)
	}
	if sp.todo.times {
		t.s.redating.wake.Give()
	}
	return nil
}

// Redate carries the changed times of all Spaces forward, in transactions that others don't wait for, whether they are
// due or not. [Store.Run] does so when they are.
func (s *Store) Redate(ctx context.Context) error {
	_, err := s.redateDue(ctx, true)
	return err
}

// redateDue does so for the Spaces that are due, and returns when the next is; zero for never.
func (s *Store) redateDue(ctx context.Context, all bool) (next time.Time, err error) {
	ids, err := s.named(ctx, "SELECT space FROM spaces WHERE sid IN (SELECT sid FROM stale)")
	if err != nil {
		return next, err
	}
	for _, id := range ids {
		if due := s.redating.due(id); !all && time.Now().Before(due) {
			if next.IsZero() || due.Before(next) {
				next = due
			}
			continue
		}
		if err := s.redateSpace(ctx, id); err != nil {
			return next, err
		}
	}
	return next, nil
}

func (s *Store) redateSpace(ctx context.Context, id tinycloud.SpaceID) error {
	began := time.Now()
	defer func() { s.redating.done(id, began) }()
	for all := false; !all; {
		err := s.queue(ctx, s.bulk, func(t *tx) error {
			all = true
			sp, err := t.anySpace(id)
			if err != nil || sp.closed {
				return err
			}
			sp.mu.Lock()
			defer sp.mu.Unlock()
			all, err = t.redateSome(sp)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keepRedating carries changed times forward until the context ends.
func (s *Store) keepRedating(ctx context.Context) {
	pause := time.Duration(0)
	for s.redating.wake.Within(ctx, pause) {
		next, err := s.redateDue(ctx, false)
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot bring the order of writes up to date", "error", err)
			next = time.Now().Add(redateEvery)
		}
		if next.IsZero() {
			next = time.Now().Add(redateLook)
		}
		pause = time.Until(next)
	}
}

// redating is when times may be carried forward in a Space again.
type redating struct {
	wake wait.Signal

	mu   sync.Mutex
	next map[tinycloud.SpaceID]time.Time // guarded by mu; only what is to come
}

func newRedating() redating {
	return redating{wake: wait.NewSignal(), next: map[tinycloud.SpaceID]time.Time{}}
}

func (r *redating) due(id tinycloud.SpaceID) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next[id]
}

// done notes that times were carried forward since a moment.
func (r *redating) done(id tinycloud.SpaceID, began time.Time) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.next, func(_ tinycloud.SpaceID, t time.Time) bool { return t.Before(now) })
	r.next[id] = now.Add(max(redateEvery, redateShare*now.Sub(began)))
}
