package node

import (
	"context"
	"encoding/json"
	"math/bits"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// The replication of Spaces is spread over the processes that share a database. The one that leads has the front and
// deals shards of Spaces, itself among those that get some. A process has its shards for leaseTime from when it asked;
// who does not ask any more has stopped all that he did by stopTime later, and only then another gets them.

const (
	shardCount = 64
	leaseTime  = 3 * time.Second
	stopTime   = 3 * time.Second // as of a process that leads no more
	askShards  = 400 * time.Millisecond
	partTime   = 2500 * time.Millisecond // for processes to stop when the one that deals ends
)

// shards is a set of them.
type shards uint64

const allShards = ^shards(0)

func (x shards) count() int { return bits.OnesCount64(uint64(x)) }

// some are n of them.
func (x shards) some(n int) (out shards) {
	for ; n > 0 && x != 0; n-- {
		bit := x & -x
		out |= bit
		x &^= bit
	}
	return out
}

func (x shards) has(space tinycloud.SpaceID) bool { return x == allShards || x&shardOf(space) != 0 }

// shardOf is the one shard of a Space.
func shardOf(space tinycloud.SpaceID) shards {
	h := tinycloud.Sum([]byte(space.String()))
	return 1 << (h[0] % shardCount)
}

// shardAsk is what a process says to the one that deals; shardAnswer what that one answers.
type (
	shardAsk struct {
		Using   shards // that it may be replicating still
		Leaving bool   // it wants none any more
	}
	shardAnswer struct {
		Shards  shards
		Members int           // processes that replicate
		For     time.Duration // from when it asked
	}
)

// dealer deals shards to the processes of the node.
type dealer struct {
	led func() time.Duration // see [capstore.Store.LedFor]
	own func(dealt shards, members int)

	mu      sync.Mutex
	self    *holder                  // guarded by mu
	members map[*p2p.Process]*holder // guarded by mu; those that said something
	gone    []*holder                // guarded by mu; those whose shards may be in use until then
	closing bool                     // guarded by mu
	freed   wait.Signal              // somebody gave something back
}

// holder is a process. Guarded by dealer.mu.
type holder struct {
	dealt shards
	used  shards    // it may be replicating; dealt among them
	until time.Time // what it was told last holds
	left  bool
}

// newDealer begins with all shards at this process: the one that dealt before has ended, and with it what others did
// by its word.
func newDealer(led func() time.Duration, own func(shards, int)) *dealer {
	d := &dealer{led: led, own: own, self: &holder{dealt: allShards, used: allShards}, members: map[*p2p.Process]*holder{}, freed: wait.NewSignal()}
	own(allShards, 1)
	return d
}

// deal gives out what is free, takes back what is too much, and returns among how many. d.mu is held.
func (d *dealer) deal(now time.Time) (members int) {
	if d.closing {
		return 1
	}
	living := []*holder{d.self}
	for _, h := range d.members {
		if !h.left {
			living = append(living, h)
		}
	}
	most := (shardCount + len(living) - 1) / len(living)
	taken := shards(0)
	for _, h := range living {
		if n := h.dealt.count(); n > most {
			h.dealt &^= h.dealt.some(n - most)
		}
		taken |= h.used
	}
	for _, h := range d.members {
		taken |= h.used
	}
	still := d.gone[:0]
	for _, h := range d.gone {
		if now.Before(h.until) {
			still = append(still, h)
			taken |= h.used
		}
	}
	d.gone = still
	for free := allShards &^ taken; free != 0; {
		least := living[0]
		for _, h := range living[1:] {
			if h.dealt.count() < least.dealt.count() {
				least = h
			}
		}
		bit := free.some(1)
		free &^= bit
		least.dealt |= bit
		least.used |= bit
	}
	d.own(d.self.dealt, len(living))
	return len(living)
}

// gaveBack notes which shards this process may be replicating beside those that it has.
func (d *dealer) gaveBack(using shards) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.self.used = using | d.self.dealt
	d.deal(time.Now())
}

// ask answers a process.
func (d *dealer) ask(_ context.Context, p *p2p.Process, body []byte) ([]byte, error) {
	var q shardAsk
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	h := d.members[p]
	if h == nil {
		h = &holder{}
		d.members[p] = h
	}
	if h.left = h.left || q.Leaving; h.left {
		h.dealt = 0
	}
	h.used = q.Using | h.dealt
	members := d.deal(now)
	a := shardAnswer{Shards: h.dealt, Members: members, For: min(leaseTime, d.led())}
	h.until = now.Add(leaseTime + stopTime)
	d.freed.Give()
	return json.Marshal(a)
}

// left notes that a process is linked no more.
func (d *dealer) left(p *p2p.Process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.members[p]; h != nil {
		delete(d.members, p)
		if h.used != 0 {
			d.gone = append(d.gone, h)
		}
		d.deal(time.Now())
	}
	d.freed.Give()
}

// of is the other process that has a Space's shard, nil for none.
func (d *dealer) of(space tinycloud.SpaceID) *p2p.Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.self.dealt.has(space) {
		return nil
	}
	for p, h := range d.members {
		if h.dealt.has(space) {
			return p
		}
	}
	return nil
}

// run deals what this process gives back, and what becomes free by time, until ctx ends.
func (d *dealer) run(ctx context.Context, using func() shards) {
	for wait.For(ctx, askShards) {
		d.gaveBack(using())
	}
}

// part takes all shards back from the other processes and waits, not for ever, until they have stopped.
func (d *dealer) part() {
	d.mu.Lock()
	d.closing = true
	for _, h := range d.members {
		h.dealt = 0
	}
	d.mu.Unlock()
	timer := time.NewTimer(partTime)
	defer timer.Stop()
	for {
		d.mu.Lock()
		used := shards(0)
		for _, h := range d.members {
			used |= h.used
		}
		d.mu.Unlock()
		if used == 0 {
			return
		}
		select {
		case <-d.freed:
		case <-timer.C:
			return
		}
	}
}
