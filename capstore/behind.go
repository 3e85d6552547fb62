package capstore

import (
	"context"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Another host may have entries of this node's own log that are not here: a backup was restored (docs/replication.md,
// "Restored hosts"). While they are fetched, nothing is signed, so that the log forks no more than it has to.

const (
	awaitOwn   = 30 * time.Second // that one peer's claim can keep this node from writing
	comparedIn = 2 * time.Second  // that a process's first entry waits for the tips of a peer that has just come
)

// unsigned are the Spaces that this process has made no entry of yet: it can't know whether the database is an
// old copy until a peer tells.
type unsigned struct {
	mu        sync.Mutex
	signed    map[tinycloud.SpaceID]struct{}    // guarded by mu; the others are unsigned
	comparing map[tinycloud.SpaceID]*comparison // guarded by mu; unsigned ones
}

// comparison is of tips, with peers that came before this process made an entry.
type comparison struct {
	peers int
	over  chan struct{} // closed when peers is 0
}

// Comparing has this process's first entry of a Space wait, for two seconds at most, until the returned function
// is called: a host has come, and its tips will tell whether it has later entries of this node's own. A process
// that made an entry before goes on: if its log forks, it has.
func (s *Store) Comparing(id tinycloud.SpaceID) (compared func()) {
	u := &s.unsigned
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.signed[id]; ok {
		return func() {}
	}
	c := u.comparing[id]
	if c == nil {
		c = &comparison{over: make(chan struct{})}
		u.comparing[id] = c
	}
	c.peers++
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if c.peers--; c.peers == 0 {
			delete(u.comparing, id)
			close(c.over)
		}
	})
}

// compared waits for the comparisons that the first entries of some Spaces have to wait for.
func (s *Store) compared(ctx context.Context, ids []tinycloud.SpaceID) {
	end := context.CancelFunc(nil)
	for _, id := range ids {
		s.unsigned.mu.Lock()
		c := s.unsigned.comparing[id]
		s.unsigned.mu.Unlock()
		if c == nil {
			continue
		}
		if end == nil {
			ctx, end = context.WithTimeout(ctx, comparedIn)
			defer end()
		}
		select {
		case <-c.over:
		case <-ctx.Done():
			return
		}
	}
}

// sign notes that this process made an entry of a Space.
func (u *unsigned) sign(id tinycloud.SpaceID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.signed[id] = struct{}{}
}

// AwaitOwn keeps this node from making entries of a Space until the returned function is called, or for half a
// minute: a peer has later entries of this node's own, and they are being fetched.
func (s *Store) AwaitOwn(id tinycloud.SpaceID) (arrived func()) {
	until := time.Now().Add(awaitOwn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited[id] = until
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.awaited[id].Equal(until) {
			delete(s.awaited, id)
		}
	}
}

func (s *Store) awaitsOwn(id tinycloud.SpaceID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	until, ok := s.awaited[id]
	return ok && time.Now().Before(until)
}
