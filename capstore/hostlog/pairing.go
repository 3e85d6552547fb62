package hostlog

import "time"

// MaxPairedAddrs bounds the addresses of a paired node.
const MaxPairedAddrs = 32

// PairedNode is another node that this one asks about every Space it comes to host.
//
// See docs/replication.md, "Order".
type PairedNode struct {
	Peer  string    // peer id of its front
	Addrs []string  // multiaddrs of its front, without /p2p
	Back  bool      // an invite was used between the two: the other asks this node too
	Since time.Time // whole milliseconds
}
