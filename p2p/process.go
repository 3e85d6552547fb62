package p2p

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// ProcessOptions are all required.
type ProcessOptions struct {
	// Deal answers what a process says now and then; one call of a process at a time. Gone says that it is linked no
	// more, once for each that said something.
	Deal func(ctx context.Context, p *Process, said []byte) ([]byte, error)
	Gone func(p *Process)
	// Call answers what a process asks.
	Call func(ctx context.Context, asked []byte) ([]byte, error)
	// Of is the process that has a Space peer which is not open here; nil: none. It must not block.
	Of func(space peer.ID) *Process
}

// Process is another process of this node, whose Space peers are reached through this one's front.
type Process struct {
	conn network.Conn

	mu       sync.Mutex
	lost     []peer.ID // guarded by mu; fronts that are to be told
	partners []peer.ID // guarded by mu; the fronts of its Spaces' authorised peers
}

// Call asks the process something.
func (p *Process) Call(ctx context.Context, body []byte) ([]byte, error) {
	r, err := asked(ctx, p.conn, errand{Kind: errandCall, Body: body})
	return r.Body, err
}

// processes are those that are linked.
type processes struct {
	o  ProcessOptions
	id peer.ID // of all of them

	mu  sync.Mutex
	all map[*Process]struct{} // guarded by mu
}

// said is what a linked process says, and told what it hears.
type (
	said struct {
		Partners []string `json:",omitempty"`
		Body     []byte
	}
	told struct {
		Addrs []string // of the front
		Lost  []string `json:",omitempty"`
		Body  []byte
	}
)

// processID is the name that all other processes of a node have.
func processID(key ed25519.PrivateKey) peer.ID {
	id, _ := PeerIDFromEd25519(key.Public().(ed25519.PublicKey)) // a private key has a public one
	return id
}

// ServeProcesses lets other processes of the node, see [Options].Process, have Space peers that are reached through this
// front. It is called once.
func (f *Front) ServeProcesses(ctx context.Context, key ed25519.PrivateKey, o ProcessOptions) error {
	id := processID(key)
	life, ok := f.life(ctx)
	if !ok {
		return fmt.Errorf("front: %w", ErrClosed)
	}
	x := &processes{o: o, id: id, all: map[*Process]struct{}{}}
	f.processes.Store(x)
	f.host.ConnManager().Protect(id, "process")
	f.host.SetStreamHandler(processProtocol, func(s network.Stream) {
		if s.Conn().RemotePeer() != id || !f.passes() {
			_ = s.Reset()
			return
		}
		defer f.passing.Done()
		f.serveProcess(life, x, s)
	})
	return nil
}

// passes counts a stream that ends when the host is closed, unless that has begun.
func (f *Front) passes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.passing.Add(1)
	return true
}

func (f *Front) serveProcess(ctx context.Context, x *processes, s network.Stream) {
	_ = s.SetDeadline(time.Now().Add(hopTimeout))
	var q errand
	if err := readMessage(s, &q); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.SetDeadline(time.Time{})
	if q.Kind == errandLink {
		x.serveLink(ctx, f, s)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, errandTimeout)
	defer cancel()
	r, then := f.perform(ctx, x, q)
	_ = s.SetWriteDeadline(time.Now().Add(hopTimeout))
	if err := writeMessage(s, r); err != nil {
		_ = s.Reset()
	}
	_ = s.SetWriteDeadline(time.Time{})
	if then != nil {
		cancel()
		then(s)
		return
	}
	_ = s.Close()
}

// perform does what a process asks of the front. then has the stream afterwards.
func (f *Front) perform(ctx context.Context, x *processes, q errand) (r reply, then func(network.Stream)) {
	node := peer.AddrInfo{Addrs: ParseAddrs(q.Addrs)}
	var err error
	if q.Front != "" {
		if node.ID, err = peer.Decode(q.Front); err != nil {
			return refusal(fmt.Errorf("front: %v: %w", err, ErrInvalid)), nil
		}
	}
	switch q.Kind {
	case errandStream:
		return f.performStream(ctx, node, q.Proto)
	case errandDial:
		err = f.Connect(ctx, node)
	case errandKeep:
		release, ok := f.Keep(node.ID)
		if !ok {
			return r, nil
		}
		return reply{Yes: true}, func(s network.Stream) {
			defer release()
			_, _ = s.Read(make([]byte, 1)) // its end
			_ = s.Reset()
		}
	case errandProvide:
		err = f.Provide(ctx, nameOf(q.Name))
	case errandProviders:
		for ai := range f.Providers(ctx, nameOf(q.Name)) {
			r.Nodes = append(r.Nodes, ai)
		}
	case errandCall:
		r.Body, err = x.o.Call(ctx, q.Body)
	default:
		err = fmt.Errorf("errand %q: %w", q.Kind, ErrInvalid)
	}
	if err != nil {
		r = refusal(err)
	}
	return r, nil
}

func nameOf(b []byte) (n Name) {
	copy(n[:], b)
	return n
}

// performStream opens a stream to another front for a process.
func (f *Front) performStream(ctx context.Context, node peer.AddrInfo, proto protocol.ID) (reply, func(network.Stream)) {
	f.host.Peerstore().AddAddrs(node.ID, node.Addrs, peerstore.TempAddrTTL)
	f.swarm.Backoff().Clear(node.ID)
	var s network.Stream
	var err error
	if proto == hopProtocol {
		s, err = f.hopTo(ctx, node.ID)
	} else {
		s, err = f.NewStream(ctx, node, proto)
	}
	if err != nil {
		return refusal(err), nil
	}
	return reply{Addr: s.Conn().RemoteMultiaddr().String()}, func(from network.Stream) {
		defer f.hold(node.ID)()
		splice(from, s)
	}
}

// serveLink answers what a process says until it ends.
func (x *processes) serveLink(ctx context.Context, f *Front, s network.Stream) {
	p := &Process{conn: s.Conn()}
	x.mu.Lock()
	x.all[p] = struct{}{}
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		delete(x.all, p)
		x.mu.Unlock()
		x.o.Gone(p)
		_ = s.Reset()
	}()
	for ctx.Err() == nil {
		_ = s.SetDeadline(time.Now().Add(linkSilence))
		var in said
		if err := readMessage(s, &in); err != nil {
			return
		}
		var partners []peer.ID
		for _, text := range in.Partners {
			if id, err := peer.Decode(text); err == nil {
				partners = append(partners, id)
			}
		}
		body, err := x.o.Deal(ctx, p, in.Body)
		if err != nil {
			f.log.WarnContext(ctx, "another process of this node is not linked", "error", err)
			return
		}
		p.mu.Lock()
		lost := p.lost
		p.partners, p.lost = partners, nil
		p.mu.Unlock()
		out := told{Addrs: AddrTexts(f.Addrs()), Body: body}
		for _, id := range lost {
			out.Lost = append(out.Lost, id.String())
		}
		if err := writeMessage(s, out); err != nil {
			return
		}
	}
}

// lostFront tells everybody here of a front with which no connection is left.
func (f *Front) lostFront(id peer.ID) {
	if f.link != nil {
		f.link.drop(id)
	}
	if f.lost != nil {
		f.lost(id)
	}
	for _, p := range f.linked() {
		p.mu.Lock()
		if len(p.lost) < maxLost && !slices.Contains(p.lost, id) {
			p.lost = append(p.lost, id)
		}
		p.mu.Unlock()
	}
}

// linked are the processes that are.
func (f *Front) linked() (all []*Process) {
	x := f.processes.Load()
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for p := range x.all {
		all = append(all, p)
	}
	return all
}

// isProcess says whether a peer is another process of this node.
func (f *Front) isProcess(id peer.ID) bool {
	x := f.processes.Load()
	return x != nil && x.id == id
}

// elsewhere is the process that has a Space peer, nil when it is this one or none.
func (f *Front) elsewhere(space peer.ID) *Process {
	if x := f.processes.Load(); x != nil && f.lookup(space) == nil {
		return x.o.Of(space)
	}
	return nil
}

// pass hands a CONNECT, which is not answered yet, to the process that has the Space peer.
func (f *Front) pass(ctx context.Context, p *Process, s network.Stream, space peer.ID) {
	if !f.passes() {
		_ = s.Reset()
		return
	}
	defer f.passing.Done()
	by := callerOf(s.Conn())
	there, err := sent(ctx, p.conn, errand{
		Kind: errandConnect, Front: by.Front.String(), Origin: []byte(by.Origin), Space: space.String(),
	})
	if err != nil {
		f.hopRefuse(s, noReservation)
		return
	}
	_ = s.SetDeadline(time.Time{})
	defer f.hold(by.Front)()
	splice(s, &ending{there, s})
}

// ending is a stream whose end is soon that of another one, whatever that one's remote does.
type ending struct {
	network.Stream
	other network.Stream
}

func (s *ending) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if err != nil {
		_ = s.other.SetReadDeadline(time.Now().Add(hopTimeout))
	}
	return n, err
}

// sharedBy says whether two fronts are those of authorised peers of one Space that another process has.
func (f *Front) sharedBy(ctx context.Context, a, b peer.ID) bool {
	for _, p := range f.linked() {
		p.mu.Lock()
		both := slices.Contains(p.partners, a) && slices.Contains(p.partners, b)
		p.mu.Unlock()
		if !both {
			continue
		}
		if r, err := asked(ctx, p.conn, errand{Kind: errandShare, Front: a.String(), Other: b.String()}); err == nil && r.Yes {
			return true
		}
	}
	return false
}
