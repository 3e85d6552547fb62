package p2p_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multistream"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// outsider is a full libp2p host made by the library alone: identify, ping,
// circuit client.
func outsider(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.EnableRelay(), libp2p.DisableMetrics(), libp2p.UserAgent("outsider"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func dialFrom(t testing.TB, h host.Host, s *space) {
	t.Helper()
	if err := h.Connect(testContext(t), s.info()); err != nil {
		t.Fatalf("outsider: %v", err)
	}
	if got := wait(t, s.up, "connected"); got.id != h.ID() {
		t.Fatalf("connected %s", got.id)
	}
}

func gatedProtocols() []protocol.ID {
	return append([]protocol.ID{
		"/tinycloud/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.2.0", syncID, "/tinycloud/kad/1.0.0",
		"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "ls", "/libp2p/circuit/relay/0.2.0/stop",
	}, pubsub.GossipSubDefaultProtocols...)
}

// In probation the hello protocol exists and no other.
func TestProbationProtocols(t *testing.T) {
	a := newSpace(t, newFront(t, p2p.Options{}))
	a.Handle(syncID, func(s network.Stream) { _ = s.Close() })
	h := outsider(t)
	dialFrom(t, h, a)
	for _, c := range h.Network().ConnsToPeer(a.ID()) {
		if c.Stat().Limited {
			t.Error("a stock dialer takes the connection for a limited one")
		}
	}
	for _, proto := range gatedProtocols() {
		_, err := h.NewStream(testContext(t), a.ID(), proto)
		if !errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
			t.Errorf("%s in probation: %v, want not supported", proto, err)
		}
	}
	if got, err := h.Peerstore().GetProtocols(a.ID()); err != nil || len(got) != 0 {
		t.Errorf("the outsider learned protocols %v, %v", got, err)
	}
	if got, err := h.Peerstore().Get(a.ID(), "AgentVersion"); err == nil {
		t.Errorf("the outsider learned the agent %v", got)
	}
	s, err := h.NewStream(testContext(t), a.ID(), helloID)
	if err != nil {
		t.Fatalf("hello in probation: %v", err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "hi" {
		t.Errorf("hello reply %q, %v", got, err)
	}
	// The same questions get other answers once authorised.
	a.Authorise(h.ID())
	for _, proto := range []protocol.ID{syncID, "/tinycloud/ipfs/bitswap/1.2.0", pubsub.GossipSubID_v11} {
		s, err := h.NewStream(testContext(t), a.ID(), proto)
		if err != nil {
			t.Errorf("%s when authorised: %v", proto, err)
			continue
		}
		_ = s.Reset()
	}
	if _, err := h.NewStream(testContext(t), a.ID(), "/ipfs/id/1.0.0"); err == nil {
		t.Error("a space peer identifies itself")
	}
}

// Of several versions of the hello protocol the first that both speak is taken, whichever side is ahead.
func TestHelloVersions(t *testing.T) {
	const nextID = "/tinycloud/hello/2"
	told := make(chan protocol.ID, 1)
	versions := func(ids ...protocol.ID) func(*p2p.PeerOptions) {
		return func(o *p2p.PeerOptions) {
			o.HelloProtocols = ids
			o.Hello = func(_ context.Context, s network.Stream) {
				told <- s.Protocol()
				_ = s.Close()
			}
		}
	}
	x, y, old := newSpace(t, newFront(t, p2p.Options{}), versions(nextID, helloID)),
		newSpace(t, newFront(t, p2p.Options{}), versions(nextID, helloID)), newSpace(t, newFront(t, p2p.Options{}), versions(helloID))
	for _, tt := range []struct {
		name string
		a, b *space
		asks []protocol.ID
		want protocol.ID
	}{
		{"both new", x, y, []protocol.ID{nextID, helloID}, nextID},
		{"old responder", x, old, []protocol.ID{nextID, helloID}, helloID},
		{"old dialer", old, y, []protocol.ID{helloID}, helloID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			connect(t, tt.a, tt.b)
			s, err := tt.a.NewStream(testContext(t), tt.b.ID(), tt.asks...)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, s)
			if got := wait(t, told, "hello"); s.Protocol() != tt.want || got != tt.want {
				t.Errorf("%s here, %s there; want %s", s.Protocol(), got, tt.want)
			}
			if _, err := tt.a.NewStream(testContext(t), tt.b.ID()); !errors.Is(err, p2p.ErrInvalid) {
				t.Errorf("stream for no protocol: %v", err)
			}
			if _, err := tt.a.NewStream(testContext(t), tt.b.ID(), tt.want, syncID); !errors.Is(err, p2p.ErrNotAuthorised) {
				t.Errorf("another protocol beside the handshake's: %v", err)
			}
		})
	}
}

// rpcs is a pubsub tracer that counts what arrives.
type rpcs struct {
	pubsub.RawTracer
	counter
	arrived chan struct{}
}

func (r *rpcs) RecvRPC(*pubsub.RPC) {
	r.add("rpc")
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}
func (*rpcs) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (*rpcs) OnClosedOutboundStream(peer.ID)                       {}
func (*rpcs) Join(string)                                          {}
func (*rpcs) Leave(string)                                         {}
func (*rpcs) Graft(peer.ID, string)                                {}
func (*rpcs) Prune(peer.ID, string)                                {}
func (*rpcs) ValidateMessage(*pubsub.Message)                      {}
func (*rpcs) DeliverMessage(*pubsub.Message)                       {}
func (*rpcs) RejectMessage(*pubsub.Message, string)                {}
func (*rpcs) DuplicateMessage(*pubsub.Message)                     {}
func (*rpcs) ThrottlePeer(peer.ID)                                 {}
func (*rpcs) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (*rpcs) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (*rpcs) DropRPC(*pubsub.RPC, peer.ID)                         {}
func (*rpcs) UndeliverableMessage(*pubsub.Message)                 {}

// wants is a bitswap tracer that counts what arrives.
type wants struct {
	counter
	arrived chan struct{}
}

func (w *wants) MessageReceived(_ peer.ID, m bsmsg.BitSwapMessage) {
	w.add("message")
	if len(m.Wantlist()) > 0 {
		select {
		case w.arrived <- struct{}{}:
		default:
		}
	}
}
func (*wants) MessageSent(peer.ID, bsmsg.BitSwapMessage) {}

// Stock gossipsub and bitswap peers that connect but are not authorised hear
// nothing at all, while there is something to say; authorised, they hear it.
func TestProbationHearsNothing(t *testing.T) {
	a := newSpace(t, newFront(t, p2p.Options{}))
	h := outsider(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rpc := &rpcs{arrived: make(chan struct{}, 1)}
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithRawTracer(rpc))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(topicID)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Cancel()
	want := &wants{arrived: make(chan struct{}, 1)}
	theirs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	blk := newBlock(t, "theirs")
	if err := theirs.Put(ctx, blk); err != nil {
		t.Fatal(err)
	}
	bs := bitswap.New(ctx, bsnet.NewFromIpfsHost(h, bsnet.Prefix("/tinycloud")), nil, theirs, bitswap.WithTracer(want))
	defer bs.Close()
	dialFrom(t, h, a)

	for range 20 {
		if err := a.topic.Publish(testContext(t), []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.fetch(t, time.Second, blk.Cid()); got != nil {
		t.Errorf("fetched %q from a stranger", got)
	}
	streams := &counter{}
	for _, c := range h.Network().ConnsToPeer(a.ID()) {
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == network.DirInbound {
				streams.add(string(s.Protocol()))
			}
		}
	}
	if rpc.total()+want.total()+streams.total() != 0 {
		t.Errorf("a stranger got %d RPCs, %d bitswap messages, %d streams", rpc.total(), want.total(), streams.total())
	}

	c, err := a.Fetch(testContext(t), []cid.Cid{blk.Cid()})
	if err != nil {
		t.Fatal(err)
	}
	a.Authorise(h.ID())
	wait(t, rpc.arrived, "RPC when authorised")
	wait(t, want.arrived, "want when authorised")
	if got := wait(t, c, "block when authorised"); got == nil || !got.Cid().Equals(blk.Cid()) {
		t.Errorf("fetched %v", got)
	}
}

// A Space opens no stream at all to a stranger.
func TestProbationOpensNothing(t *testing.T) {
	a := newSpace(t, newFront(t, p2p.Options{}))
	h := outsider(t)
	opened := make(chan peer.ID, 64)
	accept := h.Mux()
	h.Network().SetStreamHandler(func(s network.Stream) {
		opened <- s.Conn().RemotePeer()
		proto, handle, err := accept.Negotiate(s)
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = handle(proto, s)
	})
	dialFrom(t, h, a)
	for range 20 {
		if err := a.topic.Publish(testContext(t), []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	a.fetch(t, time.Second, newBlock(t, "x").Cid())
	for len(opened) > 0 {
		if <-opened == a.ID() {
			t.Error("a space opened a stream to a stranger")
		}
	}
	a.Authorise(h.ID())
	eventually(t, "a stream when authorised", func() bool { return <-opened == a.ID() })
}

func TestProbationTimeout(t *testing.T) {
	const short = 200 * time.Millisecond
	ended := make(chan error, 1)
	a := newSpace(t, newFront(t, p2p.Options{}), func(o *p2p.PeerOptions) {
		o.ProbationTimeout = short
		o.Hello = func(ctx context.Context, s network.Stream) {
			_, err := io.ReadAll(s) // a stranger that never finishes
			<-ctx.Done()
			ended <- err
		}
	})
	h := outsider(t)
	start := time.Now()
	dialFrom(t, h, a)
	if s, err := h.NewStream(testContext(t), a.ID(), helloID); err != nil {
		t.Fatal(err)
	} else if _, err := s.Write([]byte("...")); err != nil {
		t.Fatal(err)
	}
	wait(t, a.down, "disconnect")
	if d := time.Since(start); d < short {
		t.Errorf("closed after %v, want %v", d, short)
	}
	if err := wait(t, ended, "end of hello"); err == nil {
		t.Error("hello read to the end")
	}
	eventually(t, "outsider disconnected", func() bool { return h.Network().Connectedness(a.ID()) != network.Connected })
}

// Authorised peers are not cut off, neither by the clock nor by the count.
func TestAuthorisedOutlivesProbation(t *testing.T) {
	const short = 200 * time.Millisecond
	quick := func(o *p2p.PeerOptions) { o.ProbationTimeout = short }
	a, b := newSpace(t, newFront(t, p2p.Options{}), quick), newSpace(t, newFront(t, p2p.Options{}), quick)
	n := make(chan int64, 1)
	b.Handle(syncID, func(s network.Stream) {
		got, _ := io.Copy(io.Discard, s)
		n <- got
	})
	connect(t, a, b)
	authorise(a, b)
	timer := time.NewTimer(2 * short)
	select {
	case <-timer.C:
	case <-a.down:
		t.Fatal("authorised peer was cut off")
	}
	s, err := a.NewStream(testContext(t), b.ID(), syncID)
	if err != nil {
		t.Fatal(err)
	}
	const size = 32 * p2p.ProbationBytes
	if _, err := s.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, n, "bytes"); got != size {
		t.Errorf("%d bytes arrived, want %d", got, size)
	}
}

func TestProbationBytes(t *testing.T) {
	const allowed = p2p.ProbationBytes / 2
	half, rest := make(chan error, 1), make(chan int64, 1)
	a := newSpace(t, newFront(t, p2p.Options{}), func(o *p2p.PeerOptions) {
		o.Hello = func(_ context.Context, s network.Stream) {
			_, err := io.CopyN(io.Discard, s, allowed)
			half <- err
			n, _ := io.Copy(io.Discard, s)
			rest <- n
		}
	})
	h := outsider(t)
	dialFrom(t, h, a)
	s, err := h.NewStream(testContext(t), a.ID(), helloID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, allowed)); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, half, "what is allowed"); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.Write(make([]byte, 4<<10))
	}
	if n := wait(t, rest, "end of hello"); n > p2p.ProbationBytes-allowed {
		t.Errorf("hello read %d bytes, want up to %d", n+allowed, p2p.ProbationBytes)
	}
	wait(t, a.down, "disconnect")
}

// Many strangers neither keep a member out nor grow without bound.
func TestProbationCrowd(t *testing.T) {
	const most = 4
	a := newSpace(t, newFront(t, p2p.Options{}), func(o *p2p.PeerOptions) { o.MaxPeers = most })
	member := newSpace(t, newFront(t, p2p.Options{}))
	connect(t, member, a)
	authorise(a, member)
	f := newFront(t, p2p.Options{})
	for range 3 * most {
		stranger := newSpace(t, f)
		if err := stranger.Connect(testContext(t), a.info()); err != nil {
			t.Fatalf("newcomer: %v", err)
		}
		wait(t, a.up, "newcomer")
	}
	for range 3*most - (most - 1) { // the oldest had to go
		wait(t, a.down, "disconnect")
	}
	if !a.IsAuthorised(member.ID()) {
		t.Error("strangers pushed a member out")
	}
	gossip(t, a, member, "still here")
}
