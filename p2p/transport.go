package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// spaceTransport is the only transport of a Space's swarm: it dials through
// the front and accepts what the front hands it.
type spaceTransport struct {
	front    *Front
	upgrader transport.Upgrader
	in       chan manet.Conn
	slots    chan struct{} // one per unfinished inbound handshake
	closed   chan struct{}
	close    func()
}

var (
	_ transport.Transport    = (*spaceTransport)(nil)
	_ transport.SkipResolver = (*spaceTransport)(nil)
)

func newTransport(f *Front, key crypto.PrivKey) (*spaceTransport, error) {
	mux := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: spaceMuxer()}}
	nz, err := noise.New(noise.ID, key, mux)
	if err != nil {
		return nil, fmt.Errorf("noise: %w", err)
	}
	up, err := upgrader.New([]sec.SecureTransport{nz}, mux, nil, f.limits, nil, upgrader.WithAcceptTimeout(hopTimeout))
	if err != nil {
		return nil, fmt.Errorf("upgrader: %w", err)
	}
	closed := make(chan struct{})
	return &spaceTransport{
		front: f, upgrader: up,
		in: make(chan manet.Conn), slots: make(chan struct{}, handshakes),
		closed: closed, close: sync.OnceFunc(func() { close(closed) }),
	}, nil
}

// slot reserves room for one inbound handshake; release gives it back, once.
func (t *spaceTransport) slot() (release func(), ok bool) {
	select {
	case t.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-t.slots }), true
	default:
		return nil, false
	}
}

// deliver hands an inbound connection to the swarm.
func (t *spaceTransport) deliver(c *rawConn) bool {
	timer := time.NewTimer(hopTimeout)
	defer timer.Stop()
	select {
	case t.in <- c:
		return true
	case <-t.closed:
		return false
	case <-timer.C:
		return false
	}
}

// Dial reaches p through the front named in raddr, /p2p/<front>/p2p-circuit.
func (t *spaceTransport) Dial(ctx context.Context, raddr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	relay, _ := splitCircuit(raddr)
	front, err := frontOf(relay)
	if err != nil {
		return nil, err
	}
	scope, err := t.front.limits.OpenConnection(network.DirOutbound, false, raddr)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w: %w", p, ErrBusy, err)
	}
	if err := scope.SetPeer(p); err != nil {
		scope.Done()
		return nil, fmt.Errorf("connection to %s: %w: %w", p, ErrBusy, err)
	}
	c, err := t.dialRaw(ctx, front.ID, p)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return t.upgrader.Upgrade(ctx, t, c, network.DirOutbound, p, scope)
}

func (t *spaceTransport) dialRaw(ctx context.Context, front, p peer.ID) (manet.Conn, error) {
	if front == t.front.ID() {
		return t.dialLocal(ctx, p)
	}
	s, err := t.front.openHop(ctx, front, p)
	if err != nil {
		return nil, err
	}
	return eager(newRawConn(s, throughFront(front), s.Reset, t.front.hold(front))), nil
}

// dialLocal connects to a Space peer of this very process.
func (t *spaceTransport) dialLocal(ctx context.Context, p peer.ID) (manet.Conn, error) {
	dst := t.front.find(ctx, Caller{t.front.ID(), string(t.front.ID())}, p)
	if dst == nil {
		return nil, fmt.Errorf("no space peer %s here: %w", p, ErrUnreachable)
	}
	slot, ok := dst.transport.slot()
	if !ok {
		return nil, fmt.Errorf("space peer %s: %w", p, ErrBusy)
	}
	here, there := net.Pipe()
	via := throughFront(t.front.ID())
	in := newRawConn(there, via, there.Close, slot)
	in.secured = slot
	if !dst.transport.deliver(in) {
		return nil, errors.Join(fmt.Errorf("space peer %s: %w", p, ErrUnreachable), in.Close(), here.Close())
	}
	return newRawConn(here, via, here.Close, nil), nil
}

// Listen is called once, with /p2p-circuit.
func (t *spaceTransport) Listen(ma.Multiaddr) (transport.Listener, error) {
	l := t.upgrader.UpgradeGatedMaListener(t, t.upgrader.GateMaListener(&spaceListener{t}))
	return &upgradedListener{l, t}, nil
}

func (t *spaceTransport) CanDial(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// SkipResolve leaves names to the front, which does the dialing.
func (t *spaceTransport) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

// Protocols makes the swarm use this transport for circuit addresses.
func (t *spaceTransport) Protocols() []int { return []int{ma.P_CIRCUIT} }

// Proxy says that connections run over other connections.
func (t *spaceTransport) Proxy() bool { return true }

type spaceListener struct{ t *spaceTransport }

func (l *spaceListener) Accept() (manet.Conn, error) {
	select {
	case c := <-l.t.in:
		return c, nil
	case <-l.t.closed:
		return nil, transport.ErrListenerClosed
	}
}

func (l *spaceListener) Close() error            { l.t.close(); return nil }
func (l *spaceListener) Multiaddr() ma.Multiaddr { return circuitAddr() }
func (l *spaceListener) Addr() net.Addr          { return rawAddr("/p2p-circuit") }

// upgradedListener gives the swarm the one error it takes for an orderly end.
type upgradedListener struct {
	transport.Listener
	t *spaceTransport
}

func (l *upgradedListener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err != nil && closed(l.t.closed) {
		return nil, transport.ErrListenerClosed
	}
	return c, err
}

// rawConn is a Space connection before noise: a stream of the front, or a
// pipe. It counts what is read until its peer is authorised.
type rawConn struct {
	duplex
	remote  ma.Multiaddr
	close   func() error // once
	secured func()       // called when the connection is known; may be nil

	free   atomic.Bool  // authorised: no budget any more
	budget atomic.Int64 // bytes that may still be read in probation
}

// duplex is what a libp2p stream and a net.Conn have in common.
type duplex interface {
	io.ReadWriter
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

func newRawConn(d duplex, remote ma.Multiaddr, shut func() error, closed func()) *rawConn {
	c := &rawConn{duplex: d, remote: remote}
	c.budget.Store(ProbationBytes)
	c.close = sync.OnceValue(func() error {
		if closed != nil {
			closed()
		}
		return shut()
	})
	return c
}

// Read fails once the budget is used up, which ends the connection. Counting
// below noise bounds also what the multiplexer would buffer unread.
func (c *rawConn) Read(b []byte) (int, error) {
	if c.free.Load() {
		return c.duplex.Read(b)
	}
	left := c.budget.Load()
	if left <= 0 {
		return 0, fmt.Errorf("%d bytes in probation: %w", ProbationBytes, ErrNotAuthorised)
	}
	n, err := c.duplex.Read(b[:min(int64(len(b)), left)])
	c.budget.Add(-int64(n))
	return n, err
}

func (c *rawConn) Close() error                  { return c.close() }
func (c *rawConn) LocalAddr() net.Addr           { return rawAddr("/p2p-circuit") }
func (c *rawConn) RemoteAddr() net.Addr          { return rawAddr(c.remote.String()) }
func (c *rawConn) LocalMultiaddr() ma.Multiaddr  { return circuitAddr() }
func (c *rawConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

type rawKey struct{}

// Stat carries the rawConn through the upgrader to the swarm's connection.
func (c *rawConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Extra: map[any]any{rawKey{}: c}}}
}

// rawOf finds the rawConn below a connection of a Space's swarm.
func rawOf(c network.Conn) *rawConn {
	r, _ := c.Stat().Extra[rawKey{}].(*rawConn)
	return r
}

type rawAddr string

func (rawAddr) Network() string  { return "space" }
func (a rawAddr) String() string { return string(a) }
