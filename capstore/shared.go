package capstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Several processes on one server's database are one host: they write one log. Whoever writes locks the
// row of the table node first, so that transactions come one after another. It counts the generations: each
// transaction that changes what processes keep in memory makes a new one, and tells in the table commits
// what it did. A process that finds a generation it does not know reads what it missed before it goes on: the
// writer under the lock, readers before they judge.

const (
	followEvery = 200 * time.Millisecond // between looks for what others wrote
	keptCommits = 4096                   // generations that are told
	pruneEvery  = 256                    // generations
	maxBehind   = 1024                   // rows that are read one by one; beyond, the memory is dropped
	maxTold     = 256                    // own entries of one commit that are told whole
	toldValue   = 64 << 10               // bytes of a value that comes with its entry
)

// others is what a process knows of those it shares the database with.
type others struct {
	generation atomic.Int64 // that the memory is up to; rises only
	wake       chan struct{}
	telling    sync.Mutex // held while Committed is called

	mu      sync.Mutex     // held while the memory is brought up to date
	pending int64          // guarded by mu: the generation whose COMMIT is on its way, 0 for none
	doubt   map[int64]bool // guarded by mu: own generations of which nobody knows whether they are durable

	told int64 // generation up to which Committed was told; used by the follower alone
}

func newOthers() others {
	return others{wake: make(chan struct{}, 1), doubt: map[int64]bool{}}
}

// fresh makes sure that the memory holds what any process made durable before the call.
func (s *Store) fresh(ctx context.Context) error {
	if !s.db.Shared {
		return nil
	}
	var g int64
	if _, err := s.db.Read.One(ctx, []any{&g}, "SELECT generation FROM node WHERE id = 1"); err != nil {
		return err
	}
	if g <= s.others.generation.Load() {
		return nil
	}
	return s.catchUp(ctx, s.db.Read, g)
}

// meet takes the lock of the one who writes and learns what others wrote before.
func (t *tx) meet() error {
	ok, err := t.one([]any{&t.generation}, "SELECT generation FROM node WHERE id = 1"+t.s.db.ForUpdate)
	if err != nil {
		return err
	}
	if !ok {
		return unavailable(errNoNode)
	}
	if t.generation <= t.s.others.generation.Load() {
		return nil
	}
	return t.s.catchUp(t.ctx, t, t.generation)
}

var errNoNode = errors.New("the row of table node is gone")

// flags of a commit.
const (
	flagCreated = 1 << iota
	flagJoins
	flagQuotas
)

// commit is a row of the table commits.
type commit struct {
	generation, sid        int64
	holder                 []byte
	branch, first, entries int64
	remote, wants, flags   int64
	hosts, revoked         []byte
}

func (s *Store) commits(ctx context.Context, q querier, after int64, limit int) (rows []commit, err error) {
	err = q.Each(ctx, func(scan db.Scan) error {
		var c commit
		err := scan(&c.generation, &c.sid, &c.holder, &c.branch, &c.first, &c.entries, &c.remote, &c.wants, &c.flags, &c.hosts, &c.revoked)
		rows = append(rows, c)
		return err
	}, `SELECT generation, sid, holder, branch, first, entries, remote, wants, flags, hosts, revoked FROM commits
		WHERE generation > ? ORDER BY generation, sid LIMIT ?`, after, limit)
	return rows, err
}

// catchUp brings the memory up to a generation of the database.
func (s *Store) catchUp(ctx context.Context, q querier, g int64) error {
	o := &s.others
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.generation.Load()
	if g <= known || g == o.pending {
		return nil // what is on its way is known when it has arrived
	}
	rows, err := s.commits(ctx, q, known, maxBehind)
	if err != nil {
		return err
	}
	if len(rows) == 0 || len(rows) == maxBehind || rows[0].generation > known+1 {
		return s.reload(ctx, q, g)
	}
	var flags int64
	for _, c := range rows {
		flags |= c.flags
	}
	if flags&flagCreated != 0 {
		if err := s.learnSpaces(ctx, q); err != nil {
			return err
		}
	}
	if flags&flagQuotas != 0 {
		if err := s.learnQuotas(ctx, q); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[int64]bool{}
	for _, c := range rows {
		changed[c.sid] = true
		for pair := range slices.Chunk(c.revoked, 64) {
			s.revoked[tinycloud.Hash(pair[:32])] = tinycloud.Hash(pair[32:])
		}
	}
	for id, sp := range s.spaces {
		if changed[sp.sid] {
			delete(s.spaces, id)
		}
	}
	o.generation.Store(max(g, rows[len(rows)-1].generation))
	o.signal()
	return nil
}

// reload forgets what may have changed and reads what is always kept.
func (s *Store) reload(ctx context.Context, q querier, g int64) error {
	if err := s.learnSpaces(ctx, q); err != nil {
		return err
	}
	if err := s.learnRevoked(ctx, q); err != nil {
		return err
	}
	if err := s.learnQuotas(ctx, q); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.spaces)
	s.others.generation.Store(g)
	s.others.signal()
	return nil
}

func (o *others) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// tell records for the other processes what the transaction does.
func (t *tx) tell() error {
	g := t.next()
	if g == 0 {
		return nil
	}
	if err := t.exec("UPDATE node SET generation = ? WHERE id = 1", g); err != nil {
		return err
	}
	revoked := []byte{}
	for target, r := range t.revoked {
		revoked = append(append(revoked, target[:]...), r[:]...)
	}
	if len(t.order) == 0 || len(t.quotas) > 0 {
		c := commit{generation: g, hosts: []byte{}, revoked: revoked}
		if len(t.quotas) > 0 {
			c.flags = flagQuotas
		}
		if err := t.record(c); err != nil {
			return err
		}
		revoked = []byte{}
	}
	for _, sp := range t.order {
		if err := t.record(t.row(g, sp, revoked)); err != nil {
			return err
		}
		revoked = []byte{}
	}
	if g%pruneEvery == 0 {
		return t.exec("DELETE FROM commits WHERE generation <= ?", g-keptCommits)
	}
	return nil
}

func (t *tx) row(g int64, sp *space, revoked []byte) commit {
	c := t.dirty[sp]
	row := commit{
		generation: g, sid: sp.sid, entries: int64(len(c.Local)), remote: int64(c.Remote), wants: int64(c.Wants),
		hosts: []byte{}, revoked: revoked,
	}
	if row.entries > 0 {
		own := sp.own()
		row.branch, row.first = int64(slices.Index(sp.branches, own)), int64(own.n)-row.entries+1
	}
	for _, h := range c.Revoked {
		row.hosts = append(row.hosts, h[:]...)
	}
	if c.Created {
		row.flags |= flagCreated
	}
	if c.Joins {
		row.flags |= flagJoins
	}
	return row
}

func (t *tx) record(c commit) error {
	return t.add(db.Insert{Into: "commits", Columns: "generation sid holder branch first entries remote wants flags hosts revoked"},
		c.generation, c.sid, t.s.me[:], c.branch, c.first, c.entries, c.remote, c.wants, c.flags, c.hosts, c.revoked)
}

// next is the generation that the transaction makes, 0 when it makes none.
func (t *tx) next() int64 {
	if !t.s.db.Shared || len(t.order) == 0 && len(t.revoked) == 0 && len(t.quotas) == 0 {
		return 0
	}
	return t.generation + 1
}

// announce says that the transaction is about to commit.
func (t *tx) announce() {
	if g := t.next(); g > 0 {
		t.s.others.mu.Lock()
		t.s.others.pending = g
		t.s.others.mu.Unlock()
	}
}

// doubt says that nobody knows whether the transaction is durable. If it is, it is met as one of another
// process.
func (t *tx) doubt() {
	if g := t.next(); g > 0 {
		t.s.others.mu.Lock()
		t.s.others.pending, t.s.others.doubt[g] = 0, true
		t.s.others.mu.Unlock()
	}
}

// settled says that the memory holds what the transaction did.
func (t *tx) settled() {
	if g := t.next(); g > 0 {
		o := &t.s.others
		o.mu.Lock()
		o.pending = 0
		o.generation.Store(max(o.generation.Load(), g))
		o.mu.Unlock()
	}
}

// follow tells Committed what other processes write, until the context ends.
func (s *Store) follow(ctx context.Context) {
	if !s.db.Shared {
		return
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.others.wake:
		}
		if err := s.followOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot follow the database, trying again", "error", err)
		}
	}
}

func (s *Store) followOnce(ctx context.Context) error {
	if err := s.fresh(ctx); err != nil {
		return err
	}
	o := &s.others
	for {
		rows, err := s.commits(ctx, s.db.Read, o.told, maxBehind)
		if err != nil || len(rows) == 0 {
			return err
		}
		if rows[0].generation > o.told+1 {
			s.log.Warn("missed what other processes wrote; replication finds it", "generations", rows[0].generation-o.told-1)
		}
		for _, c := range rows {
			o.mu.Lock()
			pending, doubtful := o.pending, o.doubt[c.generation]
			o.mu.Unlock()
			if pending != 0 && c.generation >= pending {
				return nil // its outcome is not known yet
			}
			if doubtful || [16]byte(c.holder) != s.me {
				if err := s.relay(ctx, c); err != nil {
					return err
				}
			}
		}
		// Rows of one generation are told together: those that the limit cut off begin the next.
		last := rows[len(rows)-1].generation
		if len(rows) == maxBehind && rows[0].generation < last {
			last--
		}
		o.told = last
		o.mu.Lock()
		for g := range o.doubt {
			if g <= last {
				delete(o.doubt, g)
			}
		}
		o.mu.Unlock()
	}
}

// relay tells what a transaction of another process did in one Space.
func (s *Store) relay(ctx context.Context, row commit) error {
	if s.o.Committed == nil || row.sid == 0 {
		return nil
	}
	var text string
	if ok, err := s.db.Read.One(ctx, []any{&text}, "SELECT space FROM spaces WHERE sid = ?", row.sid); err != nil || !ok {
		return err
	}
	id, err := tinycloud.ParseSpaceID(text)
	if err != nil {
		return err
	}
	c := Commit{
		Space: id, Remote: int(row.remote), Wants: int(row.wants),
		Created: row.flags&flagCreated != 0, Joins: row.flags&flagJoins != 0,
	}
	for h := range slices.Chunk(row.hosts, 32) {
		c.Revoked = append(c.Revoked, HostKey(h))
	}
	r := &reader{s: s, ctx: ctx, space: id, sid: row.sid, hosts: make([]HostKey, row.branch+1), maxValue: toldValue}
	r.hosts[row.branch] = newSpace(s, row.sid, id, "").host
	for n := row.first; n < row.first+min(row.entries, maxTold); n++ {
		b, err := r.bundle(int(row.branch), uint64(n))
		if err != nil {
			return err
		}
		c.Local = append(c.Local, b)
	}
	s.others.telling.Lock()
	defer s.others.telling.Unlock()
	s.o.Committed(c)
	return nil
}
