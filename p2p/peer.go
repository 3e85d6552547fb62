package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// PeerOptions of a [Peer]. Key is required; without Hello nobody that dials
// this Space can ever be authorised by it.
type PeerOptions struct {
	Key ed25519.PrivateKey // of the Space

	// HelloProtocols, versions of one handshake, are all that a peer in
	// probation may open, and Hello their handler, to which the stream tells
	// the version. ctx ends with the connection; while the peer is in probation
	// the stream has a deadline. At most a few run at once per peer.
	HelloProtocols []protocol.ID
	Hello          func(ctx context.Context, s network.Stream)

	// Connected says that a peer's first connection is secured; the peer is in
	// probation. dir is DirOutbound for whoever should open the hello stream:
	// the dialer, and both sides when they dialed at the same time.
	// Disconnected says that its last connection is gone; it comes once for
	// every Connected, after Connected returned. Each has a goroutine.
	Connected    func(p peer.ID, dir network.Direction)
	Disconnected func(p peer.ID)

	ProbationTimeout time.Duration // default 10 s
	MaxPeers         int           // default 64; probation included

	// Blocks is what bitswap serves; nil: no bitswap at all.
	Blocks blockstore.Blockstore
	// AllowBlock says whether an authorised peer may be told about, and given,
	// a block; nil: every block in Blocks. A refused block looks absent. It is
	// called for each want and must be quick.
	AllowBlock func(p peer.ID, c cid.Cid) bool

	// BlockBytes is told how many bytes of blocks came and went; nil: nobody.
	BlockBytes func(in, out int)

	Log *slog.Logger
}

// Peer is one Space's presence: its own identity, reached through the front.
// Its methods may be called from several goroutines.
type Peer struct {
	id        peer.ID
	front     *Front
	o         PeerOptions
	log       *slog.Logger
	swarm     *swarm.Swarm
	store     peerstore.Peerstore
	transport *spaceTransport
	probation *multistream.MultistreamMuxer[protocol.ID] // knows hello only
	view      *view
	pubsub    *pubsub.PubSub
	topics    *topicFilter
	exchange  *exchange // nil without Blocks
	stop      context.CancelFunc
	close     func() error

	// transition orders the changes of the view: it is held from a change of
	// a session's state until the view's subscribers heard of it. Taken
	// before mu.
	transition sync.Mutex

	mu       sync.Mutex
	closed   bool                      // guarded by mu
	sessions map[peer.ID]*session      // guarded by mu; the current one of each peer
	latest   map[peer.ID]*session      // guarded by mu; the one whose callbacks run last
	conns    map[network.Conn]*session // guarded by mu
	dialing  map[peer.ID]*attempt      // guarded by mu; Connect calls under way
	arriving map[peer.ID]int           // guarded by mu; inbound connections not secured yet, by front
	settled  chan struct{}             // guarded by mu; closed, and another, when one of dialing or arriving ends

	running sync.WaitGroup // callbacks and stream handlers; Add under mu while not closed
}

// Open starts the presence of one Space. The caller closes it; closing the
// front does so too.
func (f *Front) Open(ctx context.Context, o PeerOptions) (_ *Peer, err error) {
	key, err := privateKey(o.Key)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", ErrInvalid)
	}
	if o.Hello != nil && len(o.HelloProtocols) == 0 {
		return nil, fmt.Errorf("no hello protocol: %w", ErrInvalid)
	}
	if o.ProbationTimeout <= 0 {
		o.ProbationTimeout = defaultProbation
	}
	if o.BlockBytes == nil {
		o.BlockBytes = func(int, int) {}
	}
	if o.MaxPeers <= 0 {
		o.MaxPeers = defaultMaxPeers
	}
	p := &Peer{
		id: id, front: f, o: o, log: o.Log,
		probation: multistream.NewMultistreamMuxer[protocol.ID](),
		sessions:  map[peer.ID]*session{},
		latest:    map[peer.ID]*session{},
		conns:     map[network.Conn]*session{},
		dialing:   map[peer.ID]*attempt{},
		arriving:  map[peer.ID]int{},
		settled:   make(chan struct{}),
	}
	if p.log == nil {
		p.log = f.log
	}
	p.close = sync.OnceValue(p.shutdown)
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.start(life, key); err != nil {
		return nil, err
	}
	if err := f.register(p); err != nil {
		return nil, err
	}
	return p, nil
}

// start builds the swarm, the view and what runs on the view. ctx lives as
// long as the Peer.
func (p *Peer) start(ctx context.Context, key crypto.PrivKey) error {
	if err := p.startSwarm(key); err != nil {
		return err
	}
	var err error
	if p.view, err = newView(p); err != nil {
		return err
	}
	if p.o.Hello != nil {
		hello := func(proto protocol.ID, rwc io.ReadWriteCloser) error {
			s, ok := rwc.(network.Stream)
			if !ok {
				return rwc.Close()
			}
			p.hello(ctx, s)
			return nil
		}
		for _, version := range p.o.HelloProtocols {
			p.probation.AddHandler(version, hello)
			p.view.Mux().AddHandler(version, hello)
		}
	}
	if p.topics, p.pubsub, err = newPubSub(ctx, p); err != nil {
		return err
	}
	if p.o.Blocks != nil {
		p.exchange = newExchange(ctx, p)
	}
	p.swarm.SetStreamHandler(p.inbound)
	p.swarm.Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { p.connected(ctx, c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { p.disconnected(c) },
	})
	if err := p.swarm.Listen(circuitAddr()); err != nil {
		return fmt.Errorf("space listener: %w", err)
	}
	return nil
}

func (p *Peer) startSwarm(key crypto.PrivKey) error {
	var err error
	p.store = newStore(p.front.books, p.id)
	if err := errors.Join(p.store.AddPrivKey(p.id, key), p.store.AddPubKey(p.id, key.GetPublic())); err != nil {
		return fmt.Errorf("peerstore: %w", err)
	}
	if p.transport, err = newTransport(p.front, key); err != nil {
		return err
	}
	p.swarm, err = swarm.NewSwarm(p.id, p.store, eventbus.NewBus(), swarm.WithResourceManager(p.front.limits))
	if err != nil {
		return fmt.Errorf("swarm: %w", err)
	}
	if err := p.swarm.AddTransport(p.transport); err != nil {
		return fmt.Errorf("swarm: %w", err)
	}
	return nil
}

// Close leaves the network: all connections are closed, Disconnected is called
// for each peer. It waits for callbacks and stream handlers, so it must not be
// called from one. Calling it again returns the same result.
func (p *Peer) Close() error { return p.close() }

func (p *Peer) shutdown() error {
	p.front.unregister(p)
	p.mu.Lock()
	p.closed = true
	p.settleLocked()
	ids := make([]peer.ID, 0, len(p.sessions))
	for id := range p.sessions {
		ids = append(ids, id)
	}
	p.mu.Unlock()
	for _, id := range ids {
		p.Evict(id)
	}
	var errs []error
	if p.exchange != nil {
		errs = append(errs, p.exchange.close())
	}
	p.stop()
	if p.swarm != nil {
		errs = append(errs, p.swarm.Close())
	}
	p.running.Wait()
	if p.view != nil {
		errs = append(errs, p.view.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	return errors.Join(errs...)
}

// ID is the peer ID of the Space key.
func (p *Peer) ID() peer.ID { return p.id }

// Addrs are this Space's addresses, see [Front.SpaceAddrs].
func (p *Peer) Addrs() []ma.Multiaddr { return p.front.SpaceAddrs(p.id) }

// Connect dials the Space peer ai.ID through a front that one of ai.Addrs
// names (as [ParseSpaceAddr] returns them, with or without /p2p/<space> at the
// end) and proves that it holds its key. The peer is in probation then, unless
// it was connected before. Errors: [ErrInvalid] for addresses, [ErrUnreachable],
// [ErrBusy], [ErrClosed], or that of ctx.
func (p *Peer) Connect(ctx context.Context, ai peer.AddrInfo) error {
	if ai.ID == p.id {
		return fmt.Errorf("space peer %s is this one: %w", ai.ID, ErrInvalid)
	}
	if p.Connected(ai.ID) {
		return nil
	}
	fronts, err := p.route(ai)
	if err != nil {
		return err
	}
	end, err := p.reserve(ctx, ai.ID, fronts)
	if end == nil {
		return err
	}
	defer end()
	p.swarm.Backoff().Clear(ai.ID) // when to try again is the caller's decision
	if _, err := p.swarm.DialPeer(ctx, ai.ID); err != nil {
		if p.metHalfway(ctx, ai.ID, fronts) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("space peer %s: %w", ai.ID, ctx.Err())
		}
		if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrBusy) {
			return fmt.Errorf("space peer %s: %w", ai.ID, err)
		}
		return fmt.Errorf("space peer %s: %w: %w", ai.ID, ErrUnreachable, err)
	}
	if !p.metHalfway(ctx, ai.ID, fronts) {
		return fmt.Errorf("space peer %s: closed at once or no room: %w", ai.ID, ErrBusy)
	}
	return nil
}

// route tells both peerstores how to reach ai: the Space through its fronts,
// which it returns, these at their transport addresses.
func (p *Peer) route(ai peer.AddrInfo) (fronts []peer.ID, err error) {
	const maxAddrs = 32
	if len(ai.Addrs) == 0 || len(ai.Addrs) > maxAddrs {
		return nil, fmt.Errorf("space peer %s: %d addresses: %w", ai.ID, len(ai.Addrs), ErrInvalid)
	}
	for _, a := range ai.Addrs {
		relay, rest := splitCircuit(a)
		if len(rest) == 0 {
			return nil, fmt.Errorf("space address %s: no /p2p-circuit in it: %w", a, ErrInvalid)
		}
		if _, id := peer.SplitAddr(a); id != "" && id != ai.ID {
			return nil, fmt.Errorf("space address %s is of another space peer: %w", a, ErrInvalid)
		}
		front, err := frontOf(relay)
		if err != nil {
			return nil, fmt.Errorf("space address %s: %w", a, err)
		}
		if front.ID != p.front.ID() {
			p.front.host.Peerstore().AddAddrs(front.ID, front.Addrs, peerstore.TempAddrTTL)
		}
		if !slices.Contains(fronts, front.ID) {
			fronts = append(fronts, front.ID)
		}
	}
	p.through(fronts)
	for _, id := range fronts {
		p.front.swarm.Backoff().Clear(id)
		p.store.AddAddr(ai.ID, throughFront(id), peerstore.TempAddrTTL)
	}
	return fronts, nil
}

// NewStream opens a stream for the first of protos that the remote speaks; each
// that it does not takes a round trip. Hello protocols work in probation, every
// other one only with an authorised peer ([ErrNotAuthorised]). Because the remote
// side may authorise a moment later, a refused protocol is offered again until
// the remote has shown that it did, ctx ends or the remote's probation must be
// over. Once it has, a stream for one protocol is there at once, and that the
// remote does not speak it is told by the first Read ([ErrNotAuthorised]).
func (p *Peer) NewStream(ctx context.Context, id peer.ID, protos ...protocol.ID) (network.Stream, error) {
	if len(protos) == 0 {
		return nil, fmt.Errorf("stream for no protocol: %w", ErrInvalid)
	}
	if !slices.ContainsFunc(protos, func(proto protocol.ID) bool { return !p.greets(proto) }) {
		s := p.session(id)
		if s == nil {
			return nil, fmt.Errorf("space peer %s: %w", id, ErrNotConnected)
		}
		return p.openStream(ctx, s, protos...)
	}
	if s := p.authorised(id); s != nil && len(protos) == 1 && closed(s.mutual) {
		return p.openLazy(ctx, s, protos[0])
	}
	return p.openAuthorised(ctx, id, protos...)
}

// greets reports whether a protocol is one of the handshake.
func (p *Peer) greets(proto protocol.ID) bool { return slices.Contains(p.o.HelloProtocols, proto) }

// Handle registers the handler of a protocol between authorised peers. Streams
// of other peers never reach it: to them the protocol does not exist.
func (p *Peer) Handle(proto protocol.ID, h func(network.Stream)) {
	p.view.SetStreamHandler(proto, h)
}
