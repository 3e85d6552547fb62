package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// leads reports whether a Space is of the shards that this process may replicate.
func (s *spaces) leads(space tinycloud.SpaceID) bool { return shards(s.dealt.Load()).has(space) }

// led are those of some Spaces. It may change the list.
func (s *spaces) led(list []tinycloud.SpaceID) []tinycloud.SpaceID {
	dealt := shards(s.dealt.Load())
	if dealt == allShards {
		return list
	}
	return slices.DeleteFunc(list, func(space tinycloud.SpaceID) bool { return !dealt.has(space) })
}

// deal says which shards this process may replicate, and among how many processes all are dealt. It does not block.
func (s *spaces) deal(dealt shards, members int) {
	before, were := s.dealt.Swap(uint64(dealt)), s.members.Swap(int64(members))
	if before != uint64(dealt) || were != int64(members) {
		s.redealt.Give()
	}
}

// shardCount is how many shards this process replicates.
func (s *spaces) shardCount() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.term == nil {
		return 0
	}
	return shards(s.dealt.Load()).count()
}

// begins reports whether a Space may be started; it counts as used from before it is asked whether this process leads it.
func (s *spaces) begins(space tinycloud.SpaceID) bool {
	s.mu.Lock()
	s.starting = space
	s.mu.Unlock()
	if s.leads(space) {
		return true
	}
	s.begun()
	return false
}

func (s *spaces) begun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starting = tinycloud.SpaceID{}
}

// using are the shards that this process may replicate, and those that it has not stopped to.
func (s *spaces) using() shards {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := shards(s.dealt.Load())
	if s.starting != (tinycloud.SpaceID{}) {
		out |= shardOf(s.starting)
	}
	if out == allShards {
		return out
	}
	for space := range s.active {
		out |= shardOf(space)
	}
	return out
}

// letGo stops the Spaces that this process leads no more.
func (s *spaces) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for space, z := range s.asleep {
		if !s.leads(space) {
			z.rest.release()
			delete(s.asleep, space)
			delete(s.woken, space)
		}
	}
	for space, a := range s.active {
		if !s.leads(space) {
			delete(s.woken, space)
			if !a.stopping {
				a.stopping = true
				a.stop()
			}
		}
	}
}

// processCall is what one process asks of the one that replicates a Space: to fetch a value.
type processCall struct {
	Space string
	Value []byte
}

// processAnswer is how that ended.
type processAnswer struct{ Unavailable string }

// elsewhere returns how to ask the process that replicates a Space, nil when it is this one or none is known.
func (s *spaces) elsewhere(space tinycloud.SpaceID) func(context.Context, processCall) error {
	if s.leads(space) {
		return nil
	}
	call := func(context.Context, []byte) ([]byte, error) { return nil, p2p.ErrUnreachable }
	if d := s.n.dealer.Load(); d != nil {
		p := d.of(space)
		if p == nil {
			return nil
		}
		call = p.Call
	} else if front := s.n.front.Load(); front != nil && front.Behind() {
		call = front.Call
	} else {
		return nil
	}
	return func(ctx context.Context, q processCall) error {
		body, err := json.Marshal(q)
		if err != nil {
			return err
		}
		if body, err = call(ctx, body); err != nil {
			return fmt.Errorf("process that replicates the space: %w: %w", err, tinycloud.ErrUnavailable)
		}
		var a processAnswer
		if err = json.Unmarshal(body, &a); err == nil && a.Unavailable != "" {
			err = fmt.Errorf("%s: %w", a.Unavailable, tinycloud.ErrUnavailable)
		}
		return err
	}
}

// answerProcess fetches a value for another process of the node, or has the one do it that replicates the Space.
func (n *Node) answerProcess(ctx context.Context, body []byte) ([]byte, error) {
	var q processCall
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	space, err := tinycloud.ParseSpaceID(q.Space)
	if err != nil {
		return nil, err
	}
	if len(q.Value) != len(tinycloud.Hash{}) {
		return nil, fmt.Errorf("hash of %d bytes: %w", len(q.Value), tinycloud.ErrInvalid)
	}
	if !n.spaces.leads(space) && n.dealer.Load() == nil {
		err = fmt.Errorf("another process replicates the space by now: %w", tinycloud.ErrUnavailable)
	} else {
		err = n.spaces.fetch(ctx, space, tinycloud.Hash(q.Value))
	}
	var a processAnswer
	if err != nil {
		a.Unavailable = err.Error()
	}
	return json.Marshal(a)
}

// processOf is the other process that has a Space peer, nil for none.
func (n *Node) processOf(d *dealer, id peer.ID) *p2p.Process {
	if space, ok := n.spaces.spaceOf(id); ok {
		return d.of(space)
	}
	return nil
}

// dealing are the options of a front whose Spaces are spread.
func (n *Node) dealing(d *dealer) p2p.ProcessOptions {
	return p2p.ProcessOptions{
		Deal: d.ask, Gone: d.left, Call: n.answerProcess,
		Of: func(space peer.ID) *p2p.Process { return n.processOf(d, space) },
	}
}

// ledFor is for how long what this process deals may hold.
func (n *Node) ledFor() time.Duration { return n.store.LedFor(capstore.Replication) }
