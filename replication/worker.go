package replication

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// worker is a loop that has a goroutine only while there is something to do: most Spaces of a node are idle.
// All of its methods are called by one goroutine.
type worker struct {
	due  wait.Signal // there is something to do
	work func(context.Context)
	busy bool
	done chan struct{} // capacity 1: the worker is never held up; work returned
}

func newWorker(due wait.Signal, work func(context.Context)) *worker {
	return &worker{due: due, work: work, done: make(chan struct{}, 1)}
}

// wake is due, or nil while it works: a signal then waits for the end.
func (w *worker) wake() <-chan struct{} {
	if w.busy {
		return nil
	}
	return w.due
}

// start has it do all that waits.
func (w *worker) start(ctx context.Context, g *errgroup.Group) {
	w.busy = true
	g.Go(func() error {
		w.work(ctx)
		w.done <- struct{}{}
		return nil
	})
}

func (w *worker) ended() { w.busy = false }
