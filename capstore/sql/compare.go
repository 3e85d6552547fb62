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
)

var _ service.Comparer = (*Service)(nil)

// comparing is what hosts were found to have.
type comparing struct {
	turn chan struct{} // one database is hashed at a time

	mu      sync.Mutex
	of      map[name]compared
	remade  map[tinycloud.SpaceID]time.Time
	differs map[tinycloud.SpaceID]int // databases with differing hosts
}

// compared is what a database hashed to at a state.
type compared struct {
	at      state
	content tinycloud.Hash
	differ  map[string]bool // hosts that have other content at this state; nil: none
	remade  bool            // it was made anew for it, at this state
	stale   bool            // it was, and was not hashed since
}

func newComparing() *comparing {
	return &comparing{turn: make(chan struct{}, 1), of: map[name]compared{}, remade: map[tinycloud.SpaceID]time.Time{}, differs: map[tinycloud.SpaceID]int{}}
}

// Sums implements [service.Comparer]: of the databases that are materialised here. Those that have not changed since are not
// hashed again.
func (s *Service) Sums(ctx context.Context, store service.Store, space tinycloud.SpaceID) (sums []service.Sum, err error) {
	list, err := store.Subjects(ctx, space, request.Service, maxCompared)
	if err != nil {
		return nil, err
	}
	hashed := 0
	for _, x := range list {
		of := name{space, x.Name}
		if x.Pending > 0 || x.Events == 0 || !s.materialised(of) {
			continue
		}
		b, err := store.ServiceState(ctx, space, request.Service, x.Name)
		if errors.Is(err, tinycloud.ErrUnavailable) {
			continue // pending by now
		}
		if err != nil {
			return nil, err
		}
		now, err := decodeState(b)
		if err != nil {
			return nil, err
		}
		known, ok := s.comparing.get(of)
		if !ok || known.at != now || known.stale {
			if hashed++; hashed > hashedAtOnce {
				continue
			}
			if known, ok, err = s.sum(ctx, store, of); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
		}
		sums = append(sums, service.Sum{Subject: x.Name, State: stateSum(known.at), Content: known.content})
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
	s.comparing.mu.Lock()
	defer s.comparing.mu.Unlock()
	return s.comparing.differs[space]
}

// DifferingAll counts them over all Spaces.
func (s *Service) DifferingAll() (n int) {
	s.comparing.mu.Lock()
	defer s.comparing.mu.Unlock()
	for _, x := range s.comparing.differs {
		n += x
	}
	return n
}

// hosts are those that have other content of a database.
func (c *comparing) hosts(of name) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.of[of].differ))
}

func (c *comparing) get(of name) (compared, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.of[of]
	return x, ok
}

// set notes what a database hashes to. What was found to differ is known for the same state alone.
func (c *comparing) set(of name, x compared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was := c.of[of]; was.at == x.at {
		x.remade = was.remade
	}
	c.put(of, x)
	for other := range c.of {
		if len(c.of) <= maxCompared {
			break
		}
		if other != of {
			c.put(other, compared{})
			delete(c.of, other)
		}
	}
}

// put replaces what is known, and counts it. The lock is held.
func (c *comparing) put(of name, x compared) {
	was := len(c.of[of].differ) > 0
	c.of[of] = x
	is := len(x.differ) > 0
	if was == is {
		return
	}
	if is {
		c.differs[of.space]++
	} else if c.differs[of.space]--; c.differs[of.space] == 0 {
		delete(c.differs, of.space)
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
	differ := map[string]bool{}
	for h := range x.differ {
		if h != host {
			differ[h] = true
		}
	}
	if x.content != theirs.Content {
		differs = !x.differ[host]
		differ[host] = true
	}
	x.differ = differ
	if since := now.Sub(c.remade[of.space]); differs && !x.remade && (since >= remadeEvery || since < 0) {
		x.remade, remake = true, true
		c.remade[of.space] = now
	}
	x.stale = x.stale || remake
	c.put(of, x)
	return differs, remake
}
