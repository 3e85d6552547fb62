package capstore

import (
	"context"
	"sync"
	"time"
)

// flights let many callers share what is asked of a server, or told it: whoever comes while enough is under way joins those
// who go next, together. What is asked is asked after each of them came. To a server that is far away more are under way: who
// comes would else wait for one that takes long.
type flights[T any] struct {
	most, far int // at the same time, near the server and at any distance
	full      int // callers of one

	mu      sync.Mutex
	running int          // guarded by mu
	waiting []*flight[T] // guarded by mu; in their order
	way     way          // guarded by mu
}

// oneMoreFor is how long a flight takes for each that goes beside [flights.most].
const oneMoreFor = 2 * time.Millisecond

type flight[T any] struct {
	aboard []T
	turn   chan struct{} // closed when it may go
	done   chan struct{} // closed when err is there
	err    error
}

// way is how long a server takes for something when nothing holds it up: the least of some last times. It is zero before
// the first.
type way struct {
	least, next time.Duration
	n           int
}

// lastTimes is how many times a [way] remembers, at least.
const lastTimes = 64

func (w *way) took(d time.Duration) {
	if w.least == 0 || d < w.least {
		w.least = d
	}
	if w.next == 0 || d < w.next {
		w.next = d
	}
	if w.n++; w.n == lastTimes {
		*w = way{least: w.next}
	}
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
	began := time.Now()
	own.err = f(context.WithoutCancel(ctx), own.aboard)
	close(own.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running--; own.err == nil {
		s.way.took(time.Since(began))
	}
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
	if len(s.waiting) > 0 && s.running < min(s.most+int(s.way.least/oneMoreFor), max(s.most, s.far)) {
		s.running++
		close(s.waiting[0].turn)
		s.waiting = s.waiting[1:]
	}
}
