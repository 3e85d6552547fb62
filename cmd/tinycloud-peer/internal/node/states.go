package node

import (
	"net/http"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// What a Space's peer does.
const (
	ActivityOpen    = "open"    // it is connected with other hosts, or tries
	ActivityResting = "resting" // nothing is new, its hosts agreed to rest
	ActivityAsleep  = "asleep"  // its hosts are away, and looked for now and then
	ActivityAlone   = "alone"   // it never met another

	ActivityElsewhere = "elsewhere" // another process of the same database replicates it, or none does now
)

// How an address serves that a host was once reached by.
const (
	JoinElsewhere = "reached elsewhere" // the host is connected, by another address
	JoinAway      = "away"              // it is not connected now
)

func (s *spaces) activity(space tinycloud.SpaceID) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active[space] != nil {
		return ActivityOpen
	}
	switch z := s.asleep[space]; {
	case !s.leads(space):
		return ActivityElsewhere
	case z == nil:
		return ActivityAlone
	case z.rest != nil:
		return ActivityResting
	}
	return ActivityAsleep
}

// reached says what has become of an address whose host was connected. What the store has is how its host answered, by
// whatever address.
func (n *Node) reached(space tinycloud.SpaceID, j JoinView, hosts []HostView) string {
	if j.State != replication.JoinConnected {
		return j.State
	}
	to, err := parseTarget(j.Addr)
	front := n.opened(space).front
	if err != nil || front == nil || front.Behind() {
		return j.State
	}
	if !slices.ContainsFunc(hosts, func(h HostView) bool {
		return h.Connected && !h.Self && (to.space == "" || h.PeerID == to.space.String())
	}) {
		return JoinAway
	}
	return throughAny(to.front, front.Host().Network().ConnsToPeer(to.front.ID))
}

// throughAny says whether a node is connected by one of the addresses. Names are not compared: connections have the
// addresses that they stood for.
func throughAny(to peer.AddrInfo, conns []network.Conn) string {
	for _, a := range to.Addrs {
		if first, _ := ma.SplitFirst(a); first != nil && strings.HasPrefix(first.Protocol().Name, "dns") {
			return replication.JoinConnected
		}
	}
	for _, c := range conns {
		if slices.ContainsFunc(to.Addrs, c.RemoteMultiaddr().Equal) {
			return replication.JoinConnected
		}
	}
	return JoinElsewhere
}

// importedView is what is shown of a Space that was taken over from elsewhere and is not served.
func (n *Node) importedView(space tinycloud.SpaceID) SpaceView {
	return SpaceView{
		Space: space, DID: n.hostDID(space), PeerID: n.spacePeer(space).String(), Addrs: []string{}, State: capstore.StateImported,
		Standing: capstore.StandsNone, Activity: ActivityAlone, Hosts: []HostView{}, Heads: []string{}, Paused: []string{},
		Joins: []JoinView{}, Rules: capstore.Rules,
	}
}

// adminForget forgets an address that a Space is joined through.
func (n *Node) adminForget(r *http.Request) (int, any, error) {
	space, err := pathSpace(r)
	if err != nil {
		return 0, nil, err
	}
	addr := r.PathValue("addr")
	if err := n.store.ForgetJoin(r.Context(), space, addr); err != nil {
		return 0, nil, err
	}
	n.log.InfoContext(r.Context(), "address of a space forgotten", "space", space, "addr", addr)
	return http.StatusOK, JoinRequest{Addrs: []string{addr}}, nil
}
