package capstore

import (
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Another host may have entries of this node's own log that are not here: a backup was restored (design, "Host
// log"). While they are fetched, nothing is signed, so that the log forks no more than it has to.

// awaitOwn bounds how long one peer's claim can keep this node from writing.
const awaitOwn = 30 * time.Second

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
