package node

import (
	"context"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// coming are the values of a Space that are on their way, and those of which parts came: all have to fit together.
type coming struct {
	mu    sync.Mutex
	bytes int64                    // guarded by mu
	sizes map[tinycloud.Hash]int64 // guarded by mu
}

// comingTo is what is on its way to a Space.
func (s *spaces) comingTo(space tinycloud.SpaceID) *coming {
	c, _ := s.coming.LoadOrStore(space, &coming{sizes: map[tinycloud.Hash]int64{}})
	return c.(*coming)
}

// reserve has a value of another host be fetched if its Space has room for it here, until [coming.release].
func (f fetched) reserve(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64) error {
	r, err := f.n.store.Room(ctx, space)
	if err != nil {
		return err
	}
	c := f.n.spaces.comingTo(space)
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.sizes[hash]
	if size > r.ForValue()-(c.bytes-before) {
		f.n.store.LacksRoom(space)
		return r.RefuseValue()
	}
	c.bytes += size - before
	c.sizes[hash] = size
	return nil
}

// release says that a value is here, or is not coming, and left nothing.
func (c *coming) release(hash tinycloud.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= c.sizes[hash]
	delete(c.sizes, hash)
}

// reserved is an assembly with the room that it needs, which it keeps when it is closed: so do its parts.
type reserved struct {
	replication.Assembly
	hash tinycloud.Hash
	of   *coming
}

// Finish ends the assembly, well or not.
func (r reserved) Finish(ctx context.Context) error {
	defer r.of.release(r.hash)
	return r.Assembly.Finish(ctx)
}

// Discard gives it up.
func (r reserved) Discard() error {
	defer r.of.release(r.hash)
	return r.Assembly.Discard()
}

// resume has a Space that takes no more of other hosts look again whether it may.
func (s *spaces) resume(space tinycloud.SpaceID) {
	if a := s.get(space); a != nil {
		a.replica.Kick()
	}
}
