package node

import (
	"context"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// named is a node that the operator named: it may be a host of any Space here. An address of a Space names one for
// the Space whose peer it is.
type named struct {
	key    string // of the node, and of its Space peer if only that is named
	front  peer.AddrInfo
	space  peer.ID  // "" for a whole node
	addrs  []string // to join a Space by
	paired bool
}

// namedNodes are the nodes of p2p.bootstrap and those that are paired, without this one. With p2p.isolated the paired
// ones are left out: one node that is asked by all entrances would know them for one node's.
func (n *Node) namedNodes(ctx context.Context) ([]named, error) {
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
				n.log.Warn("address of a paired node ignored", "addr", text, "error", err)
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
	key := string(to.front.ID) + string(to.space)
	i := slices.IndexFunc(list, func(x named) bool { return x.key == key })
	if i < 0 {
		i, list = len(list), append(list, named{key: key, front: peer.AddrInfo{ID: to.front.ID}, space: to.space})
	}
	x := &list[i]
	x.front.Addrs = append(x.front.Addrs, to.front.Addrs...)
	x.addrs = append(x.addrs, text)
	x.paired = x.paired || paired
	return list
}

// nodesConfigured reports whether the configuration names other nodes.
func (n *Node) nodesConfigured() bool {
	return slices.ContainsFunc(n.cfg.P2P.Bootstrap, func(text string) bool {
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
