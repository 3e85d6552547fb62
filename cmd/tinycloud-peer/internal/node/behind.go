package node

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

const (
	lookForFront = 500 * time.Millisecond // between looks for the process that has the front; doubles while it is out of reach
	seldomLook   = 4 * time.Second
	linkTimeout  = 5 * time.Second
	checkFront   = 2 * time.Second // between looks whether it has the front still
	unchecked    = 6 * time.Second // after which a process whose database does not answer stops
)

// contextProcess is of the key that the processes of a node know each other by.
const contextProcess = "tinycloud/node/process"

func (n *Node) processKey() ed25519.PrivateKey {
	seed := n.keys.Derive(contextProcess)
	return ed25519.NewKeyFromSeed(seed[:])
}

// spread says that all processes of the database replicate. Where each Space has a front of its own, or is looked for on
// the local network, only the one that leads does.
func (n *Node) spread() bool {
	return n.shared() && !n.alone() && !n.cfg.P2P.Isolated && !n.cfg.P2P.MDNS
}

// behind is what a process does that has no front: it replicates the shards that the one with the front deals to it.
type behind struct {
	n *Node

	mu     sync.Mutex
	paused int                // guarded by mu
	stop   context.CancelFunc // guarded by mu; of the link that there is
	turn   chan struct{}      // capacity 1: held while it is linked, or this process has the front
}

func newBehind(n *Node) *behind { return &behind{n: n, turn: make(chan struct{}, 1)} }

// pause ends the link and keeps from another until resume is called.
func (b *behind) pause() (resume func()) {
	b.mu.Lock()
	b.paused++
	if b.stop != nil {
		b.stop()
	}
	b.mu.Unlock()
	b.turn <- struct{}{}
	return func() {
		b.mu.Lock()
		b.paused--
		b.mu.Unlock()
		<-b.turn
	}
}

// run is linked while another process has the front, until ctx ends.
func (b *behind) run(ctx context.Context) {
	for pause := lookForFront; ctx.Err() == nil; wait.For(ctx, pause) {
		err := b.link(ctx)
		switch {
		case err == nil:
			pause = lookForFront
			continue
		case ctx.Err() == nil && pause == lookForFront:
			b.n.log.WarnContext(ctx, "replicates nothing, trying again", "error", err)
		}
		pause = min(2*pause, seldomLook)
	}
}

// link replicates by way of the process that has the front, if there is one, until that ends.
func (b *behind) link(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	b.mu.Lock()
	if b.paused > 0 {
		b.mu.Unlock()
		return nil
	}
	b.stop = stop
	b.mu.Unlock()
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	addrs, ok, err := b.n.store.Leader(ctx, capstore.Replication)
	if err != nil || !ok || ctx.Err() != nil {
		return err
	}
	front, err := b.open(ctx, addrs)
	if err != nil {
		return err
	}
	b.n.front.Store(front)
	b.n.log.InfoContext(ctx, "linked to the process that has the front")
	err = b.follow(ctx, front)
	b.n.front.CompareAndSwap(front, nil)
	return errors.Join(err, front.Close())
}

func (b *behind) open(ctx context.Context, addrs []string) (*p2p.Front, error) {
	o, err := b.n.frontOptions()
	if err != nil {
		return nil, err
	}
	to := p2p.LinkOptions{Addrs: p2p.ParseAddrs(addrs), Call: b.n.answerProcess}
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	front, err := p2p.Linked(ctx, o, to)
	if err != nil {
		return nil, fmt.Errorf("the process that has the front cannot be reached from here (its p2p.listen): %w", err)
	}
	return front, nil
}

// follow replicates what is dealt until the link ends.
func (b *behind) follow(ctx context.Context, front *p2p.Front) error {
	s := b.n.spaces
	s.deal(0, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error {
		defer cancel()
		return s.run(ctx)
	})
	err := b.asks(ctx, front)
	cancel()
	err = errors.Join(err, g.Wait())
	s.deal(0, 1)
	if !errors.Is(err, p2p.ErrUnreachable) { // else its time runs out
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = b.ask(leaving, front, shardAsk{Leaving: true})
	}
	if errors.Is(err, tinycloud.ErrUnavailable) || errors.Is(err, p2p.ErrUnreachable) {
		b.n.log.InfoContext(ctx, "linked no more to the process that has the front", "error", err)
		return nil
	}
	return err
}

// asks has shards dealt to this process until ctx or its time ends.
func (b *behind) asks(ctx context.Context, front *p2p.Front) error {
	s, checked := b.n.spaces, time.Now()
	late := fmt.Errorf("nothing was dealt in time: %w", tinycloud.ErrUnavailable)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end := time.AfterFunc(leaseTime, func() { cancel(late) })
	defer end.Stop()
	for {
		began := time.Now()
		a, err := b.ask(ctx, front, shardAsk{Using: s.using()})
		if err != nil {
			return err
		}
		if !end.Stop() {
			return late
		}
		end.Reset(time.Until(began.Add(a.For)))
		s.deal(a.Shards, a.Members)
		if time.Since(checked) >= checkFront {
			_, ok, err := b.n.store.Leader(ctx, capstore.Replication)
			switch {
			case err == nil && !ok:
				return nil
			case err == nil:
				checked = time.Now()
			case time.Since(checked) > unchecked:
				return err
			}
		}
		if !wait.For(ctx, askShards) {
			if context.Cause(ctx) == late {
				return late
			}
			return nil
		}
	}
}

func (b *behind) ask(ctx context.Context, front *p2p.Front, q shardAsk) (a shardAnswer, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	if body, err = front.Ask(ctx, body); err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a)
}
