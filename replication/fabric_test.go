package replication_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// fabric connects endpoints in memory, with the promises that the p2p package makes: a remote in probation
// can open the handshake only, each side authorises for itself, messages go to authorised peers.
type fabric struct {
	mu   sync.Mutex
	ends map[peer.ID]*endpoint
	cut  map[[2]peer.ID]bool
	// deaf are who can't dial whom: from, to.
	deaf map[[2]peer.ID]bool
	// knocked are who is not here and was dialed.
	knocked map[peer.ID]bool
	// lose decides over gossip messages; nil delivers all.
	lose    func(from, to peer.ID) bool
	opening func(from, to peer.ID) // guarded by mu; called before a sync stream is opened, unless nil
	traffic int                    // bytes of sync streams, both directions
	said    map[peer.ID]int        // those that each peer wrote
	opened  int                    // sync streams
	gossip  [2]int                 // messages that were published, and their bytes
	fetched int                    // bytes of the largest fetch of blocks
	pace    int                    // bytes a second of each stream and direction; 0: no limit
	// deliver, unless nil, gets what a peer writes to a sync stream after so many bytes of all its streams, and
	// returns what arrives: nil for a stream that is stuck.
	deliver func(from peer.ID, said int, b []byte) []byte
	running sync.WaitGroup
}

func newFabric(t testing.TB) *fabric {
	f := &fabric{ends: map[peer.ID]*endpoint{}, cut: map[[2]peer.ID]bool{}, deaf: map[[2]peer.ID]bool{}, said: map[peer.ID]int{}, knocked: map[peer.ID]bool{}}
	t.Cleanup(f.running.Wait)
	return f
}

// endpoint is one Space peer.
type endpoint struct {
	f     *fabric
	id    peer.ID
	hooks hooks
	// fetch gives a block to a peer; nil: nothing is served.
	fetch func(c cid.Cid) ([]byte, bool)
	links map[peer.ID]*link // guarded by f.mu
	seen  map[tinycloud.Hash]bool
	// greets are the versions of the handshake that it speaks; guarded by f.mu.
	greets []protocol.ID
}

type hooks struct {
	hello        func(context.Context, network.Stream)
	sync         func(network.Stream)
	connected    func(peer.ID, network.Direction)
	disconnected func(peer.ID)
	check        func(context.Context, peer.ID, []byte) error
}

// link is one side of a connection.
type link struct {
	authorised bool
	changed    chan struct{} // closed when authorised changes
	ctx        context.Context
	cancel     context.CancelFunc
	ready      chan struct{} // closed when Connected returned
	streams    map[*stream]struct{}
}

func (f *fabric) add(t testing.TB, id peer.ID, h hooks, fetch func(cid.Cid) ([]byte, bool)) *endpoint {
	e := &endpoint{f: f, id: id, hooks: h, fetch: fetch, links: map[peer.ID]*link{}, seen: map[tinycloud.Hash]bool{}, greets: wire.HelloProtocols()}
	f.mu.Lock()
	f.ends[id] = e
	f.mu.Unlock()
	t.Cleanup(e.close)
	return e
}

// close leaves the network.
func (e *endpoint) close() {
	e.f.mu.Lock()
	if e.f.ends[e.id] == e {
		delete(e.f.ends, e.id)
	}
	var ids []peer.ID
	for id := range e.links {
		ids = append(ids, id)
	}
	e.f.mu.Unlock()
	for _, id := range ids {
		e.Evict(id)
	}
}

func pair(a, b peer.ID) [2]peer.ID {
	if a > b {
		a, b = b, a
	}
	return [2]peer.ID{a, b}
}

// part cuts two peers off from each other, or connects them again.
func (f *fabric) part(a, b peer.ID, apart bool) {
	f.mu.Lock()
	f.cut[pair(a, b)] = apart
	e := f.ends[a]
	f.mu.Unlock()
	if apart && e != nil {
		e.Evict(b)
	}
}

func newLink() *link {
	ctx, cancel := context.WithCancel(context.Background())
	return &link{
		changed: make(chan struct{}), ctx: ctx, cancel: cancel,
		ready: make(chan struct{}), streams: map[*stream]struct{}{},
	}
}

func (e *endpoint) Connect(_ context.Context, ai peer.AddrInfo) error {
	f := e.f
	f.mu.Lock()
	defer f.mu.Unlock()
	other := f.ends[ai.ID]
	if other == nil {
		f.knocked[ai.ID] = !f.cut[pair(e.id, ai.ID)] && !f.deaf[[2]peer.ID{e.id, ai.ID}] || f.knocked[ai.ID]
	}
	if other == nil || f.cut[pair(e.id, ai.ID)] || f.deaf[[2]peer.ID{e.id, ai.ID}] || f.ends[e.id] != e {
		return errors.New("unreachable")
	}
	if e.links[ai.ID] != nil {
		return nil
	}
	e.up(other.id, network.DirOutbound)
	other.up(e.id, network.DirInbound)
	return nil
}

// up adds a link. f.mu is held.
func (e *endpoint) up(id peer.ID, dir network.Direction) {
	l := newLink()
	e.links[id] = l
	e.f.running.Go(func() {
		e.hooks.connected(id, dir)
		close(l.ready)
	})
}

func (e *endpoint) Evict(id peer.ID) {
	e.f.mu.Lock()
	other := e.f.ends[id]
	streams := e.down(id)
	if other != nil {
		streams = append(streams, other.down(e.id)...)
	}
	e.f.mu.Unlock()
	for _, s := range streams {
		_ = s.Conn2.Close()
	}
}

// down removes a link. f.mu is held.
func (e *endpoint) down(id peer.ID) (streams []*stream) {
	l := e.links[id]
	if l == nil {
		return nil
	}
	delete(e.links, id)
	l.cancel()
	for s := range l.streams {
		streams = append(streams, s)
	}
	e.f.running.Go(func() {
		<-l.ready
		e.hooks.disconnected(id)
	})
	return streams
}

func (e *endpoint) Authorise(id peer.ID) {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	if l := e.links[id]; l != nil && !l.authorised {
		l.authorised = true
		close(l.changed)
	}
}

// AuthorisedBy changes nothing: both sides of a link are known here.
func (e *endpoint) AuthorisedBy(peer.ID) {}

func (e *endpoint) IsAuthorised(id peer.ID) bool {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	l := e.links[id]
	return l != nil && l.authorised
}

func (e *endpoint) connected(id peer.ID) bool {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	return e.links[id] != nil
}

// choose returns the first of some protocols that two endpoints speak. f.mu is held.
func (e *endpoint) choose(other *endpoint, protos []protocol.ID) (proto protocol.ID, isHello bool) {
	for _, proto := range protos {
		isHello = slices.Contains(wire.HelloProtocols(), proto)
		if !isHello || slices.Contains(e.greets, proto) && slices.Contains(other.greets, proto) {
			return proto, isHello
		}
	}
	return "", false
}

func (e *endpoint) NewStream(ctx context.Context, id peer.ID, protos ...protocol.ID) (network.Stream, error) {
	f := e.f
	f.mu.Lock()
	opening := f.opening
	f.mu.Unlock()
	if opening != nil && protos[0] == wire.SyncProtocol {
		opening(e.id, id)
	}
	f.mu.Lock()
	l, other := e.links[id], f.ends[id]
	if l == nil || other == nil || other.links[e.id] == nil {
		f.mu.Unlock()
		return nil, errors.New("not connected")
	}
	theirs := other.links[e.id]
	proto, isHello := e.choose(other, protos)
	if proto == "" {
		f.mu.Unlock()
		return nil, errors.New("no protocol in common")
	}
	if !isHello && !l.authorised {
		f.mu.Unlock()
		return nil, errors.New("not authorised")
	}
	if !isHello && !theirs.authorised {
		f.mu.Unlock()
		select {
		case <-theirs.changed: // as p2p, which offers the protocol again until the other side authorised
		case <-theirs.ctx.Done():
			return nil, errors.New("not connected")
		case <-time.After(10 * time.Second):
			return nil, errors.New("not authorised by the other side")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return e.NewStream(ctx, id, protos...)
	}
	defer f.mu.Unlock()
	a, b := net.Pipe()
	count := !isHello
	if count {
		f.opened++
	}
	here := &stream{Conn2: a, e: e, l: l, remote: id, count: count, proto: proto}
	there := &stream{Conn2: b, e: other, l: theirs, remote: e.id, count: count, proto: proto}
	l.streams[here], theirs.streams[there] = struct{}{}, struct{}{}
	f.running.Go(func() {
		if isHello {
			other.hooks.hello(theirs.ctx, there)
			return
		}
		other.hooks.sync(there)
	})
	return here, nil
}

// stream is one side of a net.Pipe: unbuffered, so that whoever does not read blocks who writes.
type stream struct {
	network.Stream
	Conn2  net.Conn
	e      *endpoint
	l      *link
	remote peer.ID
	count  bool
	proto  protocol.ID
}

func (s *stream) Protocol() protocol.ID { return s.proto }

func (s *stream) Read(p []byte) (int, error) { return s.Conn2.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	if !s.count {
		return s.Conn2.Write(p)
	}
	f := s.e.f
	f.mu.Lock()
	f.traffic += len(p)
	f.said[s.e.id] += len(p)
	pace, deliver, said := f.pace, f.deliver, f.said[s.e.id]
	f.mu.Unlock()
	if pace > 0 {
		<-time.After(time.Duration(len(p)) * time.Second / time.Duration(pace))
	}
	if deliver != nil {
		if p = deliver(s.e.id, said, p); p == nil {
			<-s.l.ctx.Done()
			return 0, s.l.ctx.Err()
		}
	}
	return s.Conn2.Write(p)
}

func (s *stream) Close() error {
	s.e.f.mu.Lock()
	delete(s.l.streams, s)
	s.e.f.mu.Unlock()
	return s.Conn2.Close()
}

func (s *stream) Reset() error                       { return s.Close() }
func (s *stream) SetDeadline(t time.Time) error      { return s.Conn2.SetDeadline(t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.Conn2.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.Conn2.SetWriteDeadline(t) }
func (s *stream) Conn() network.Conn                 { return conn{remote: s.remote} }

type conn struct {
	network.Conn
	remote peer.ID
}

func (c conn) RemotePeer() peer.ID { return c.remote }

// Publish floods a message to authorised peers; who accepts it passes it on.
func (e *endpoint) Publish(ctx context.Context, data []byte) error {
	e.f.mu.Lock()
	e.seen[tinycloud.Sum(data)] = true
	e.f.gossip[0]++
	e.f.gossip[1] += len(data)
	e.f.mu.Unlock()
	e.pass(ctx, "", data)
	return nil
}

func (e *endpoint) pass(ctx context.Context, except peer.ID, data []byte) {
	hash := tinycloud.Sum(data)
	e.f.mu.Lock()
	var to []*endpoint
	for id, l := range e.links {
		other := e.f.ends[id]
		if !l.authorised || id == except || other == nil || other.links[e.id] == nil || !other.links[e.id].authorised {
			continue
		}
		if other.seen[hash] || e.f.lose != nil && e.f.lose(e.id, id) {
			continue
		}
		other.seen[hash] = true
		to = append(to, other)
	}
	e.f.mu.Unlock()
	slices.SortFunc(to, func(a, b *endpoint) int { return slices.Compare([]byte(a.id), []byte(b.id)) })
	for _, other := range to {
		if other.hooks.check(ctx, e.id, data) == nil {
			other.pass(ctx, e.id, data)
		}
	}
}

// Fetch asks the authorised peers, as bitswap does: what none gives never comes.
func (e *endpoint) Fetch(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("fetch without a deadline")
	}
	out := make(chan blocks.Block)
	e.f.running.Go(func() {
		defer close(out)
		fetched := 0
		for _, c := range cids {
			for data := e.find(c); ; data = e.find(c) {
				if data == nil {
					select {
					case <-ctx.Done():
						return
					case <-time.After(time.Second):
						continue
					}
				}
				fetched += len(data)
				e.f.noteFetch(fetched)
				b, err := blocks.NewBlockWithCid(data, c)
				if err != nil {
					return
				}
				select {
				case out <- b:
				case <-ctx.Done():
					return
				}
				break
			}
		}
	})
	return out, nil
}

// Series is Fetch, as long as ctx lasts.
func (e *endpoint) Series(series context.Context) (func(context.Context, []cid.Cid) (<-chan blocks.Block, error), error) {
	return func(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error) {
		if series.Err() != nil {
			return nil, series.Err()
		}
		return e.Fetch(ctx, cids)
	}, nil
}

func (e *endpoint) find(c cid.Cid) []byte {
	e.f.mu.Lock()
	var from []func(cid.Cid) ([]byte, bool)
	for id, l := range e.links {
		if other := e.f.ends[id]; l.authorised && other != nil && other.fetch != nil {
			from = append(from, other.fetch)
		}
	}
	e.f.mu.Unlock()
	for _, fetch := range from {
		if b, ok := fetch(c); ok && tinycloud.Sum(b) == tinycloud.HashOf(c) {
			return b
		}
	}
	return nil
}

func (f *fabric) noteFetch(bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetched = max(f.fetched, bytes)
}

func (f *fabric) sent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.traffic
}

// talk is how many sync streams there were so far, their bytes, and those that one peer wrote.
func (f *fabric) talk(of peer.ID) (streams, bytes, said int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened, f.traffic, f.said[of]
}

// published counts gossip messages, and their bytes, whoever got them.
func (f *fabric) published() (messages, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gossip[0], f.gossip[1]
}

func (f *fabric) setLoss(lose func(from, to peer.ID) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lose = lose
}

var (
	_ replication.Peer      = (*endpoint)(nil)
	_ replication.Blocks    = (*endpoint)(nil)
	_ replication.Publisher = (*endpoint)(nil)
	_ io.ReadWriter         = (*stream)(nil)
)
