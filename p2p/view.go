package p2p

import (
	"context"
	"fmt"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	blankhost "github.com/libp2p/go-libp2p/p2p/host/blank"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
)

// view is the libp2p host that gossipsub and bitswap get. In it only
// authorised peers exist: it has its own event bus and notifications, its
// streams pass the gate in both directions, and it never dials.
//
// gossipsub learns of peers from Network.Peers when it starts and then from
// EvtPeerProtocolsUpdated; it checks Connectedness before it opens a stream,
// and drops a peer when that stream ends. bitswap learns from Network.Notify,
// and checks Connectedness on Disconnected.
type view struct {
	*blankhost.BlankHost // multiplexer, event bus, peerstore
	p                    *Peer
	net                  *gatedNetwork
	connectedness        event.Emitter
	protocols            event.Emitter
}

func newView(p *Peer) (*view, error) {
	bus := eventbus.NewBus()
	net := &gatedNetwork{p: p, subscribers: map[network.Notifiee]struct{}{}}
	v := &view{p: p, net: net, BlankHost: blankhost.NewBlankHost(net, blankhost.WithEventBus(bus))}
	if v.BlankHost == nil {
		return nil, fmt.Errorf("view of %s: no host: %w", p.id, ErrInvalid)
	}
	var err error
	if v.connectedness, err = bus.Emitter(new(event.EvtPeerConnectednessChanged)); err != nil {
		return nil, fmt.Errorf("view of %s: %w", p.id, err)
	}
	if v.protocols, err = bus.Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return nil, fmt.Errorf("view of %s: %w", p.id, err)
	}
	return v, nil
}

// up and down tell the subscribers what already is; Peer.transition is held.
// Emit fails only when closed.
func (v *view) up(id peer.ID, via network.Conn) {
	v.net.notify(func(n network.Notifiee) { n.Connected(v.net, via) })
	_ = v.connectedness.Emit(event.EvtPeerConnectednessChanged{Peer: id, Connectedness: network.Connected})
	// There is no identify: say that it speaks gossipsub and let it refuse.
	_ = v.protocols.Emit(event.EvtPeerProtocolsUpdated{Peer: id, Added: pubsub.GossipSubDefaultProtocols})
}

func (v *view) down(id peer.ID, via network.Conn) {
	v.net.notify(func(n network.Notifiee) { n.Disconnected(v.net, via) })
	_ = v.connectedness.Emit(event.EvtPeerConnectednessChanged{Peer: id, Connectedness: network.NotConnected})
}

// Connect succeeds for authorised peers and never dials.
func (v *view) Connect(_ context.Context, ai peer.AddrInfo) error {
	if !v.p.IsAuthorised(ai.ID) {
		return network.ErrNoConn
	}
	return nil
}

// NewStream opens a stream to an authorised peer.
func (v *view) NewStream(ctx context.Context, id peer.ID, protos ...protocol.ID) (network.Stream, error) {
	return v.p.openAuthorised(ctx, id, protos...)
}

// Addrs are the Space's addresses.
func (v *view) Addrs() []ma.Multiaddr { return v.p.Addrs() }

// gatedNetwork is the network of a view.
type gatedNetwork struct {
	p *Peer

	mu          sync.Mutex
	subscribers map[network.Notifiee]struct{} // guarded by mu
}

var _ network.Network = (*gatedNetwork)(nil)

func (g *gatedNetwork) notify(f func(network.Notifiee)) {
	g.mu.Lock()
	all := make([]network.Notifiee, 0, len(g.subscribers))
	for n := range g.subscribers {
		all = append(all, n)
	}
	g.mu.Unlock()
	for _, n := range all {
		f(n)
	}
}

// Notify and StopNotify keep the view's own subscribers.
func (g *gatedNetwork) Notify(n network.Notifiee) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.subscribers[n] = struct{}{}
}

func (g *gatedNetwork) StopNotify(n network.Notifiee) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.subscribers, n)
}

func (g *gatedNetwork) Connectedness(id peer.ID) network.Connectedness {
	if g.p.IsAuthorised(id) {
		return network.Connected
	}
	return network.NotConnected
}

func (g *gatedNetwork) Peers() []peer.ID { return g.p.Authorised() }

func (g *gatedNetwork) Conns() []network.Conn {
	var all []network.Conn
	for _, id := range g.p.Authorised() {
		all = append(all, g.ConnsToPeer(id)...)
	}
	return all
}

func (g *gatedNetwork) ConnsToPeer(id peer.ID) []network.Conn {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	s := g.p.sessions[id]
	if s == nil || s.state != isAuthorised {
		return nil
	}
	conns := make([]network.Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// DialPeer returns a connection that is there; a view never dials.
func (g *gatedNetwork) DialPeer(_ context.Context, id peer.ID) (network.Conn, error) {
	if conns := g.ConnsToPeer(id); len(conns) > 0 {
		return conns[0], nil
	}
	return nil, network.ErrNoConn
}

// ClosePeer closes the connections of an authorised peer.
func (g *gatedNetwork) ClosePeer(id peer.ID) error {
	closeAll(g.ConnsToPeer(id))
	return nil
}

// NewStream would skip protocol negotiation and so the gate of it.
func (g *gatedNetwork) NewStream(context.Context, peer.ID) (network.Stream, error) {
	return nil, network.ErrNoConn
}

// SetStreamHandler does nothing: Peer.inbound chooses the multiplexer.
func (g *gatedNetwork) SetStreamHandler(network.StreamHandler) {}

func (g *gatedNetwork) Listen(...ma.Multiaddr) error {
	return fmt.Errorf("a view does not listen: %w", ErrInvalid)
}

func (g *gatedNetwork) CanDial(peer.ID, ma.Multiaddr) bool                { return false }
func (g *gatedNetwork) ListenAddresses() []ma.Multiaddr                   { return nil }
func (g *gatedNetwork) InterfaceListenAddresses() ([]ma.Multiaddr, error) { return nil, nil }
func (g *gatedNetwork) ResourceManager() network.ResourceManager          { return g.p.front.limits }
func (g *gatedNetwork) Peerstore() peerstore.Peerstore                    { return g.p.store }
func (g *gatedNetwork) LocalPeer() peer.ID                                { return g.p.id }
func (g *gatedNetwork) Close() error                                      { return nil }
