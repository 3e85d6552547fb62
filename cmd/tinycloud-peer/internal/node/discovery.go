package node

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
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
func (n *Node) locator(front peer.ID, spaces func() []tinycloud.SpaceID) (*locate.Locator, error) {
	return locate.New(locate.Options{
		Node: front, Key: n.keys.SpaceKey, Spaces: spaces, Store: n.store,
		Trusted: n.spaces.asker.trusts, Ready: n.store.Ready,
		Metrics: n.spaces.metrics, Log: n.log.With("part", "discovery"),
	})
}

// locate asks a node for its peer of a Space.
func (n *Node) locate(ctx context.Context, space tinycloud.SpaceID, front peer.AddrInfo, private bool) (peer.ID, error) {
	if err := n.admitted(front.ID); err != nil {
		return "", err
	}
	e := n.entrance(ctx, space)
	if e.front == nil {
		return "", fmt.Errorf("another process replicates: %w", tinycloud.ErrUnavailable)
	}
	s, err := e.front.NewStream(ctx, front, locate.Protocol)
	if err != nil {
		return "", err
	}
	return e.where.Ask(ctx, s, space, private)
}
