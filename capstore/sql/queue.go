package sql

import (
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// writing is a request that may write, from when it waits until it is answered. Who carries it out has it for himself.
type writing struct {
	left  func() error                                        // why its client has gone; nil if he is there
	run   func(*engine.DB, *engine.Op) (engine.Result, error) // [engine.DB.Try] for as long as he is there
	token *token.Token
	a     authority
	q     *request.Request

	races    int // how often it was tried in vain, because operations had come
	outdated int // likewise, because it was by other rules than the hosts know
	ended    chan struct{}

	// What came of it; read when ended is closed.
	out  written
	done bool  // it was executed, and made nothing
	err  error // a refusal, or says that the machine failed

	// What belongs to the group that it is tried in.
	op    engine.Op
	parts [][]byte
	res   engine.Result
	epoch tinycloud.Hash
	place *place // where it came to stand
	next  cursor // behind it
	meets bool   // it stands where it was tried
}

// end has the request be answered.
func (w *writing) end(done bool, err error) {
	w.done, w.err = done, err
	close(w.ended)
}

// queue are requests that wait until somebody with the turn carries them out. There are no more than clients.
type queue struct {
	mu  sync.Mutex
	all []*writing
}

func (q *queue) add(w *writing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, w)
}

// take takes the one that has waited for longest, nil for none.
func (q *queue) take() *writing {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.all) == 0 {
		return nil
	}
	w := q.all[0]
	q.all = slices.Delete(q.all, 0, 1)
	return w
}

// back has requests wait again, before all others.
func (q *queue) back(ws []*writing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = slices.Concat(ws, q.all)
}

// drop takes one out; it is false if somebody has taken it.
func (q *queue) drop(w *writing) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.all, w)
	if i >= 0 {
		q.all = slices.Delete(q.all, i, i+1)
	}
	return i >= 0
}
