package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Options of a [Front]. Key is required; everything else has a zero value that
// works.
type Options struct {
	Key      ed25519.PrivateKey // of the node
	Listen   []ma.Multiaddr     // TCP and QUIC addresses, port 0 allowed; none: dial only
	Announce []ma.Multiaddr     // what Addrs says instead of the listen addresses

	// Process is what other processes of the node prove to know, see [Front.ServeProcesses] and [Linked]. Nil: there are none.
	Process ed25519.PrivateKey

	// Wake is asked when a CONNECT names a Space peer that is not open. It may
	// Open it and return true, or return false. It is called from several
	// goroutines, at most once at a time for a Space peer and a front, and
	// limited in rate per origin, so it may look into a database.
	Wake func(ctx context.Context, space peer.ID, by Caller) bool
	// Known reports whether a Space peer may be woken: of others Wake is not
	// asked, and nothing is counted. It must not block. Nil: each may.
	Known func(space peer.ID) bool

	// Admits says with which fronts Space peers may be connected; with others there is no CONNECT in either direction.
	// It must not block. What it says may change, see [Front.Recheck]. Nil: all.
	Admits func(front peer.ID) bool

	// NAT is for a node that others may not reach: it finds out its addresses
	// outside (AutoNAT v2, identify), asks the router for a port (UPnP, NAT-PMP),
	// reaches other fronts, and is reached, through those of hosts of the same
	// Space, and then tries to connect to them directly (DCUtR, over QUIC). It
	// is such a way for others, too.
	NAT bool

	// Refused is told of everybody who was refused: by the front for a CONNECT
	// ("circuit"), or by a Space peer for a connection ("connection") or a stream
	// ("stream"). It must not block. Nil: nobody is told.
	Refused func(layer string)

	// Lost is told of a front with which no connection is left. It must not block. Nil: nobody is told.
	Lost func(front peer.ID)

	DHT   bool            // kad-dht under /tinycloud without values; off unless asked for
	Seeds []peer.AddrInfo // fronts to begin with while the DHT knows no other
	Log   *slog.Logger
}

// Front is the host of the node key: the process's only listeners, and the way
// in and out for every [Peer] opened on it. Its methods may be called from
// several goroutines.
type Front struct {
	id      peer.ID
	host    host.Host
	swarm   *swarm.Swarm
	dht     *dht.IpfsDHT // nil when off
	limits  network.ResourceManager
	books   books
	waker   *waker
	log     *slog.Logger
	refused func(layer string)
	admits  func(front peer.ID) bool
	lost    func(front peer.ID) // may be nil

	circuits *circuits // nil without Options.NAT
	puncher  *puncher  // nil without Options.NAT

	link      *link                     // to the process that has the front; nil when this one has it
	processes atomic.Pointer[processes] // nil without [Front.ServeProcesses]

	running sync.WaitGroup // handlers of [Front.Handle] and the puncher; Add under mu while not closed
	passing sync.WaitGroup // streams between processes, which end when the host is closed; Add under mu while not closed

	mu     sync.Mutex
	closed bool              // guarded by mu
	ends   []func()          // guarded by mu; they end the contexts of handlers
	peers  map[peer.ID]*Peer // guarded by mu; open Space peers
	held   map[peer.ID]int   // guarded by mu; Space connections over a remote front
}

// New makes a front that listens and dials. Its Space peers can be reached when it is started. The caller closes it.
func New(o Options) (_ *Front, err error) {
	key, err := privateKey(o.Key)
	if err != nil {
		return nil, err
	}
	f, err := newFront(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	var nat []libp2p.Option
	if o.NAT {
		f.circuits = newCircuits()
		nat = f.natOptions(o.Listen)
	}
	var process []peer.ID
	if o.Process != nil {
		process = []peer.ID{processID(o.Process)}
	}
	if err := f.startHost(key, o, nat, process...); err != nil {
		return nil, err
	}
	if o.DHT {
		if f.dht, err = newDHT(f.host, o.Seeds); err != nil {
			return nil, err
		}
	}
	f.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if n.Connectedness(c.RemotePeer()) != network.Connected && !f.isProcess(c.RemotePeer()) {
			f.lostFront(c.RemotePeer())
		}
	}})
	if o.NAT {
		f.puncher = newPuncher(f)
	}
	return f, nil
}

// newFront makes what a front has whether or not it listens. The caller closes it also when what follows fails.
func newFront(o Options) (f *Front, err error) {
	f = &Front{log: o.Log, refused: o.Refused, admits: o.Admits, lost: o.Lost, peers: map[peer.ID]*Peer{}, held: map[peer.ID]int{}}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.refused == nil {
		f.refused = func(string) {}
	}
	if f.admits == nil {
		f.admits = func(peer.ID) bool { return true }
	}
	f.waker = newWaker(o.Wake, o.Known)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	key, err := privateKey(o.Key)
	if err != nil {
		return f, err
	}
	if f.id, err = peer.IDFromPrivateKey(key); err != nil {
		return f, fmt.Errorf("private key: %w", ErrInvalid)
	}
	if f.books, err = newBooks(); err != nil {
		return f, err
	}
	f.limits, err = spaceLimits()
	return f, err
}

// startHost has the front dial and, if o says so, listen. Some peers may have as many streams as all together.
func (f *Front) startHost(key crypto.PrivKey, o Options, nat []libp2p.Option, busy ...peer.ID) (err error) {
	if f.host, err = frontHost(key, o, nat, busy); err != nil {
		return err
	}
	f.swarm, _ = f.host.Network().(*swarm.Swarm)
	if f.swarm == nil {
		return fmt.Errorf("front network is a %T: %w", f.host.Network(), ErrInvalid)
	}
	return nil
}

// Start lets remotes in to the Space peers and, with [Options].NAT, makes the front reachable. It is called once; what
// it starts ends with Close, which may come first. Of ctx only the values count.
func (f *Front) Start(ctx context.Context) {
	life, ok := f.life(ctx)
	if !ok || f.link != nil {
		return
	}
	f.host.SetStreamHandler(hopProtocol, func(s network.Stream) { f.handleHop(life, s) })
	if f.puncher == nil || !f.enter() {
		return
	}
	go func() {
		defer f.running.Done()
		f.puncher.run(life)
	}()
}

// life returns a context that ends with Close, false when the front is closed.
func (f *Front) life(ctx context.Context) (context.Context, bool) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		end()
		return nil, false
	}
	f.ends = append(f.ends, end)
	return life, true
}

// natOptions are those of [Options].NAT. Nobody is asked to map a port on loopback.
func (f *Front) natOptions(listen []ma.Multiaddr) []libp2p.Option {
	opts := []libp2p.Option{
		libp2p.EnableRelay(), libp2p.ConnectionGater(gate{f.partner}), libp2p.EnableAutoNATv2(),
	}
	if slices.ContainsFunc(listen, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) }) {
		opts = append(opts, libp2p.NATPortMap())
	}
	return opts
}

func frontHost(key crypto.PrivKey, o Options, nat []libp2p.Option, busy []peer.ID) (host.Host, error) {
	limits, err := frontLimits(busy)
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(maxNodes/2, maxNodes, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	announce := slices.Clone(o.Announce)
	if nat == nil {
		nat = []libp2p.Option{libp2p.DisableRelay(), libp2p.DisableIdentifyAddressDiscovery()}
	}
	h, err := libp2p.New(append(nat,
		libp2p.Identity(key), libp2p.NoListenAddrs,
		libp2p.Transport(newTCP), libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, frontMuxer()),
		libp2p.ResourceManager(limits), libp2p.ConnectionManager(conns),
		libp2p.DisableMetrics(),
		libp2p.Ping(false), libp2p.UserAgent("tinycloud-peer"), libp2p.SwarmOpts(swarm.WithDialRanker(tcpFirst)),
		libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
			if len(announce) > 0 {
				return slices.Clone(announce)
			}
			return addrs
		}),
	)...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("front host: %w", err), conns.Close(), limits.Close())
	}
	// Not by an option: when that fails, goroutines stay behind.
	if len(o.Listen) > 0 {
		if err := h.Network().Listen(o.Listen...); err != nil {
			return nil, errors.Join(fmt.Errorf("listen: %w", err), h.Close())
		}
	}
	return h, nil
}

// newTCP is TCP whose dialer does not wait for agreement on noise. Dialing from the listening port would let two nodes
// that dial each other at once meet in one TCP connection with two clients.
func newTCP(u transport.Upgrader, limits network.ResourceManager, shared *tcpreuse.ConnMgr) (*tcp.TcpTransport, error) {
	return tcp.NewTCPTransport(eagerUpgrader{u}, limits, shared, tcp.DisableReuseport())
}

// tcpFirst dials QUIC only when TCP has not answered: QUIC caps the streams of
// a connection at 256, and every Space between two nodes is one stream.
func tcpFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	const head = 500 * time.Millisecond
	var first, rest []ma.Multiaddr
	for _, a := range addrs {
		if isTCP(a) {
			first = append(first, a)
		} else {
			rest = append(rest, a)
		}
	}
	ranked := swarm.DefaultDialRanker(first)
	var delay time.Duration
	for _, r := range ranked {
		delay = max(delay, r.Delay+head)
	}
	for _, r := range swarm.DefaultDialRanker(rest) {
		ranked = append(ranked, network.AddrDelay{Addr: r.Addr, Delay: r.Delay + delay})
	}
	return ranked
}

func isTCP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil
}

// Close closes every Space peer and the listeners. It waits for their
// callbacks, so it must not be called from one.
func (f *Front) Close() error {
	f.mu.Lock()
	f.closed = true
	ends := f.ends
	peers := make([]*Peer, 0, len(f.peers))
	for _, p := range f.peers {
		peers = append(peers, p)
	}
	f.mu.Unlock()
	for _, end := range ends {
		end()
	}
	f.running.Wait()
	var wg sync.WaitGroup
	errs := make([]error, len(peers))
	for i, p := range peers {
		wg.Go(func() { errs[i] = p.Close() })
	}
	wg.Wait()
	if f.dht != nil {
		errs = append(errs, f.dht.Close())
	}
	if f.host != nil {
		errs = append(errs, f.host.Close())
	}
	f.passing.Wait()
	if f.circuits != nil {
		f.circuits.running.Wait()
	}
	if f.limits != nil {
		errs = append(errs, f.limits.Close())
	}
	errs = append(errs, f.books.Close())
	return errors.Join(errs...)
}

// ID is the peer ID of the node key.
func (f *Front) ID() peer.ID { return f.id }

// Host is the node's own libp2p host, for protocols between nodes. Protocols
// registered on it are listed to anyone; they must say nothing about Spaces.
func (f *Front) Host() host.Host { return f.host }

// ListenAddrs are the addresses at which the front listens on this machine, whatever it announces; each ends in
// /p2p/<front>.
func (f *Front) ListenAddrs() ([]ma.Multiaddr, error) {
	addrs, err := f.host.Network().InterfaceListenAddresses()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	out := make([]ma.Multiaddr, len(addrs))
	for i, a := range addrs {
		out[i] = withPeer(a, f.id)
	}
	return out, nil
}

// Addrs are the addresses of the front, each ending in /p2p/<front>, TCP first.
func (f *Front) Addrs() []ma.Multiaddr {
	if f.link != nil {
		return f.link.frontAddrs()
	}
	addrs := f.host.Addrs()
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int {
		switch {
		case isTCP(a) == isTCP(b):
			return 0
		case isTCP(a):
			return -1
		}
		return 1
	})
	for i, a := range addrs {
		if _, id := peer.SplitAddr(a); id == "" {
			addrs[i] = withPeer(a, f.ID())
		}
	}
	return addrs
}

// SpaceAddrs are the addresses of a Space peer on this front,
// <front address>/p2p/<front>/p2p-circuit/p2p/<space>, open or not.
func (f *Front) SpaceAddrs(space peer.ID) []ma.Multiaddr {
	addrs := f.Addrs()
	for i, a := range addrs {
		addrs[i] = withPeer(a.Encapsulate(circuitAddr()), space)
	}
	return addrs
}

// lookup returns the open Space peer, or nil.
func (f *Front) lookup(space peer.ID) *Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peers[space]
}

func (f *Front) register(p *Peer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("front: %w", ErrClosed)
	}
	if _, ok := f.peers[p.id]; ok {
		return fmt.Errorf("space peer %s: %w", p.id, ErrExists)
	}
	f.peers[p.id] = p
	return nil
}

func (f *Front) unregister(p *Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers[p.id] == p {
		delete(f.peers, p.id)
	}
}

// Keep keeps the connection with a front although no Space needs it, until the result is called. It reports false,
// and keeps nothing, when there is none, or none but through a relay.
func (f *Front) Keep(front peer.ID) (release func(), ok bool) {
	if f.link != nil {
		return f.link.keep(front)
	}
	release = f.hold(front)
	for _, c := range f.swarm.ConnsToPeer(front) {
		if _, rest := splitCircuit(c.RemoteMultiaddr()); len(rest) == 0 && !c.IsClosed() {
			return release, true
		}
	}
	release()
	return nil, false
}

// hold keeps the connection manager from trimming the connection to a front
// while a Space connection runs over it. The result undoes it, once.
func (f *Front) hold(front peer.ID) func() {
	const tag = "space"
	if f.link != nil { // the process that has the front does
		return func() {}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[front]++; f.held[front] == 1 {
		f.host.ConnManager().Protect(front, tag)
	}
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.held[front]--; f.held[front] == 0 {
			delete(f.held, front)
			f.host.ConnManager().Unprotect(front, tag)
		}
	})
}

func privateKey(k ed25519.PrivateKey) (crypto.PrivKey, error) {
	if len(k) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("private key of %d bytes: %w", len(k), ErrInvalid)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", ErrInvalid)
	}
	return key, nil
}
