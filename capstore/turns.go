package capstore

import (
	"sync/atomic"
	"time"
)

// turns counts what this process does while it has the lock of the one who writes to a server's database, which other
// processes wait for meanwhile.
type turns struct {
	all   atomic.Int64 // transactions that were durable
	met   atomic.Int64 // of them those before which another process had written
	whole atomic.Int64 // of them those that were sent whole
	wrong atomic.Int64 // that were, or were about to be, and had to ask
	loads atomic.Int64 // of Spaces
	held  atomic.Int64 // nanoseconds from the lock to the end of COMMIT
	busy  atomic.Int64 // of them those until COMMIT was sent
}

// turn is one of them.
type turn struct {
	begin, sent time.Time
	met         bool
}

// took is how long it has been.
func (t turn) took() time.Duration {
	if t.begin.IsZero() { // a file has no lock
		return 0
	}
	return time.Since(t.begin)
}

// ended notes a transaction that is durable.
func (n *turns) ended(t turn) {
	if t.begin.IsZero() {
		return
	}
	n.all.Add(1)
	if t.met {
		n.met.Add(1)
	}
	n.held.Add(int64(t.took()))
	n.busy.Add(int64(t.sent.Sub(t.begin)))
}
