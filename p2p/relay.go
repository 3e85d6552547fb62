package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"
)

// stopProtocol is the half of circuit v2 between a relay and the node behind it.
const stopProtocol = "/libp2p/circuit/relay/0.2.0/stop"

// circuits are the connections between other fronts that pass through this
// one. There are no reservations: who is connected and shares a Space with the
// caller on this node, both authorised, can be reached. Nobody else gets
// another answer than for a Space peer that is not here.
type circuits struct {
	slots   chan struct{}
	asked   *rates
	running sync.WaitGroup // Add under Front.mu while not closed

	mu   sync.Mutex
	each map[peer.ID]int // guarded by mu; circuits that a front asked for
}

func newCircuits() *circuits {
	return &circuits{asked: newRates(wakePerSecond, wakeBurst), slots: make(chan struct{}, maxCircuits), each: map[peer.ID]int{}}
}

// enter reserves a circuit; leave gives it back, once.
func (c *circuits) enter(src peer.ID) (leave func(), ok bool) {
	select {
	case c.slots <- struct{}{}:
	default:
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.each[src] >= circuitsPerFront {
		<-c.slots
		return nil, false
	}
	c.each[src]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.each[src]--; c.each[src] == 0 {
			delete(c.each, src)
		}
		<-c.slots
	}), true
}

// fronts are those over which this Space's authorised peers are connected.
func (p *Peer) fronts() (out []peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, s := range p.conns {
		if s.state != isAuthorised {
			continue
		}
		relay, _ := splitCircuit(rawOf(c).remote)
		if front, err := frontOf(relay); err == nil && front.ID != p.front.ID() && !slices.Contains(out, front.ID) {
			out = append(out, front.ID)
		}
	}
	return out
}

// Route says how an authorised peer is connected: by which address its node is reached, and whether other nodes relay what
// is said.
func (p *Peer) Route(id peer.ID) (addr ma.Multiaddr, relayed, ok bool) {
	front := p.frontOfPeer(id)
	if front == "" {
		return nil, false, false
	}
	for _, c := range p.front.host.Network().ConnsToPeer(front) {
		if addr, relayed, ok = c.RemoteMultiaddr(), isRelayed(c), true; !relayed {
			break
		}
	}
	return addr, relayed, ok
}

// Home is the node of an authorised peer, "" when it is not connected. Both proved who they are; a node that passes on what
// another peer says is taken for that one's.
func (p *Peer) Home(id peer.ID) peer.ID { return p.frontOfPeer(id) }

// frontOfPeer is the front of an authorised peer, "" when it is not connected.
func (p *Peer) frontOfPeer(id peer.ID) peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	if s == nil || s.state != isAuthorised {
		return ""
	}
	for c := range s.conns {
		relay, _ := splitCircuit(rawOf(c).remote)
		if front, err := frontOf(relay); err == nil && front.ID != p.front.ID() {
			return front.ID
		}
	}
	return ""
}

// share says whether two fronts are those of authorised peers of one Space.
func (f *Front) share(a, b peer.ID) bool {
	for _, p := range f.open() {
		if fronts := p.fronts(); slices.Contains(fronts, a) && slices.Contains(fronts, b) {
			return true
		}
	}
	return false
}

// partner says whether a front is that of an authorised peer of any Space.
func (f *Front) partner(id peer.ID) bool {
	return slices.Contains(f.partners(), id)
}

// open are the open Space peers.
func (f *Front) open() []*Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*Peer, 0, len(f.peers))
	for _, p := range f.peers {
		all = append(all, p)
	}
	return all
}

// relay serves a CONNECT that names another front, if it may. It reports
// whether it took the stream over.
func (f *Front) relay(ctx context.Context, s network.Stream, dst peer.ID) bool {
	src := s.Conn().RemotePeer()
	if _, rest := splitCircuit(s.Conn().RemoteMultiaddr()); f.circuits == nil || len(rest) > 0 {
		return false // one relay on a way is enough
	}
	if f.host.Network().Connectedness(dst) != network.Connected ||
		!f.circuits.asked.allow(string(src)) || !f.share(src, dst) && !f.sharedBy(ctx, src, dst) {
		return false
	}
	leave, ok := f.circuits.enter(src)
	if !ok {
		return false
	}
	there, err := f.stop(ctx, src, dst)
	if err != nil {
		leave()
		f.log.DebugContext(ctx, "no circuit", "node", src, "to", dst, "error", err)
		return false
	}
	if err := hopStatus(s, pb.Status_OK); err != nil {
		leave()
		_ = there.Reset()
		_ = s.Reset()
		return true
	}
	_ = s.SetDeadline(time.Time{})
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		leave()
		_ = there.Reset()
		_ = s.Reset()
		return true
	}
	f.circuits.running.Add(1)
	f.mu.Unlock()
	go func() {
		defer f.circuits.running.Done()
		defer leave()
		splice(s, there)
	}()
	return true
}

// stop asks the front behind this one to take a connection of src.
func (f *Front) stop(ctx context.Context, src, dst peer.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "circuit"), hopTimeout)
	defer cancel()
	s, err := f.host.NewStream(ctx, dst, stopProtocol)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(hopTimeout))
	req := pb.StopMessage{Type: pb.StopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: src})}
	err = util.NewDelimitedWriter(s).WriteMsg(&req)
	var rep pb.StopMessage
	if err == nil {
		rd := util.NewDelimitedReader(s, hopMessage)
		defer rd.Close()
		err = rd.ReadMsg(&rep)
	}
	if err == nil && (rep.GetType() != pb.StopMessage_STATUS || rep.GetStatus() != pb.Status_OK) {
		err = fmt.Errorf("circuit refused (%s): %w", rep.GetStatus(), ErrUnreachable)
	}
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	_ = s.SetDeadline(time.Time{})
	return s, nil
}

// splice copies both ways until both ended or one failed.
func splice(a, b network.Stream) {
	var wg sync.WaitGroup
	pass := func(to, from network.Stream) {
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, circuitBuffer))
		if err = errors.Join(err, to.CloseWrite()); err != nil {
			_ = a.Reset()
			_ = b.Reset()
		}
	}
	wg.Go(func() { pass(a, b) })
	wg.Go(func() { pass(b, a) })
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

// through tells the front's peerstore that other fronts can be reached by way
// of those that hosts of the same Space are connected over.
func (p *Peer) through(fronts []peer.ID) {
	if p.front.circuits == nil && p.front.link == nil {
		return
	}
	for _, relay := range p.fronts() {
		for _, id := range fronts {
			if id != relay && id != p.front.ID() {
				p.front.host.Peerstore().AddAddrs(id, []ma.Multiaddr{throughFront(relay)}, peerstore.TempAddrTTL)
			}
		}
	}
}

// gate lets connections over a relay in only when that is the front of an
// authorised host: others would get around the limits per address.
type gate struct{ partner func(peer.ID) bool }

var _ connmgr.ConnectionGater = gate{}

func (g gate) InterceptAccept(c network.ConnMultiaddrs) bool {
	relay, rest := splitCircuit(c.RemoteMultiaddr())
	if len(rest) == 0 {
		return true
	}
	front, err := frontOf(relay)
	return err == nil && g.partner(front.ID)
}

func (gate) InterceptPeerDial(peer.ID) bool { return true }

func (gate) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

func (gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return true }

func (gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// Reachability says whether the front's addresses on the internet were found to be reached from there: public or private,
// and unknown while no other node has tried.
func (f *Front) Reachability() string {
	h, ok := f.host.(interface {
		ConfirmedAddrs() (reachable, unreachable, unknown []ma.Multiaddr)
	})
	if !ok {
		return "unknown"
	}
	switch reachable, unreachable, _ := h.ConfirmedAddrs(); {
	case len(reachable) > 0:
		return "public"
	case len(unreachable) > 0:
		return "private"
	}
	return "unknown"
}
