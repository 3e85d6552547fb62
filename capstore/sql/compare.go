package sql

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Hosts that have run the same writes tell each other the hash of what came of them. One that differs shows that a host's
// files, or its SQLite, are not what they should be: databases are made anew from their writes then. A host that lies about it
// has one made anew an hour in each Space, beside the requests. Source: docs/decisions/sql.md, "Hosts compare content".

const (
	// hashedAtOnce is how many databases of a Space are hashed at most when hosts compare; others are the next time.
	hashedAtOnce = 64
	// maxCompared is of how many databases it is remembered what they hash to.
	maxCompared = 8192
	// remadeEvery is the time between two databases of a Space that are made anew because another host has other content.
	remadeEvery = time.Hour
	// differsFor is how long a difference is told without being found again: the host may be gone, or removed.
	differsFor = 3 * time.Hour
)

var _ service.Comparer = (*Service)(nil)

// comparing is what hosts were found to have.
type comparing struct {
	turn chan struct{} // one database is hashed at a time

	mu      sync.Mutex
	of      map[name]compared               // guarded by mu
	remade  map[tinycloud.SpaceID]time.Time // guarded by mu; when a database of it was, last
	differs map[name]map[string]time.Time   // guarded by mu; hosts that had other content of the state in of, and when they said so last
}

// compared is what a database hashed to at a state.
type compared struct {
	at      state
	content tinycloud.Hash
	remade  bool // it was made anew because another host has other content, at this state
	stale   bool // it was, and was not hashed since
}

func newComparing() *comparing {
	return &comparing{turn: make(chan struct{}, 1), of: map[name]compared{}, remade: map[tinycloud.SpaceID]time.Time{}, differs: map[name]map[string]time.Time{}}
}

// Sums implements [service.Comparer]: of the databases that are materialised here. Those that have not changed since are not
// hashed again.
func (s *Service) Sums(ctx context.Context, store service.Store, space tinycloud.SpaceID) (sums []service.Sum, err error) {
	states := map[string]state{}
	var bad error
	err = store.States(ctx, space, request.Service, func(path string, b []byte) {
		now, err := decodeState(b)
		if bad = errors.Join(bad, err); now.n > 0 && s.materialised(name{space, path}) {
			states[path] = now
		}
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, err
	}
	hashed := 0
	for _, path := range slices.Sorted(maps.Keys(states)) {
		of, now := name{space, path}, states[path]
		known, ok := s.comparing.get(of)
		if !ok || known.at != now || known.stale {
			if hashed == hashedAtOnce {
				continue
			}
			if known, ok, err = s.sum(ctx, store, of); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
			hashed++
		}
		sums = append(sums, service.Sum{Subject: path, State: stateSum(known.at), Content: known.content})
	}
	return sums, nil
}

func stateSum(at state) tinycloud.Hash { return tinycloud.Sum(at.encode()) }

func (s *Service) materialised(of name) bool {
	s.mu.Lock()
	root, closed := s.root, s.closed
	if root == "" {
		root = s.o.Dir
	}
	s.mu.Unlock()
	if closed || root == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(folder(root, of), "base.db"))
	return err == nil
}

// sum hashes a database where the history is, beside its requests. ok is false if that can't be done now.
func (s *Service) sum(ctx context.Context, store service.Store, of name) (c compared, ok bool, err error) {
	select {
	case s.comparing.turn <- struct{}{}:
		defer func() { <-s.comparing.turn }()
	case <-ctx.Done():
		return c, false, ctx.Err()
	}
	d, err := s.acquire(of)
	if err != nil {
		return c, false, err
	}
	defer s.unuse(d)
	if err := d.enter(ctx); err != nil {
		return c, false, err
	}
	leave := sync.OnceFunc(d.leave)
	defer leave()
	if err := d.follow(ctx, store); errors.Is(err, tinycloud.ErrUnavailable) {
		return c, false, nil
	} else if err != nil {
		return c, false, err
	}
	if d.aside.Load() != nil { // the files are not where the history is
		return c, false, nil
	}
	d.files.RLock() // before another has the turn
	defer d.files.RUnlock()
	c.at = d.at.at
	c.content, err = d.db.View().Hash(ctx, leave)
	switch {
	case errors.Is(err, engine.ErrMoved):
		return c, false, nil
	case err != nil:
		return c, false, err
	}
	s.comparing.set(of, c)
	return c, true, nil
}

// Sum implements [service.Comparer].
func (s *Service) Sum(space tinycloud.SpaceID, subject string) (service.Sum, bool) {
	c, ok := s.comparing.get(name{space, subject})
	return service.Sum{Subject: subject, State: stateSum(c.at), Content: c.content}, ok && !c.stale
}

// Compared implements [service.Comparer].
func (s *Service) Compared(ctx context.Context, store service.Store, space tinycloud.SpaceID, host string, theirs service.Sum) error {
	of := name{space, theirs.Subject}
	differs, remake := s.comparing.note(of, host, theirs, store.Now())
	if !differs {
		return nil
	}
	s.o.Log.WarnContext(ctx, "another host has other content of a database", "space", space, "database", theirs.Subject, "host", host, "remade", remake)
	if !remake {
		return nil
	}
	d, err := s.acquire(of)
	if err != nil {
		return err
	}
	defer s.unuse(d)
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.leave()
	if err := d.follow(ctx, store); err != nil {
		return err
	}
	if d.aside.Load() == nil && !d.replayAside(store, true) {
		return d.anew(true) // nobody replays aside: who asks next does
	}
	return nil
}

// Differing counts the databases of a Space of which another host has other content, as far as that is known.
func (s *Service) Differing(space tinycloud.SpaceID) int {
	return s.comparing.count(func(of name) bool { return of.space == space })
}

// DifferingAll counts them over all Spaces.
func (s *Service) DifferingAll() int { return s.comparing.count(func(name) bool { return true }) }

func (c *comparing) count(counts func(name) bool) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for of := range c.differs {
		if counts(of) && len(c.now(of)) > 0 {
			n++
		}
	}
	return n
}

// hosts are those that have other content of a database.
func (c *comparing) hosts(of name) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.now(of)))
}

// now are the hosts that said not long ago that they have other content. The lock is held.
func (c *comparing) now(of name) map[string]time.Time {
	maps.DeleteFunc(c.differs[of], func(_ string, at time.Time) bool { return time.Since(at) > differsFor })
	if len(c.differs[of]) == 0 {
		delete(c.differs, of)
	}
	return c.differs[of]
}

func (c *comparing) get(of name) (compared, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.of[of]
	return x, ok
}

// set notes what a database hashes to. What differed is to be found again: the content may be another now.
func (c *comparing) set(of name, x compared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was := c.of[of]; was.at == x.at {
		x.remade = was.remade
	}
	c.of[of] = x
	delete(c.differs, of)
	for other := range c.of {
		if len(c.of) <= maxCompared {
			break
		}
		if other != of {
			delete(c.of, other)
			delete(c.differs, other)
		}
	}
}

// note notes what another host has. differs says that it is other content of the same state, which was not known; remake that
// the database is to be made anew.
func (c *comparing) note(of name, host string, theirs service.Sum, now time.Time) (differs, remake bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.of[of]
	if !ok || x.stale || stateSum(x.at) != theirs.State {
		return false, false
	}
	if x.content == theirs.Content {
		delete(c.differs[of], host)
		return false, false
	}
	_, known := c.now(of)[host]
	if c.differs[of] == nil {
		c.differs[of] = map[string]time.Time{}
	}
	c.differs[of][host] = time.Now()
	if since := now.Sub(c.remade[of.space]); !known && !x.remade && (since >= remadeEvery || since < 0) {
		x.remade, x.stale, remake = true, true, true
		c.remade[of.space] = now
		c.of[of] = x
	}
	return !known, remake
}
