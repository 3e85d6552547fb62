package node

import (
	"context"
	"errors"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// frontRetry is between tries to open the ports of the front: the process that led before may still have
// them.
const frontRetry = time.Second

// maxShown is how many addresses other processes are told.
const maxShown = 32

// shared says that other processes may serve from this node's database. One of them leads: it has the front,
// which has the node's one key.
func (n *Node) shared() bool { return n.cfg.Storage.Database.Scheme() != config.SQLite }

// replicate runs the p2p side: with the front whenever this process leads, else as [behind] does.
func (n *Node) replicate(ctx context.Context) error {
	if !n.spread() {
		return n.store.Lead(ctx, capstore.Replication, n.lead)
	}
	n.spaces.deal(0, 1)
	b := newBehind(n)
	own, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { b.run(own) })
	defer running.Wait()
	defer stop()
	return n.store.Lead(ctx, capstore.Replication, func(ctx context.Context) error {
		resume := b.pause()
		defer resume()
		return n.lead(ctx)
	})
}

// lead has the front and replicates, until ctx ends.
func (n *Node) lead(ctx context.Context) error {
	for n.front.Load() == nil {
		err := n.openFront(ctx)
		if err == nil {
			break
		}
		n.log.WarnContext(ctx, "cannot replicate yet, trying again", "error", err)
		if !wait.For(ctx, frontRetry) {
			return nil
		}
	}
	n.front.Load().Start(ctx)
	if lan := n.lan.Load(); lan != nil {
		lan.Start()
	}
	n.log.InfoContext(ctx, "replicating", "listen", p2p.AddrTexts(n.front.Load().Addrs()))
	err := errors.Join(n.runSpaces(ctx), n.closeFront())
	if n.shared() && errors.Is(err, tinycloud.ErrUnavailable) {
		n.log.WarnContext(ctx, "replication ended, starting it again", "error", err)
		return nil
	}
	return err
}

// runSpaces replicates all Spaces, or those that it does not deal to other processes.
func (n *Node) runSpaces(ctx context.Context) error {
	if !n.spread() {
		return n.spaces.run(ctx)
	}
	d := newDealer(n.ledFor, n.spaces.deal)
	if err := n.front.Load().ServeProcesses(ctx, n.processKey(), n.dealing(d)); err != nil {
		return err
	}
	n.dealer.Store(d)
	defer n.dealer.Store(nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var dealing sync.WaitGroup
	dealing.Go(func() { d.run(ctx, n.spaces.using) })
	dealing.Go(func() { n.show(ctx) })
	dealing.Go(func() {
		<-ctx.Done()
		d.part()
	})
	err := n.spaces.run(ctx)
	cancel()
	dealing.Wait()
	n.spaces.deal(0, 1)
	return err
}

// show tells the other processes where the front is, as soon as the database takes it.
func (n *Node) show(ctx context.Context) {
	for ctx.Err() == nil {
		addrs, err := n.front.Load().ListenAddrs()
		if err == nil {
			err = n.store.Show(ctx, capstore.Replication, p2p.AddrTexts(addrs[:min(len(addrs), maxShown)]))
		}
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			n.log.WarnContext(ctx, "cannot tell other processes where the front is, trying again", "error", err)
		}
		wait.For(ctx, frontRetry)
	}
}

func (n *Node) closeFront() (err error) {
	if l := n.lan.Swap(nil); l != nil {
		err = l.Close()
	}
	if f := n.front.Swap(nil); f != nil {
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, n.closeEntrances())
}

// spaceAddrs are where a Space of this node can be reached, none while its entrance is not open, or that is not known.
func (n *Node) spaceAddrs(space tinycloud.SpaceID) []ma.Multiaddr {
	if f := n.opened(space).front; f != nil {
		return f.SpaceAddrs(n.spacePeer(space))
	}
	return nil
}

// frontAddrs are where this node can be reached by way of this process, none while another one leads.
func (n *Node) frontAddrs() []ma.Multiaddr {
	if f := n.front.Load(); f != nil && !f.Behind() {
		return f.Addrs()
	}
	return nil
}

// nodeAddrs are where this node can be reached, whichever process leads; none while that is not known.
func (n *Node) nodeAddrs() []ma.Multiaddr {
	if f := n.front.Load(); f != nil {
		return f.Addrs()
	}
	return nil
}

// frontID is the name of this node, whoever leads.
func (n *Node) frontID() string {
	id, _ := p2p.PeerIDFromEd25519(n.nodeKey()) // a derived key has the right length
	return id.String()
}

// leadWebhooks chooses the process that calls webhooks; nil where there is no other.
func (n *Node) leadWebhooks() func(context.Context, func(context.Context) error) error {
	if !n.shared() {
		return nil
	}
	return func(ctx context.Context, deliver func(context.Context) error) error {
		return n.store.Lead(ctx, capstore.Webhooks, deliver)
	}
}
