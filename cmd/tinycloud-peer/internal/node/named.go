package node

import (
	"context"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// named is a node that the operator named. By an address of its own it may be a host of any Space here; addresses of
// Spaces name it for the Spaces whose peers they end in. It is one node however many Spaces it is named for, and is
// asked about each Space here once.
type named struct {
	front  peer.AddrInfo
	addrs  []namedAddr
	paired bool
}

// namedAddr is an address by which a Space can be joined at a named node.
type namedAddr struct {
	text  string
	space peer.ID // "" for any Space
}

// names reports whether the node is named as a host by its Space peer.
func (x *named) names(host peer.ID) bool {
	return slices.ContainsFunc(x.addrs, func(a namedAddr) bool { return a.space == "" || a.space == host })
}

// whole reports whether the node is named for any Space.
func (x *named) whole() bool {
	return slices.ContainsFunc(x.addrs, func(a namedAddr) bool { return a.space == "" })
}

// has reports whether an address is one of those that name the node.
func (x *named) has(addr string) bool {
	return slices.ContainsFunc(x.addrs, func(a namedAddr) bool { return a.text == addr })
}

// addrsOf are the addresses by which to join the Space of a Space peer.
func (x *named) addrsOf(host peer.ID) (addrs []string) {
	for _, a := range x.addrs {
		if a.space == "" || a.space == host {
			addrs = append(addrs, a.text)
		}
	}
	return addrs
}

// namedNodes are the nodes of p2p.bootstrap and those that are paired, without this one. With p2p.isolated the paired
// ones are left out: one node that is asked by all entrances would know them for one node's.
func (n *Node) namedNodes(ctx context.Context) ([]named, error) {
	if n.alone() {
		return nil, nil
	}
	var out []named
	for _, text := range n.cfg.P2P.Bootstrap {
		if to, err := parseTarget(text); err == nil { // they were checked
			out = n.addNamed(out, to, text, false)
		}
	}
	if n.cfg.P2P.Isolated {
		return out, nil
	}
	pairs, err := n.store.Paired(ctx)
	for _, p := range pairs {
		for _, addr := range p.Addrs {
			text := addr + "/p2p/" + p.Peer
			to, err := parseTarget(text)
			if err != nil {
				n.log.WarnContext(ctx, "address of a paired node ignored", "addr", text, "error", err)
				continue
			}
			out = n.addNamed(out, to, text, true)
		}
	}
	return out, err
}

func (n *Node) addNamed(list []named, to target, text string, paired bool) []named {
	if to.front.ID.String() == n.frontID() {
		return list
	}
	i := slices.IndexFunc(list, func(x named) bool { return x.front.ID == to.front.ID })
	if i < 0 {
		i, list = len(list), append(list, named{front: peer.AddrInfo{ID: to.front.ID}})
	}
	x := &list[i]
	for _, addr := range to.front.Addrs {
		if !slices.ContainsFunc(x.front.Addrs, addr.Equal) {
			x.front.Addrs = append(x.front.Addrs, addr)
		}
	}
	x.addrs = append(x.addrs, namedAddr{text, to.space})
	x.paired = x.paired || paired
	return list
}

// nodesConfigured reports whether the configuration names other nodes.
func (n *Node) nodesConfigured() bool {
	return !n.alone() && slices.ContainsFunc(n.cfg.P2P.Bootstrap, func(text string) bool {
		to, err := parseTarget(text)
		return err == nil && to.front.ID.String() != n.frontID()
	})
}

// leadsTo reports whether an address of a Space peer leads there over a node.
func leadsTo(addr string, front peer.ID) bool {
	to, err := parseTarget(addr)
	return err == nil && to.front.ID == front && to.space != ""
}

// spacePeerOf is the Space peer that an address ends in, "" for none.
func spacePeerOf(addr string) peer.ID {
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return ""
	}
	info, err := p2p.ParseSpaceAddr(a.String())
	if err != nil {
		return ""
	}
	return info.ID
}
