package capstore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// Several processes on one server's database are one host: they write one log. Whoever writes locks the row of
// the table node, before all else or, on PostgreSQL where nothing has to be asked, at the end: so what he did is
// behind all that was committed before. That row counts the generations: each transaction that changes what
// processes keep in memory makes a new one, and tells in the table commits what it did. A process that finds a
// generation it does not know reads what it missed before it goes on: the writer under the lock, readers before
// they judge.

const (
	followEvery = 200 * time.Millisecond // between looks for what others wrote
	hearAgain   = time.Second            // until a connection that told of it is opened again
	keptCommits = 4096                   // generations that are told
	pruneEvery  = 256                    // generations
	maxBehind   = 1024                   // rows that are read one by one; beyond, the memory is dropped
	maxTold     = 256                    // own entries of one commit that are told whole
	maxUntold   = 4096                   // own generations kept until they are told; others are read again
	meetAhead   = 64                     // generations in which others write again, if they do
	maxAsking   = 4                      // questions for the generation at the same time
	farAsking   = 8                      // the same where the server is far away
	toldValue   = 64 << 10               // bytes of a value that comes with its entry
)

// others is what a process knows of those it shares the database with.
type others struct {
	met        atomic.Int64 // the last generation of another process that was met
	generation atomic.Int64 // that the memory is up to; rises only
	wake       wait.Signal  // the memory is up to a generation that nobody was told of
	heard      wait.Signal  // another process has written

	mu      sync.Mutex // held while the memory is brought up to date
	pending int64      // guarded by mu: the generation whose COMMIT is on its way, or the least that it may have; 0 for none
	afloat  bool       // guarded by mu: the latter

	told   int64                                // generation up to which Committed was told; used by the follower alone
	cursor Cursor                               // of the last change that was told of; likewise
	names  *lru.Cache[int64, tinycloud.SpaceID] // of Spaces by their numbers; likewise
	own    map[int64][]Commit                   // guarded by mu: own commits that are to be told in their turn
	taken  map[*space]struct{}                  // guarded by mu: Spaces that the writer may be changing, see [Store.take]
}

const rememberedNames = 1 << 14

func newOthers() others {
	names, _ := lru.New[int64, tinycloud.SpaceID](rememberedNames)
	return others{names: names, wake: wait.NewSignal(), heard: wait.NewSignal(), own: map[int64][]Commit{}, taken: map[*space]struct{}{}}
}

const readGeneration = "SELECT generation FROM node WHERE id = 1"

// fresh makes sure that the memory holds what any process made durable before the call.
func (s *Store) fresh(ctx context.Context) error {
	if !s.db.Shared {
		return nil
	}
	return s.asking.fly(ctx, struct{}{}, func(ctx context.Context, _ []struct{}) error {
		var g int64
		if _, err := s.db.Read.One(ctx, []any{&g}, readGeneration); err != nil {
			return err
		}
		return s.upTo(ctx, g)
	})
}

// upTo makes sure that the memory holds what was durable at a generation.
func (s *Store) upTo(ctx context.Context, g int64) error {
	if g <= s.others.generation.Load() {
		return nil
	}
	return s.catchUp(ctx, s.db.Read, g)
}

// freshWith is [Store.fresh], and says in how many places an event stands in a Space, in one round trip.
func (s *Store) freshWith(ctx context.Context, sid int64, event tinycloud.Hash) (places int, err error) {
	var g int64
	_, err = s.db.Read.One(ctx, []any{&g, &places}, "SELECT generation, (SELECT count(*) FROM events e WHERE e.sid = ? AND e.id = ?) FROM node WHERE id = 1", sid, event[:])
	if err == nil {
		err = s.upTo(ctx, g)
	}
	return places, err
}

// lock takes the lock of the one who writes, and reads what jobs are about to ask.
func (t *tx) lock(jobs []*job) error {
	found := false
	var ask []db.Query
	if t.s.db.Alone != "" {
		ask = append(ask, db.Query{Text: t.s.db.Alone})
	}
	ask = append(ask, db.Query{Text: readGeneration + t.s.db.ForUpdate, Row: func(scan db.Scan) error {
		found = true
		return scan(&t.generation)
	}})
	ask = append(ask, t.reserve(len(jobs)))
	if known := t.s.others.generation.Load(); known-t.s.others.met.Load() < meetAhead && t.s.others.met.Load() > 0 {
		t.met = []commit{}
		ask = append(ask, askCommits(&t.met, known, maxBehind))
	}
	for _, j := range jobs {
		if j.ahead == nil {
			continue
		}
		for _, l := range j.ahead(t.s) {
			if len(ask) < maxAhead && t.known.at(l.Look, l.Args) == nil {
				ask = append(ask, t.ahead(l.Look, l.Args))
			}
		}
	}
	if err := t.ask(ask); err != nil {
		return err
	}
	if !found {
		return unavailable(errNoNode)
	}
	t.turn.begin = time.Now()
	return nil
}

// meet learns what others wrote before the transaction.
func (t *tx) meet() error {
	if t.generation <= t.s.others.generation.Load() {
		return nil
	}
	t.turn.met = true
	if t.met == nil || len(t.met) >= maxBehind {
		return t.s.catchUp(t.ctx, t, t.generation)
	}
	return t.s.catchUpBy(t.ctx, t, t.generation, func(known int64) ([]commit, error) {
		return slices.DeleteFunc(t.met, func(c commit) bool { return c.generation <= known }), nil
	})
}

var errNoNode = errors.New("the row of table node is gone")

// flags of a commit.
const (
	flagCreated = 1 << iota
	flagJoins
	flagQuotas
	flagBeside
	flagPairs
	flagOpened
)

// commit is a row of the table commits.
type commit struct {
	generation, sid        int64
	holder                 []byte
	branch, first, entries int64
	remote, wants, flags   int64
	last                   Cursor
	hosts, revoked         []byte
	advance                []byte // nil: none
}

func (s *Store) commits(ctx context.Context, q querier, after int64, limit int) (rows []commit, err error) {
	a := askCommits(&rows, after, limit)
	err = q.Each(ctx, a.Row, a.Text, a.Args...)
	return rows, err
}

// askCommits asks for the rows of generations.
func askCommits(rows *[]commit, after int64, limit int) db.Query {
	return db.Query{Text: `SELECT generation, sid, holder, branch, first, entries, remote, wants, flags, c_epoch, c_late, c_index, hosts, revoked, advance FROM commits
		WHERE generation > ? ORDER BY generation, sid LIMIT ?`, Args: []any{after, limit}, Row: func(scan db.Scan) error {
		var c commit
		err := scan(&c.generation, &c.sid, &c.holder, &c.branch, &c.first, &c.entries, &c.remote, &c.wants, &c.flags,
			&c.last.Epoch, &c.last.Late, &c.last.Index, &c.hosts, &c.revoked, &c.advance)
		*rows = append(*rows, c)
		return err
	}}
}

// catchUp brings the memory up to a generation of the database.
func (s *Store) catchUp(ctx context.Context, q querier, g int64) error {
	return s.catchUpBy(ctx, q, g, func(known int64) ([]commit, error) { return s.commits(ctx, q, known, maxBehind) })
}

// has reports whether the memory is up to a generation, or will be when what is on its way has arrived. The caller holds mu.
func (o *others) has(g int64) bool {
	return g <= o.generation.Load() || g == o.pending && !o.afloat
}

// catchUpBy is catchUp with the rows of the generations after one.
func (s *Store) catchUpBy(ctx context.Context, q querier, g int64, after func(known int64) ([]commit, error)) error {
	o := &s.others
	o.mu.Lock()
	known, done := o.generation.Load(), o.has(g)
	o.mu.Unlock()
	if done {
		return nil
	}
	rows, err := after(known) // who writes doesn't wait for the answer
	if err != nil {
		return err
	}
	whole := len(rows) > 0 && len(rows) < maxBehind && rows[0].generation <= known+1
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.has(g) {
		return nil
	}
	known = o.generation.Load()
	rows = slices.DeleteFunc(rows, func(c commit) bool { return c.generation <= known })
	others := rows
	if o.afloat { // what it did is known here, and durable
		others = slices.DeleteFunc(slices.Clone(rows), func(c commit) bool { return c.generation >= o.pending && bytes.Equal(c.holder, s.me[:]) })
	}
	if len(others) > 0 {
		o.met.Store(g)
	}
	if !whole || len(rows) == 0 {
		return s.reload(ctx, q, g)
	}
	var flags int64
	for _, c := range others {
		flags |= c.flags
	}
	if flags&(flagCreated|flagJoins|flagOpened) != 0 {
		if err := s.learnWaiting(ctx, q); err != nil {
			return err
		}
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
	if flags&flagPairs != 0 {
		if err := s.learnPaired(ctx, q); err != nil {
			return err
		}
	}
	stale := s.followed(others)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtStandings(others)
	for _, c := range others {
		for pair := range slices.Chunk(c.revoked, 64) {
			s.revoked[tinycloud.Hash(pair[:32])] = tinycloud.Hash(pair[32:])
		}
	}
	for _, sp := range stale {
		s.unloads(sp.id)
	}
	o.generation.Store(max(g, rows[len(rows)-1].generation))
	o.wake.Give()
	return nil
}

// followed has the loaded Spaces follow what rows tell of them, and returns those that are to be loaded again. The caller holds
// others.mu.
func (s *Store) followed(rows []commit) (stale []*space) {
	of := map[int64][]commit{}
	for _, c := range rows {
		of[c.sid] = append(of[c.sid], c)
	}
	var loaded []*space
	s.mu.RLock()
	for _, sp := range s.spaces {
		if of[sp.sid] != nil {
			loaded = append(loaded, sp)
		}
	}
	s.mu.RUnlock()
	for _, sp := range loaded {
		if _, taken := s.others.taken[sp]; taken {
			stale = append(stale, sp)
			continue
		}
		for _, c := range of[sp.sid] {
			if !sp.follow(c) {
				stale = append(stale, sp)
				break
			}
		}
	}
	return stale
}

// reload forgets what may have changed and reads what is always kept.
func (s *Store) reload(ctx context.Context, q querier, g int64) error {
	if err := s.learnWaiting(ctx, q); err != nil {
		return err
	}
	if err := s.learnSpaces(ctx, q); err != nil {
		return err
	}
	if err := s.learnRemoved(ctx, q); err != nil {
		return err
	}
	if err := s.learnRevoked(ctx, q); err != nil {
		return err
	}
	if err := s.learnQuotas(ctx, q); err != nil {
		return err
	}
	if err := s.learnPaired(ctx, q); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.spaces)
	s.loadedBytes = 0
	s.others.generation.Store(g)
	s.others.wake.Give()
	return nil
}

// tell records for the other processes what the transaction does.
func (t *tx) tell() error {
	g := t.next()
	if g == 0 {
		return nil
	}
	if t.supposed != nil {
		t.conn.Locked()
	} else if err := t.saveCounts(g); err != nil {
		return err
	}
	revoked := []byte{}
	for target, r := range t.revoked {
		revoked = append(append(revoked, target[:]...), r[:]...)
	}
	if len(t.order) == 0 || len(t.quotas) > 0 || t.beside || len(t.pairs) > 0 {
		c := commit{generation: g, hosts: []byte{}, revoked: revoked}
		if len(t.quotas) > 0 {
			c.flags |= flagQuotas
		}
		if t.beside {
			c.flags |= flagBeside
		}
		if len(t.pairs) > 0 {
			c.flags |= flagPairs
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
	if notify := t.s.db.Notify(); notify != "" {
		if err := t.exec(notify, t.s.name()); err != nil {
			return err
		}
	}
	if g = t.generation + 1; g >= t.s.pruned+pruneEvery {
		t.s.pruned = g
		return t.exec("DELETE FROM commits WHERE generation <= ?", g-keptCommits)
	}
	return nil
}

func (t *tx) row(g int64, sp *space, revoked []byte) commit {
	c := t.dirty[sp]
	row := commit{
		generation: g, sid: sp.sid, entries: int64(len(c.Local)), remote: int64(c.Remote), wants: int64(c.Wants),
		last: c.LastWrite, hosts: []byte{}, revoked: revoked, advance: t.advance(sp, c),
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
	if c.Opened {
		row.flags |= flagOpened
	}
	return row
}

func (t *tx) record(c commit) error {
	return t.add(db.Insert{Into: "commits", Columns: "generation sid holder branch first entries remote wants flags c_epoch c_late c_index hosts revoked advance"},
		c.generation, c.sid, t.s.me[:], c.branch, c.first, c.entries, c.remote, c.wants, c.flags,
		c.last.Epoch, c.last.Late, int64(c.last.Index), c.hosts, c.revoked, c.advance)
}

// next is the generation that the transaction makes, 0 when it makes none.
func (t *tx) next() int64 {
	if !t.s.db.Shared || len(t.order) == 0 && len(t.revoked) == 0 && len(t.quotas) == 0 && !t.beside && len(t.pairs) == 0 {
		return 0
	}
	if t.supposed != nil {
		return db.OwnGeneration
	}
	return t.generation + 1
}

// pend says that the transaction is about to commit.
func (t *tx) pend() { t.pending(t.next()) }

// doubt says that nobody knows whether the transaction is durable. If it is, it is met as one of another
// process.
func (t *tx) doubt() { t.pending(0) }

func (t *tx) pending(g int64) {
	t.s.others.mu.Lock()
	defer t.s.others.mu.Unlock()
	t.s.others.pending = g
}

// settle says that the memory holds what the transaction did, and tells of it: at once, or when its turn comes
// among the transactions of others, so that all processes tell in one order.
func (t *tx) settle(commits []Commit) {
	s, g := t.s, t.next()
	if g == 0 {
		t.noteWaiting()
		if s.o.Committed != nil {
			for _, c := range commits {
				s.o.Committed(c)
			}
		}
		return
	}
	o := &s.others
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending, o.afloat = 0, false
	t.noteWaiting()
	o.generation.Store(max(o.generation.Load(), g))
	if len(o.own) < maxUntold {
		o.own[g] = commits
	}
	o.wake.Give()
}
