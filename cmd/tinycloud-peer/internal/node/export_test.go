package node

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// What is said on the local network.
var (
	SealLAN = sealLAN
	OpenLAN = openLAN
)

// Connected returns with whom the entrance of a Space is connected, or the node's own front.
func (n *Node) Connected(space *tinycloud.SpaceID) []peer.ID {
	f := n.front.Load()
	if space != nil {
		f = n.entrance(*space).front
	}
	return f.Host().Network().Peers()
}

// EntranceID is the name of the front where a Space is reached.
func (n *Node) EntranceID(space tinycloud.SpaceID) peer.ID { return n.entranceID(space) }

// Fronts are the nodes of the other hosts of a Space that are known here.
func (n *Node) Fronts(ctx context.Context, space tinycloud.SpaceID) ([]peer.AddrInfo, error) {
	return n.spaces.frontsOf(ctx, space)
}
