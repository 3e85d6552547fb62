package capstore

import (
	"context"
	"sync"
)

// flights let many callers share what is asked of a server, or told it: whoever comes while enough is under way joins those
// who go next, together. What is asked is asked after each of them came.
type flights[T any] struct {
	most int // at the same time
	full int // callers of one

	mu      sync.Mutex
	running int          // guarded by mu
	waiting []*flight[T] // guarded by mu; in their order
}

type flight[T any] struct {
	aboard []T
	turn   chan struct{} // closed when it may go
	done   chan struct{} // closed when err is there
	err    error
}

// fly has f called with what the caller and others bring, and returns what f did, once it has returned. Whoever is the first
// of a flight calls it, with a context that does not end with his own.
func (s *flights[T]) fly(ctx context.Context, mine T, f func(context.Context, []T) error) error {
	own, first := s.board(mine)
	if !first {
		select {
		case <-own.done:
			return own.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	<-own.turn // it comes: each flight has a bound in time
	own.err = f(context.WithoutCancel(ctx), own.aboard)
	close(own.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.start()
	return own.err
}

// board finds a flight for a caller; first says that nobody else is aboard.
func (s *flights[T]) board(mine T) (*flight[T], bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.waiting); n > 0 {
		if last := s.waiting[n-1]; len(last.aboard) < s.full {
			last.aboard = append(last.aboard, mine)
			return last, false
		}
	}
	x := &flight[T]{aboard: []T{mine}, turn: make(chan struct{}), done: make(chan struct{})}
	s.waiting = append(s.waiting, x)
	s.start()
	return x, true
}

// start lets the next flight go if it may. mu is held.
func (s *flights[T]) start() {
	if len(s.waiting) > 0 && s.running < s.most {
		s.running++
		close(s.waiting[0].turn)
		s.waiting = s.waiting[1:]
	}
}
