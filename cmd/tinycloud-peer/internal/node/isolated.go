package node

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
)

// With p2p.isolated every hosted Space has a front of its own: other key, other ports, so no connection carries
// two Spaces and no name is common to them. The front of the node key then neither listens nor dials.

// Ports of isolated Spaces, below those that systems give out by themselves.
const (
	isolatedPort  = 10_000
	isolatedPorts = 22_768
	isolatedTries = 16 // ports that may be taken
)

// contextIsolated is followed by the Space id.
const contextIsolated = "tinycloud/node/isolated/"

// entrance is where a Space is reached.
type entrance struct {
	front *p2p.Front
	where *locate.Locator
}

// entrances are those of isolated Spaces, while this process replicates.
type entrances struct {
	mu   sync.Mutex
	open map[tinycloud.SpaceID]entrance // guarded by mu
}

// checkIsolated refuses settings that tell one name or address for all Spaces.
func checkIsolated(c config.P2P) error {
	if !c.Isolated {
		return nil
	}
	var errs []error
	for setting, on := range map[string]bool{"p2p.dht": c.DHT, "p2p.mdns": c.MDNS, "p2p.announce": len(c.Announce) > 0} {
		if on {
			errs = append(errs, fmt.Errorf("%s: it would show with p2p.isolated that Spaces are of one node", setting))
		}
	}
	return errors.Join(errs...)
}

// entrance returns where a Space is reached and looks for others. Its front is nil while another process leads,
// or when its ports can't be opened.
func (n *Node) entrance(ctx context.Context, space tinycloud.SpaceID) entrance {
	front := n.front.Load()
	if front == nil || !n.cfg.P2P.Isolated {
		return entrance{front, n.where}
	}
	n.entrances.mu.Lock()
	defer n.entrances.mu.Unlock()
	e, ok := n.entrances.open[space]
	if ok || n.front.Load() != front { // it ends
		return e
	}
	e, err := n.openEntrance(ctx, space)
	if err != nil {
		n.log.WarnContext(ctx, "space without an entrance, trying again", "space", space, "error", err)
		return entrance{}
	}
	n.entrances.open[space] = e
	return e
}

// opened returns the entrance of a Space if it is open; its front is nil else.
func (n *Node) opened(space tinycloud.SpaceID) entrance {
	if !n.cfg.P2P.Isolated {
		return entrance{n.front.Load(), n.where}
	}
	n.entrances.mu.Lock()
	defer n.entrances.mu.Unlock()
	return n.entrances.open[space]
}

// openEntrances lets all hosted Spaces be reached.
func (n *Node) openEntrances(ctx context.Context) {
	if !n.cfg.P2P.Isolated {
		return
	}
	for _, space := range n.store.Spaces() {
		n.entrance(ctx, space)
	}
}

// closeEntrances is called when there is no front of the node any more.
func (n *Node) closeEntrances() error {
	n.entrances.mu.Lock()
	open := n.entrances.open
	n.entrances.open = map[tinycloud.SpaceID]entrance{}
	n.entrances.mu.Unlock()
	var errs []error
	for _, e := range open {
		errs = append(errs, e.front.Close())
	}
	return errors.Join(errs...)
}

func (n *Node) openEntrance(ctx context.Context, space tinycloud.SpaceID) (e entrance, err error) {
	o, err := n.frontOptions()
	if err != nil {
		return e, err
	}
	o.Key, o.Process, o.Seeds = n.isolatedKey(space), nil, nil
	id := n.spacePeer(space)
	o.Known = func(asked peer.ID) bool { return asked == id && n.spaces.known(asked) } // others are not here
	e.where, err = n.locator(n.entranceID(space), func() []tinycloud.SpaceID { return []tinycloud.SpaceID{space} })
	if err != nil {
		return e, err
	}
	listen, port := o.Listen, n.isolatedPort(space)
	for range isolatedTries {
		if o.Listen, err = withPort(listen, port); err != nil {
			return e, err
		}
		if e.front, err = p2p.New(o); err == nil {
			e.front.Start(ctx)
			e.front.Handle(ctx, locate.Protocol, n.toAdmitted(e.where.Serve))
			return e, nil
		}
		port++
	}
	return e, fmt.Errorf("p2p.listen: %w", err)
}

// withPort replaces the ports of addresses; 0 stays.
func withPort(addrs []ma.Multiaddr, port int) (out []ma.Multiaddr, err error) {
	for _, a := range addrs {
		var b ma.Multiaddr
		for _, c := range a {
			if code := c.Protocol().Code; (code == ma.P_TCP || code == ma.P_UDP) && c.Value() != "0" {
				changed, err := ma.NewComponent(c.Protocol().Name, strconv.Itoa(port))
				if err != nil {
					return nil, err
				}
				c = *changed
			}
			b = append(b, c)
		}
		out = append(out, b)
	}
	return out, nil
}

// isolatedKey names the front of a Space: it tells nothing of the node's, or another Space's.
func (n *Node) isolatedKey(space tinycloud.SpaceID) ed25519.PrivateKey {
	seed := n.keys.Derive(contextIsolated + space.String())
	return ed25519.NewKeyFromSeed(seed[:])
}

// isolatedPort is the same after a restart, so that addresses stay true.
func (n *Node) isolatedPort(space tinycloud.SpaceID) int {
	h := n.keys.Derive(contextIsolated + "port/" + space.String())
	return isolatedPort + int(binary.BigEndian.Uint64(h[:])%isolatedPorts)
}

// entranceID is the name of the front where a Space is reached, whoever leads.
func (n *Node) entranceID(space tinycloud.SpaceID) peer.ID {
	key := n.nodeKey()
	if n.cfg.P2P.Isolated {
		key = n.isolatedKey(space).Public().(ed25519.PublicKey)
	}
	id, _ := p2p.PeerIDFromEd25519(key) // a derived key has the right length
	return id
}
