package node

import (
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// warnOpen tells an operator whose node others can reach, and fill.
func (n *Node) warnOpen() {
	if n.cfg.Storage.Limit != 0 || n.onlyHere() {
		return
	}
	n.log.Warn("configuration", "warning",
		"storage.limit: not set, and other machines can reach this node: whoever has a Space here can fill its disk up to storage.reserve")
}

// onlyHere reports whether the node listens on this machine's own addresses alone.
func (n *Node) onlyHere() bool {
	if !n.cfg.Address.IsLoopback() {
		return false
	}
	if n.alone() {
		return true
	}
	for _, text := range n.cfg.P2P.Listen {
		addr, err := ma.NewMultiaddr(text)
		if err != nil || !manet.IsIPLoopback(addr) {
			return false
		}
	}
	return true
}
