package p2p_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

func TestGossipAndBlocks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		listen string
		local  bool
	}{
		{"tcp", tcpAddr, false},
		{"quic", quicAddr, false},
		{"same process", tcpAddr, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fa := newFront(t, p2p.Options{}, tt.listen)
			fb := fa
			if !tt.local {
				fb = newFront(t, p2p.Options{}, tt.listen)
			}
			a, b := newSpace(t, fa), newSpace(t, fb)
			if err := a.Connect(testContext(t), b.info()); err != nil {
				t.Fatalf("connect: %v", err)
			}
			if got, want := wait(t, a.up, "connected"), (connEvent{b.ID(), network.DirOutbound}); got != want {
				t.Errorf("dialer saw %v, want %v", got, want)
			}
			if got, want := wait(t, b.up, "connected"), (connEvent{a.ID(), network.DirInbound}); got != want {
				t.Errorf("listener saw %v, want %v", got, want)
			}
			if a.IsAuthorised(b.ID()) || !a.Connected(b.ID()) {
				t.Error("a new peer is not in probation")
			}
			hello(t, a, b)
			authorise(a, b)
			if got := a.Authorised(); !slices.Equal(got, []peer.ID{b.ID()}) {
				t.Errorf("authorised = %v", got)
			}
			gossip(t, a, b, "a to b")
			gossip(t, b, a, "b to a")
			c := a.put(t, "a block")
			if got := b.fetch(t, soon, c); !slices.Equal(got, []string{"a block"}) {
				t.Errorf("fetched %q", got)
			}
			hello(t, b, a)
			evicted(t, a, b)
		})
	}
}

// hello exchanges one message on the hello protocol.
func hello(t *testing.T, a, b *space) {
	t.Helper()
	s, err := a.NewStream(testContext(t), b.ID(), helloID)
	if err != nil {
		t.Fatalf("hello stream: %v", err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "hi" {
		t.Fatalf("hello reply %q, %v", got, err)
	}
}

// evicted has a evict b, and both stop.
func evicted(t *testing.T, a, b *space) {
	t.Helper()
	a.Evict(b.ID())
	if a.Connected(b.ID()) {
		t.Error("connected after eviction")
	}
	if got := wait(t, a.down, "disconnected"); got != b.ID() {
		t.Errorf("disconnected %s", got)
	}
	if got := wait(t, b.down, "disconnected"); got != a.ID() {
		t.Errorf("disconnected %s", got)
	}
	eventually(t, "no topic peers", func() bool { return len(a.topic.Peers()) == 0 && len(b.topic.Peers()) == 0 })
	if err := a.topic.Publish(testContext(t), []byte("to nobody")); err != nil {
		t.Errorf("publish: %v", err)
	}
	c := a.put(t, "another block")
	if got := b.fetch(t, 200*time.Millisecond, c); got != nil {
		t.Errorf("evicted peer fetched %q", got)
	}
	select {
	case m := <-b.got:
		t.Errorf("evicted peer got %q", m.data)
	default:
	}
	for _, proto := range []string{helloID, syncID} {
		if _, err := a.NewStream(testContext(t), b.ID(), protocol.ID(proto)); !errors.Is(err, p2p.ErrNotConnected) {
			t.Errorf("stream %s after eviction: %v", proto, err)
		}
	}
}

func TestHandleOnlyAuthorised(t *testing.T) {
	a, b := newSpace(t, newFront(t, p2p.Options{})), newSpace(t, newFront(t, p2p.Options{}))
	from := make(chan peer.ID, 1)
	b.Handle(syncID, func(s network.Stream) {
		from <- s.Conn().RemotePeer()
		_ = s.Close()
	})
	connect(t, a, b)
	if _, err := a.NewStream(testContext(t), b.ID(), syncID); !errors.Is(err, p2p.ErrNotAuthorised) {
		t.Errorf("stream in probation here: %v", err)
	}
	// Authorised here but not there: refused until the other side follows.
	a.Authorise(b.ID())
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if s, err := a.NewStream(ctx, b.ID(), syncID); err == nil {
		t.Errorf("stream in probation there: %v", s)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := a.NewStream(testContext(t), b.ID(), syncID)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	b.Authorise(a.ID())
	if got := wait(t, from, "stream"); got != a.ID() {
		t.Errorf("stream from %s", got)
	}
	if err := wait(t, opened, "open stream"); err != nil {
		t.Errorf("open stream: %v", err)
	}
	// Now a refusal is final, and comes when the stream is used: the remote does not speak it.
	s, err := a.NewStream(testContext(t), b.ID(), "/none")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, p2p.ErrNotAuthorised) {
		t.Errorf("protocol nobody serves: %v", err)
	}
	_ = s.Reset()
}

// The side that authorises first must not give up on the other.
func TestAuthoriseOneAfterTheOther(t *testing.T) {
	a, b := newSpace(t, newFront(t, p2p.Options{})), newSpace(t, newFront(t, p2p.Options{}))
	connect(t, a, b)
	a.Authorise(b.ID())
	c := b.put(t, "late")
	if got := a.fetch(t, 300*time.Millisecond, c); got != nil {
		t.Errorf("fetched %q from a peer that has not authorised us", got)
	}
	b.Authorise(a.ID())
	gossip(t, a, b, "a to b")
	gossip(t, b, a, "b to a")
	if got := a.fetch(t, soon, c); !slices.Equal(got, []string{"late"}) {
		t.Errorf("fetched %q", got)
	}
}

func TestJoinAfterAuthorise(t *testing.T) {
	a, b := newSpace(t, newFront(t, p2p.Options{})), newSpace(t, newFront(t, p2p.Options{}))
	connect(t, a, b)
	authorise(a, b)
	gossip(t, a, b, "first")
	got := make(chan string, 1)
	join := func(s *space) *p2p.Topic {
		topic, err := s.Join("second", func(_ context.Context, _ peer.ID, data []byte) p2p.Verdict {
			got <- string(data)
			return p2p.Accept
		})
		if err != nil {
			t.Fatal(err)
		}
		return topic
	}
	ta := join(a)
	if _, err := a.Join("second", nil); !errors.Is(err, p2p.ErrExists) {
		t.Errorf("second join of a topic: %v", err)
	}
	join(b)
	eventually(t, "topic peer", func() bool { return len(ta.Peers()) == 1 })
	if err := ta.Publish(testContext(t), []byte("x")); err != nil {
		t.Fatal(err)
	}
	wait(t, got, "message")
	if err := ta.Publish(testContext(t), make([]byte, p2p.MaxMessage+1)); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("publish of too much: %v", err)
	}
	if err := ta.Publish(testContext(t), make([]byte, p2p.MaxMessage)); err != nil {
		t.Fatal(err)
	}
	if m := wait(t, got, "largest message"); len(m) != p2p.MaxMessage {
		t.Errorf("message of %d bytes", len(m))
	}
	if err := ta.Close(); err != nil {
		t.Errorf("topic close: %v", err)
	}
	if err := ta.Publish(testContext(t), nil); !errors.Is(err, p2p.ErrClosed) {
		t.Errorf("publish on a closed topic: %v", err)
	}
	join(a)
}

// A message goes from a to c through b, unless b's check says otherwise.
func TestVerdicts(t *testing.T) {
	f := newFront(t, p2p.Options{})
	a, b, c := newSpace(t, f), newSpace(t, f), newSpace(t, f)
	for _, pair := range [][2]*space{{a, b}, {b, c}} {
		connect(t, pair[0], pair[1])
		authorise(pair[0], pair[1])
		joined(t, pair[0], pair[1])
		joined(t, pair[1], pair[0])
	}
	const topic = "verdicts"
	arrived := make(chan string, 8)
	var topics []*p2p.Topic
	for _, s := range []*space{a, b, c} {
		check := func(_ context.Context, _ peer.ID, data []byte) p2p.Verdict {
			if s == c {
				arrived <- string(data)
			}
			switch string(data) {
			case "reject":
				return p2p.Reject
			case "ignore":
				return p2p.Ignore
			}
			return p2p.Accept
		}
		joined, err := s.Join(topic, check)
		if err != nil {
			t.Fatal(err)
		}
		topics = append(topics, joined)
	}
	eventually(t, "b knows both", func() bool {
		return len(topics[0].Peers()) == 1 && len(topics[1].Peers()) == 2 && len(topics[2].Peers()) == 1
	})
	// The mesh from b to c is built by a heartbeat: repeat until it carries.
	eventually(t, "a message through b", func() bool {
		for _, m := range []string{"reject", "ignore", "accept"} {
			if err := topics[0].Publish(testContext(t), []byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case m := <-arrived:
			if m != "accept" {
				t.Fatalf("b passed on %q", m)
			}
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	for len(arrived) > 0 {
		if m := <-arrived; m != "accept" {
			t.Errorf("b passed on %q", m)
		}
	}
}

func TestManySpacesShareOneConnection(t *testing.T) {
	const n = 50
	fa := newFront(t, p2p.Options{}, tcpAddr, quicAddr)
	fb := newFront(t, p2p.Options{}, tcpAddr, quicAddr)
	as, bs := make([]*space, n), make([]*space, n)
	for i := range n {
		as[i], bs[i] = newSpace(t, fa), newSpace(t, fb)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := as[i].Connect(testContext(t), bs[i].info()); err != nil {
				t.Errorf("space %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		wait(t, as[i].up, "connected")
		wait(t, bs[i].up, "connected")
		authorise(as[i], bs[i])
	}
	for i := range n {
		gossip(t, as[i], bs[i], "hello")
	}
	conns := fa.Host().Network().ConnsToPeer(fb.ID())
	if len(conns) != 1 {
		t.Fatalf("%d connections between the nodes, want 1", len(conns))
	}
	if p := conns[0].ConnState().Transport; p != "tcp" {
		t.Errorf("nodes are connected by %s, want tcp", p)
	}
}

func TestReconnect(t *testing.T) {
	fa := newFront(t, p2p.Options{})
	frontKey, spaceKey := newKey(t), newKey(t)
	a := newSpace(t, fa)
	fb := newFront(t, p2p.Options{Key: frontKey})
	addr := fb.Host().Addrs()[0].String()
	for range 3 {
		b := newSpace(t, fb, withKey(spaceKey))
		connect(t, a, b)
		authorise(a, b)
		gossip(t, a, b, "again")
		gossip(t, b, a, "again")
		ai := b.info()
		if err := fb.Close(); err != nil {
			t.Fatal(err)
		}
		wait(t, a.down, "disconnected")
		wait(t, b.down, "disconnected")
		if a.IsAuthorised(b.ID()) {
			t.Fatal("authorisation outlived the connection")
		}
		if err := a.Connect(testContext(t), ai); !errors.Is(err, p2p.ErrUnreachable) {
			t.Fatalf("connect to a closed node: %v", err)
		}
		fb = newFront(t, p2p.Options{Key: frontKey}, addr)
	}
}

func TestReopenSpace(t *testing.T) {
	fa, fb := newFront(t, p2p.Options{}), newFront(t, p2p.Options{})
	a, b := newSpace(t, fa), newSpace(t, fb)
	if _, err := fb.Open(t.Context(), p2p.PeerOptions{Key: b.key}); !errors.Is(err, p2p.ErrExists) {
		t.Fatalf("second open: %v", err)
	}
	for range 3 {
		connect(t, a, b)
		authorise(a, b)
		gossip(t, b, a, "again")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		wait(t, a.down, "disconnected")
		b = newSpace(t, fb, withKey(b.key))
	}
	if n := len(fa.Host().Network().ConnsToPeer(fb.ID())); n != 1 {
		t.Errorf("%d connections between the nodes, want 1", n)
	}
}

func TestSimultaneousDial(t *testing.T) {
	fa, fb := newFront(t, p2p.Options{}), newFront(t, p2p.Options{})
	for range 20 {
		a, b := newSpace(t, fa), newSpace(t, fb)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Connect(testContext(t), b.info()); err != nil {
				t.Errorf("a: %v", err)
			}
		})
		wg.Go(func() {
			if err := b.Connect(testContext(t), a.info()); err != nil {
				t.Errorf("b: %v", err)
			}
		})
		wg.Wait()
		da, db := wait(t, a.up, "connected").dir, wait(t, b.up, "connected").dir
		if da != network.DirOutbound && db != network.DirOutbound {
			t.Fatal("neither side is the dialer")
		}
		if n, m := p2p.Conns(a.Peer), p2p.Conns(b.Peer); n != 1 || m != 1 {
			t.Fatalf("%d connections at one side, %d at the other", n, m)
		}
		authorise(a, b)
		gossip(t, a, b, "hello")
		a.Evict(b.ID())
		wait(t, a.down, "disconnected")
		wait(t, b.down, "disconnected")
		for _, s := range []*space{a, b} {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if len(s.up) != 0 || len(s.down) != 0 {
				t.Errorf("%d more connects and %d more disconnects", len(s.up), len(s.down))
			}
		}
	}
}

// A connection that waited for a dial to its node is taken when that fails.
func TestCrossingDialFails(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	fb := newFront(t, p2p.Options{Wake: func(context.Context, peer.ID, p2p.Caller) bool {
		close(asked)
		<-answer
		return false
	}})
	keys := []ed25519.PrivateKey{newKey(t), newKey(t)}
	slices.SortFunc(keys, func(x, y ed25519.PrivateKey) int { return strings.Compare(string(keyID(t, x)), string(keyID(t, y))) })
	a, b := newSpace(t, newFront(t, p2p.Options{}), withKey(keys[0])), newSpace(t, fb)
	absent := keyID(t, keys[1])
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Connect(testContext(t), infoOf(absent, fb.SpaceAddrs(absent))); !errors.Is(err, p2p.ErrUnreachable) {
			t.Errorf("connecting with an absent peer: %v", err)
		}
	})
	wait(t, asked, "question for the absent peer")
	wg.Go(func() {
		if err := b.Connect(testContext(t), a.info()); err != nil {
			t.Errorf("b: %v", err)
		}
	})
	eventually(t, "a CONNECT that waits", func() bool { return p2p.Handshakes(a.Peer) > 0 })
	close(answer)
	wait(t, a.up, "connected")
	wg.Wait()
}

// A member that comes back from a crash replaces the connection it lost, and
// has to be authorised anew.
func TestSupersede(t *testing.T) {
	const short = 200 * time.Millisecond
	a := newSpace(t, newFront(t, p2p.Options{}), func(o *p2p.PeerOptions) { o.ProbationTimeout = short })
	before := newSpace(t, newFront(t, p2p.Options{}))
	connect(t, before, a)
	authorise(a, before)
	gossip(t, before, a, "before")
	<-time.After(short)
	after := newSpace(t, newFront(t, p2p.Options{}), withKey(before.key))
	connect(t, after, a)
	wait(t, a.down, "disconnect")
	wait(t, before.down, "disconnect")
	if a.IsAuthorised(after.ID()) {
		t.Error("a new connection inherited the authorisation of a lost one")
	}
	authorise(a, after)
	gossip(t, a, after, "after")
	gossip(t, after, a, "after")
}

func TestConnectErrors(t *testing.T) {
	fa, fb := newFront(t, p2p.Options{}), newFront(t, p2p.Options{})
	a, b := newSpace(t, fa), newSpace(t, fb)
	stranger := keyID(t, newKey(t))
	for _, tt := range []struct {
		name string
		ai   peer.AddrInfo
		want error
	}{
		{"itself", a.info(), p2p.ErrInvalid},
		{"no address", infoOf(b.ID(), nil), p2p.ErrInvalid},
		{"front address", infoOf(b.ID(), fb.Addrs()), p2p.ErrInvalid},
		{"another space's address", infoOf(stranger, b.Addrs()), p2p.ErrInvalid},
		{"unknown space", infoOf(stranger, fb.SpaceAddrs(stranger)), p2p.ErrUnreachable},
		{"unknown local space", infoOf(stranger, fa.SpaceAddrs(stranger)), p2p.ErrUnreachable},
	} {
		if err := a.Connect(testContext(t), tt.ai); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Connect(testContext(t), b.info()); !errors.Is(err, p2p.ErrClosed) {
		t.Errorf("connect on a closed peer: %v", err)
	}
	if err := fa.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fa.Open(t.Context(), p2p.PeerOptions{Key: newKey(t)}); !errors.Is(err, p2p.ErrClosed) {
		t.Errorf("open on a closed front: %v", err)
	}
}
