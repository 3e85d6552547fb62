package p2p_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	helloID = "/tinycloud/hello/1"
	syncID  = "/tinycloud/sync/1"
	topicID = "tinycloud/1"

	tcpAddr  = "/ip4/127.0.0.1/tcp/0"
	quicAddr = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// soon bounds every wait for something that must happen.
const soon = 20 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	t.Cleanup(cancel)
	return ctx
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyID(t testing.TB, key ed25519.PrivateKey) peer.ID {
	t.Helper()
	pub, _ := key.Public().(ed25519.PublicKey)
	id, err := p2p.PeerIDFromEd25519(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func logTo(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// newFront starts a front on loopback; listen defaults to TCP.
func newFront(t testing.TB, o p2p.Options, listen ...string) *p2p.Front {
	t.Helper()
	if o.Key == nil {
		o.Key = newKey(t)
	}
	if len(listen) == 0 {
		listen = []string{tcpAddr}
	}
	for _, l := range listen {
		o.Listen = append(o.Listen, ma.StringCast(l))
	}
	o.Log = logTo(t)
	f, err := p2p.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("front close: %v", err)
		}
	})
	f.Start(t.Context())
	return f
}

type connEvent struct {
	id  peer.ID
	dir network.Direction
}

type message struct {
	from peer.ID
	data string
}

// space is a Peer and what happened to it.
type space struct {
	*p2p.Peer
	key   ed25519.PrivateKey
	store blockstore.Blockstore
	up    chan connEvent
	down  chan peer.ID
	got   chan message
	topic *p2p.Topic
}

// newSpace opens a Space peer with a blockstore that has joined the topic; its
// hello says "hi" back to whatever it reads.
func newSpace(t testing.TB, f *p2p.Front, change ...func(*p2p.PeerOptions)) *space {
	t.Helper()
	s := &space{
		key:   newKey(t),
		store: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())),
		up:    make(chan connEvent, 64),
		down:  make(chan peer.ID, 64),
		got:   make(chan message, 64),
	}
	o := p2p.PeerOptions{
		Key:            s.key,
		HelloProtocols: []protocol.ID{helloID},
		Hello:          sayHi,
		Connected:      func(id peer.ID, dir network.Direction) { s.up <- connEvent{id, dir} },
		Disconnected:   func(id peer.ID) { s.down <- id },
		Blocks:         s.store,
	}
	for _, c := range change {
		c(&o)
	}
	s.key = o.Key
	p, err := f.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.Peer = p
	s.topic, err = p.Join(topicID, func(_ context.Context, from peer.ID, data []byte) p2p.Verdict {
		s.got <- message{from, string(data)}
		return p2p.Accept
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sayHi(_ context.Context, s network.Stream) {
	defer s.Close()
	buf := make([]byte, 64)
	if _, err := s.Read(buf); err == nil {
		_, _ = s.Write([]byte("hi"))
	}
}

func withKey(key ed25519.PrivateKey) func(*p2p.PeerOptions) {
	return func(o *p2p.PeerOptions) { o.Key = key }
}

func (s *space) info() peer.AddrInfo { return infoOf(s.ID(), s.Addrs()) }

func infoOf(id peer.ID, addrs []ma.Multiaddr) peer.AddrInfo {
	return peer.AddrInfo{ID: id, Addrs: addrs}
}

func connect(t testing.TB, a, b *space) {
	t.Helper()
	if err := a.Connect(testContext(t), b.info()); err != nil {
		t.Fatalf("connect: %v", err)
	}
	wait(t, a.up, "connected at the dialer")
	wait(t, b.up, "connected at the listener")
}

func authorise(a, b *space) {
	a.Authorise(b.ID())
	b.Authorise(a.ID())
}

// wait receives one value or fails.
func wait[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		t.Fatalf("no %s within %v", what, soon)
		panic("unreachable")
	}
}

// eventually waits for a state that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(soon)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", soon, what)
		}
	}
}

// joined waits until a knows that b takes part in the topic.
func joined(t testing.TB, a, b *space) {
	t.Helper()
	eventually(t, "topic peer", func() bool { return slices.Contains(a.topic.Peers(), b.ID()) })
}

func gossip(t testing.TB, a, b *space, text string) {
	t.Helper()
	if m := said(t, a, b, text); m.from != a.ID() {
		t.Fatalf("got %q from %s, want it from %s", text, m.from, a.ID())
	}
}

// said sends a message of a and returns it as it came to b, over whomever.
func said(t testing.TB, a, b *space, text string) message {
	t.Helper()
	joined(t, a, b)
	if err := a.topic.Publish(testContext(t), []byte(text)); err != nil {
		t.Fatalf("publish: %v", err)
	}
	m := wait(t, b.got, "message")
	if m.data != text {
		t.Fatalf("got message %q from %s, want %q", m.data, m.from, text)
	}
	return m
}

func newBlock(t testing.TB, data string) blocks.Block {
	t.Helper()
	h, err := multihash.Sum([]byte(data), multihash.BLAKE3, 32)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid([]byte(data), cid.NewCidV1(cid.Raw, h))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *space) put(t testing.TB, data string) cid.Cid {
	t.Helper()
	b := newBlock(t, data)
	if err := s.store.Put(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	return b.Cid()
}

// fetch returns the blocks that come before the channel closes.
func (s *space) fetch(t testing.TB, d time.Duration, cids ...cid.Cid) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c, err := s.Fetch(ctx, cids)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	var got []string
	for b := range c {
		got = append(got, string(b.RawData()))
	}
	return got
}

// counter counts by name.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[name]++
}

func (c *counter) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for _, n := range c.n {
		total += n
	}
	return total
}
