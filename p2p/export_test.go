package p2p

import (
	"context"
	"net"

	"github.com/ipfs/go-datastore"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	"golang.org/x/net/ipv4"
)

// Bounds that tests go to.
const (
	ProvidedNames    = providedNames
	ProvidersPerName = providersPerName
)

// NewProviders returns the store of what other nodes announce.
func NewProviders() datastore.Batching {
	return &providers{names: map[string]map[string][]byte{}}
}

// GossipOptions are those of every Space.
func GossipOptions() []pubsub.Option { return gossipOptions() }

// Conns is the number of connections of a Space peer.
func Conns(p *Peer) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Handshakes is the number of inbound connections of a Space peer that are not known yet.
func Handshakes(p *Peer) int { return len(p.transport.slots) }

// Rest looks twice whether the bitswap of a Space peer is idle, and says whether it rests.
func Rest(p *Peer) bool {
	x := p.exchange
	for range 2 {
		x.mu.Lock()
		e := x.now
		x.mu.Unlock()
		if e == nil {
			return true
		}
		x.look(e)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now == nil
}

// ParseLAN reads a packet and counts what it asks and answers.
func ParseLAN(b []byte) (asked, heard int) {
	a, h := parseLAN(b)
	return len(a), len(h)
}

// LANAnswer is the packet that answers for a name.
func LANAnswer(name Name, payload []byte) ([]byte, error) {
	m := lanAnswer(name, payload)
	return m.Pack()
}

// SendLAN multicasts anything.
func SendLAN(l *LAN, ifi *net.Interface, b []byte) error {
	_, err := l.multi.WriteTo(b, &ipv4.ControlMessage{IfIndex: ifi.Index}, &lanGroup)
	return err
}

// StopConnect says, as a relay does, that a front wants to connect.
func StopConnect(s network.Stream, src peer.ID) error {
	return util.NewDelimitedWriter(s).WriteMsg(&pb.StopMessage{
		Type: pb.StopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: src}),
	})
}

// Waker returns what decides whether a Space peer is woken.
func Waker(fn func(context.Context, peer.ID, Caller) bool, known func(peer.ID) bool) func(context.Context, Caller, peer.ID) bool {
	return newWaker(fn, known).wake
}
