// Package wait is how goroutines here tell each other that there is something to do, and how they let time pass.
package wait

import (
	"context"
	"time"
)

// Signal tells one goroutine, which receives from it, that there is something to do. Signals that come before it looks
// are one.
type Signal chan struct{}

// NewSignal returns a signal that nobody has given yet.
func NewSignal() Signal { return make(Signal, 1) }

// Give never blocks. It is safe for concurrent use.
func (s Signal) Give() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Within waits until the signal is given, for a time at most. It reports false when the context ends first or has ended.
func (s Signal) Within(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s:
	case <-t.C:
	}
	return ctx.Err() == nil
}

// For lets a time pass. It reports false, at once, when the context ends first or has ended.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
