package node

import (
	"context"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// listBootstrap reads which nodes p2p.allow lists beside the paired ones.
func (n *Node) listBootstrap() {
	n.listed = map[peer.ID]struct{}{}
	for _, text := range n.cfg.P2P.Bootstrap {
		if to, err := parseTarget(text); err == nil { // they were checked
			n.listed[to.front.ID] = struct{}{}
		}
	}
}

// admits reports whether Spaces may replicate with a node, by p2p.allow. It asks no database.
func (n *Node) admits(front peer.ID) bool {
	switch n.cfg.P2P.Allow {
	case config.AllowOff:
		return false
	case config.AllowListed:
		_, ok := n.listed[front]
		return ok || n.store.PairedWith(front.String())
	}
	return true
}

// admitted refuses to join or ask a node with which Spaces may not replicate.
func (n *Node) admitted(front peer.ID) error {
	switch {
	case n.admits(front):
		return nil
	case n.cfg.P2P.Allow == config.AllowOff:
		return errAlone()
	}
	return tinycloud.Refuse(tinycloud.ErrForbidden, "p2p.allow is %s, and node %s is neither in p2p.bootstrap nor paired", n.cfg.P2P.Allow, front)
}

// alone reports whether Spaces replicate with nobody.
func (n *Node) alone() bool { return n.cfg.P2P.Allow == config.AllowOff }

func errAlone() error {
	return tinycloud.Refuse(tinycloud.ErrForbidden, "p2p.allow is %s: spaces of this node replicate with nobody", config.AllowOff)
}

// toAdmitted has a handler hear only nodes with which Spaces may replicate.
func (n *Node) toAdmitted(serve func(context.Context, network.Stream)) func(context.Context, network.Stream) {
	return func(ctx context.Context, s network.Stream) {
		if !n.admits(s.Conn().RemotePeer()) {
			_ = s.Reset()
			return
		}
		serve(ctx, s)
	}
}

// recheck ends connections with nodes that are not paired any more.
func (n *Node) recheck() {
	if front := n.front.Load(); front != nil && n.cfg.P2P.Allow == config.AllowListed {
		front.Recheck()
	}
}

// admittedTargets refuses a join by nodes with which Spaces may not replicate.
func (n *Node) admittedTargets(q JoinRequest) error {
	if n.alone() && !q.Empty {
		return errAlone()
	}
	for _, a := range q.Addrs {
		if to, err := parseTarget(a); err == nil { // else it was refused
			if err := n.admitted(to.front.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
