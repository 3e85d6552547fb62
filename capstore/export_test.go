package capstore

import (
	"context"
	"errors"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// HoldsValue is the query of a store for whether a value is held, given twice by Space and hash.
func HoldsValue(s *Store) string { return s.held.which }

// Waiting is the number of jobs that wait for the writer, those that take long apart.
func Waiting(s *Store) (jobs, bulk int) { return len(s.jobs), len(s.bulk) }

// BulkFrom is how many entries of peers are entered before others are let in between.
const BulkFrom = bulkFrom

// Patient is how many requests wait for a history.
func Patient(s *Store) int {
	s.patient.mu.Lock()
	defer s.patient.mu.Unlock()
	return s.patient.all
}

// Bounds of [Patient].
const (
	MaxPatient = maxPatient
	MaxOfSpace = maxOfSpace
)

// SetReview sets how many epochs a history has at most that is judged anew in one transaction, and how long a part of a
// longer one takes at least. Both have to be set before the store runs.
func SetReview(s *Store, epochs int64, slice time.Duration) {
	s.reviewAtOnce, s.reviewSlice = epochs, slice
}

// SetPatience sets how long requests wait for the end of joining.
func SetPatience(s *Store, d time.Duration) { s.patience = d }

// Remember has a store know tokens that were never checked.
func Remember(s *Store, tokens ...*Token) {
	for _, t := range tokens {
		s.tokens.Add(t.ID, t)
	}
}

// SetMostLoaded sets how many bytes loaded Spaces may take. It has to be set before the store is used.
func SetMostLoaded(s *Store, most int) { s.mostLoaded = most }

// Memory is about how many bytes loaded Spaces take, and the tokens that are remembered.
func Memory(s *Store) (loaded, remembered int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, sp := range s.spaces {
		sp.mu.RLock()
		loaded += sp.size()
		sp.mu.RUnlock()
	}
	return loaded, s.tokens.Size()
}

// Bounds of delegations in memory.
const (
	MaxSpaceFacts       = maxSpaceFacts
	MaxSignerFacts      = maxSignerFacts
	RememberedTokenSize = rememberedTokenBytes
)

// SetAdoptAtOnce sets how many delegations a transaction adopts. It has to be set before the store runs.
func SetAdoptAtOnce(s *Store, n int) { s.adoptAtOnce = n }

// Looks is how many delegations are looked at to check one, and what is found.
func Looks(s *Store, t *Token) (int, error) {
	c := s.chain(s.db.Read)
	err := c.delegated(context.Background(), t, s.o.Now())
	return c.looked(), err
}

// Bounds of what may be looked at.
const (
	MaxLooks  = judge.MaxLooks
	MaxProofs = maxProofs
)

// SetMostReplays sets how many used tokens each of 16 parts remembers.
func SetMostReplays(s *Store, most int) { s.seen.most = most }

// Replays is how many used tokens are remembered, and are still to be saved.
func Replays(s *Store) (remembered, unsaved int) {
	for i := range s.seen.shards {
		remembered += len(s.seen.shards[i].until)
		unsaved += len(s.seen.shards[i].unsaved)
	}
	return remembered, unsaved
}

// SetDoubts has a store ask again for what it knows, and fail when that is not so.
func SetDoubts(s *Store, on bool) { s.doubts = on }

// SetFollow sets how often a store looks for what other processes wrote. It has to be set before the store runs.
func SetFollow(s *Store, every time.Duration) { s.followEvery = every }

// SetDeaf has a store not be told of what other processes write. It has to be set before the store runs.
func SetDeaf(s *Store) { s.deaf = true }

// Trips is how many times a store waited for an answer of its database.
func Trips(s *Store) int64 { return s.db.Trips() }

// BundleOf reads one entry with all it names, as other processes are told of it.
func BundleOf(ctx context.Context, s *Store, id tinycloud.SpaceID, e hostlog.Entry, maxValue int) (b hostlog.Bundle, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return b, err
	}
	rows, err := s.logRows(ctx, sid)
	if err != nil {
		return b, err
	}
	branch, _, err := s.finder(sid, rows).find(ctx, hostlog.Tip{Host: e.Host, N: e.N, Digest: e.Digest()})
	if err != nil {
		return b, err
	}
	r := &reader{s: s, space: id, sid: sid, hosts: make([]hostlog.Key, len(rows)), maxValue: maxValue}
	r.hosts[branch] = e.Host
	return r.bundle(ctx, branch, e.N)
}

// PageBytes is how many bytes of bundles are read together at most.
const PageBytes = pageBytes

// Turned is what a store counted of its turns at a server's database.
type Turned struct {
	All, Met, Loads, Whole, Wrong int64
	Held, Busy                    time.Duration
}

// Turns is what a store has counted.
func Turns(s *Store) Turned {
	n := &s.turns
	return Turned{n.all.Load(), n.met.Load(), n.loads.Load(), n.whole.Load(), n.wrong.Load(), time.Duration(n.held.Load()), time.Duration(n.busy.Load())}
}

// FollowNow has a store that runs look for what other processes wrote.
func FollowNow(s *Store) { s.others.heard.Give() }

// RememberedNodes is how many epochs of a loaded Space are in memory.
func RememberedNodes(s *Store, id tinycloud.SpaceID) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sp := s.spaces[id]; sp != nil {
		return sp.nodes.Len()
	}
	return 0
}

// SupposeAgain has a store suppose at once what requests look at, whatever was wrong before. No request may be under way.
func SupposeAgain(s *Store) { s.guess.asking, s.guess.penalty = 0, leastAsking; clear(s.guess.absent) }

// Lingering is a writer to whom a job came, and who is about to ask for the lock.
type Lingering struct {
	Whole bool            // it sends whole
	Way   time.Duration   // how long a commit takes
	Met   bool            // the last time it met the commit of another process
	Usual int             // jobs that were there then
	Held  time.Duration   // for how long it had the lock
	Wait  int             // jobs that wait already
	Come  []time.Duration // others that come, each so long after the one before
}

// Run returns with how many jobs it asks, how many joined a transaction that is sent whole, and after how long.
func (l Lingering) Run() (taken, joined int, waited time.Duration) {
	s := &Store{jobs: make(chan *job, maxQueue), db: &db.DB{Dialect: db.Postgres()}, guess: newGuess()}
	for range l.Wait {
		s.jobs <- newJob(nil)
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for _, after := range l.Come {
			time.Sleep(after)
			s.jobs <- newJob(nil)
		}
	})
	w, began := &writer{s: s, guess: s.guess, way: way{least: l.Way}, crowded: l.Met, usual: l.Usual, held: l.Held}, time.Now()
	var join func([]*job) bool
	if l.Whole {
		join = func(jobs []*job) bool { joined += len(jobs); return true }
	}
	taken = len(w.linger([]*job{newJob(nil)}, join))
	return taken, joined, time.Since(began)
}

// Together has tokens of reads remembered and the first columns of rows read in one flight. It returns what came of each.
func Together(ctx context.Context, s *Store, toks []*Token, query string, args ...any) (refused []error, found []any, err error) {
	var all []*errand
	for _, t := range toks {
		all = append(all, &errand{token: t.ID[:], until: t.Expires.Unix()})
	}
	for _, a := range args {
		all = append(all, &errand{columns: 1, query: db.Query{Text: query, Args: []any{a}}})
	}
	err = s.runAll(ctx, all)
	for i, e := range all {
		if i < len(toks) {
			refused = append(refused, e.err)
			continue
		}
		var x any
		if err = errors.Join(err, e.err); e.row != nil {
			x = e.row[0]
		}
		found = append(found, x)
	}
	return refused, found, err
}
