package replication

import (
	"context"
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// MemoryLimit is the usual size of a [Budget], in bytes.
const MemoryLimit = 64 << 20

// Budget bounds what streams and assemblies hold at once. Giving and taking have a half each: two nodes
// that take from each other must not wait for each other.
type Budget struct{ give, take *half }

// NewBudget returns a budget of a number of bytes, at least 32 MiB.
func NewBudget(bytes int64) *Budget {
	bytes = max(bytes, 32<<20) / 2
	return &Budget{give: newHalf(bytes), take: newHalf(bytes)}
}

// half is a number of bytes that Spaces hold parts of. Of those that wait the Space that holds least comes
// first, and of these the one that was not served longest: however much one asks for, each has its turn. Who
// holds something leaves the last wire.MaxJoined bytes to Spaces that hold nothing.
type half struct {
	mu      sync.Mutex
	free    int64                         // guarded by mu
	held    map[tinycloud.SpaceID]int64   // guarded by mu
	waiting map[tinycloud.SpaceID][]*part // guarded by mu; oldest first
	order   []tinycloud.SpaceID           // guarded by mu; the Spaces of waiting, the one served last at the end
}

// part is what somebody waits for.
type part struct {
	bytes   int64
	granted chan struct{} // closed when it is held
}

func newHalf(bytes int64) *half {
	return &half{free: bytes, held: map[tinycloud.SpaceID]int64{}, waiting: map[tinycloud.SpaceID][]*part{}}
}

// acquire waits for a number of bytes, which [half.release] gives back. The error is that of ctx.
func (s *half) acquire(ctx context.Context, space tinycloud.SpaceID, bytes int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &part{bytes: bytes, granted: make(chan struct{})}
	s.mu.Lock()
	if len(s.waiting[space]) == 0 {
		s.order = append(s.order, space)
	}
	s.waiting[space] = append(s.waiting[space], p)
	s.grantLocked()
	s.mu.Unlock()
	select {
	case <-p.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-p.granted:
		s.releaseLocked(space, bytes)
	default:
		s.leaveLocked(space, p)
		s.grantLocked() // it may have stood before others
	}
	return ctx.Err()
}

func (s *half) release(space tinycloud.SpaceID, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(space, bytes)
}

func (s *half) releaseLocked(space tinycloud.SpaceID, bytes int64) {
	s.free += bytes
	if s.held[space] -= bytes; s.held[space] == 0 {
		delete(s.held, space)
	}
	s.grantLocked()
}

func (s *half) holdLocked(space tinycloud.SpaceID, bytes int64) {
	s.free -= bytes
	s.held[space] += bytes
}

func (s *half) fitsLocked(space tinycloud.SpaceID, bytes int64) bool {
	if s.held[space] > 0 {
		bytes += wire.MaxJoined
	}
	return bytes <= s.free
}

// grantLocked serves those whose turn it is. One that asks for much is waited for: else the others' small parts
// would keep it out for ever.
func (s *half) grantLocked() {
	for len(s.order) > 0 {
		next := s.order[0]
		for _, space := range s.order {
			if s.held[space] < s.held[next] {
				next = space
			}
		}
		p := s.waiting[next][0]
		if !s.fitsLocked(next, p.bytes) {
			return
		}
		s.leaveLocked(next, p)
		if len(s.waiting[next]) > 0 { // behind the others
			i := slices.Index(s.order, next)
			s.order = append(slices.Delete(s.order, i, i+1), next)
		}
		s.holdLocked(next, p.bytes)
		close(p.granted)
	}
}

// leaveLocked takes a part out of the queue.
func (s *half) leaveLocked(space tinycloud.SpaceID, p *part) {
	left := slices.DeleteFunc(s.waiting[space], func(q *part) bool { return q == p })
	if len(left) > 0 {
		s.waiting[space] = left
		return
	}
	delete(s.waiting, space)
	i := slices.Index(s.order, space)
	s.order = slices.Delete(s.order, i, i+1)
}
