package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

const (
	askTimeout = 15 * time.Second
	askFirst   = time.Second // until a bootstrap address that was not of use is tried again; doubles
	askLongest = time.Hour
	askSpacing = 150 * time.Millisecond // between two questions to one node: it allows 8 a second
)

// target is what an address of p2p.bootstrap or of a join reaches: a Space peer, or a node alone.
type target struct {
	front peer.AddrInfo
	space peer.ID // "" for a node alone
}

// parseTarget reads an address of either form. The error is of class [p2p.ErrInvalid].
func parseTarget(text string) (target, error) {
	if front, err := p2p.ParseFrontAddr(text); err == nil {
		return target{front: front}, nil
	}
	info, err := p2p.ParseSpaceAddr(text)
	if err != nil {
		return target{}, err
	}
	transport, _ := ma.SplitFunc(info.Addrs[0], func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	front, err := p2p.ParseFrontAddr(transport.String())
	return target{front: front, space: info.ID}, err
}

// openLocator makes what answers other nodes that ask for a Space's peer here, and asks them.
func (n *Node) openLocator() (err error) {
	id, err := p2p.PeerIDFromEd25519(n.nodeKey())
	if err != nil {
		return err
	}
	n.where, err = n.locator(id, n.store.Spaces)
	return err
}

// locator answers for some Spaces at one front.
func (n *Node) locator(front peer.ID, spaces func() []tinycloud.SpaceID) (*replication.Locator, error) {
	return replication.NewLocator(replication.LocatorOptions{
		Node: front, Key: n.keys.SpaceKey, Spaces: spaces, Store: n.store,
		Metrics: n.spaces.metrics, Log: n.log.With("part", "discovery"),
	})
}

// locate asks a node for its peer of a Space.
func (n *Node) locate(ctx context.Context, space tinycloud.SpaceID, front peer.AddrInfo, private bool) (peer.ID, error) {
	e := n.entrance(space)
	if e.front == nil {
		return "", fmt.Errorf("another process replicates: %w", tinycloud.ErrUnavailable)
	}
	s, err := e.front.NewStream(ctx, front, replication.WhereProtocol)
	if err != nil {
		return "", err
	}
	return e.where.Ask(ctx, s, space, private)
}

// bootstrap joins the hosted Spaces to the configured addresses that are of use to them, until ctx ends:
// nodes come up in any order, and Spaces are hosted at any time.
func (s *spaces) bootstrap(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, text := range s.n.cfg.P2P.Bootstrap {
		to, err := parseTarget(text)
		if err != nil {
			return fmt.Errorf("p2p.bootstrap: %w", err)
		}
		if to.front.ID.String() == s.n.frontID() {
			s.log.Warn("p2p.bootstrap names this node, ignored", "addr", text)
			continue
		}
		b := &bootstrap{spaces: s, text: text, to: to, asked: map[tinycloud.SpaceID]attempt{}}
		g.Go(func() error { return b.run(ctx, s.created[i]) })
	}
	return g.Wait()
}

// bootstrap tries one configured address.
type bootstrap struct {
	*spaces
	text  string
	to    target
	asked map[tinycloud.SpaceID]attempt
}

type attempt struct {
	next     time.Time
	failures int
}

// run goes over the Spaces whenever one is new or due.
func (b *bootstrap) run(ctx context.Context, created <-chan struct{}) error {
	joined := map[tinycloud.SpaceID]bool{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-created:
		case <-timer.C:
		}
		next := time.Now().Add(askLongest)
		for _, space := range b.n.sortedSpaces() {
			at := b.asked[space]
			if joined[space] || ctx.Err() != nil {
				continue
			}
			if time.Now().After(at.next) {
				ok, err := b.try(ctx, space)
				if err != nil && ctx.Err() == nil {
					b.log.Debug("p2p.bootstrap is of no use to a space yet", "addr", b.text, "space", space, "error", err)
				}
				joined[space] = ok
				at.failures++
				at.next = time.Now().Add(min(askLongest, askFirst<<min(at.failures-1, 16)))
				b.asked[space] = at
			}
			if !joined[space] && at.next.Before(next) {
				next = at.next
			}
		}
		timer.Reset(time.Until(next))
	}
}

// try joins a Space if the address is one of its hosts. It reports whether that is settled.
//
// A host that the history names needs no question. Otherwise a Space without another host asks the node; it
// shows its id to a node that has the same Space, and to others a text by which a guess of it can be
// tested. A Space that has met another host has a rendezvous secret, and asks with that, which shows nothing.
func (b *bootstrap) try(ctx context.Context, space tinycloud.SpaceID) (bool, error) {
	if b.to.front.ID == b.n.entranceID(space) {
		return true, nil // it is this node's
	}
	joins, err := b.n.store.Joins(ctx, space)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(joins, func(j capstore.Join) bool { return j.Addr == b.text }) {
		return true, nil
	}
	hosts, err := b.n.store.Hosts(ctx, space)
	if err != nil {
		return false, err
	}
	for _, h := range hosts {
		if id, err := p2p.PeerIDFromEd25519(h.Host[:]); err == nil && !h.Self && id == b.to.space {
			return true, b.join(ctx, space)
		}
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if !pause(ctx, askSpacing) {
		return false, ctx.Err()
	}
	leads, err := b.n.locate(asking, space, b.to.front, len(hosts) > 1)
	switch {
	case err != nil:
		return false, err
	case b.to.space != "" && b.to.space != leads:
		return false, nil // the peer of another Space there
	}
	return true, b.join(ctx, space)
}

// join remembers the address. A Space with keys is served as before: its clients do not take it for new.
func (b *bootstrap) join(ctx context.Context, space tinycloud.SpaceID) error {
	st, err := b.n.store.Status(ctx, space)
	if err != nil {
		return err
	}
	b.log.Info("p2p.bootstrap is a host of a space", "addr", b.text, "space", space)
	return b.n.join(ctx, space, JoinRequest{Addrs: []string{b.text}, Empty: st.Keys > 0})
}

// pause waits; it reports false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
