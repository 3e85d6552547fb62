package p2p_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

func TestWake(t *testing.T) {
	key := newKey(t)
	var calls atomic.Int32
	opened := make(chan *space, 1)
	var f *p2p.Front
	f = newFront(t, p2p.Options{Wake: func(_ context.Context, id peer.ID, _ p2p.Caller) bool {
		calls.Add(1)
		if id != keyID(t, key) {
			return false
		}
		opened <- newSpace(t, f, withKey(key))
		return true
	}})
	asleep := infoOf(keyID(t, key), f.SpaceAddrs(keyID(t, key)))
	// Several at once wake it once.
	remote := newFront(t, p2p.Options{})
	var wg sync.WaitGroup
	spaces := make([]*space, 8)
	for i := range spaces {
		spaces[i] = newSpace(t, remote)
		wg.Go(func() {
			if err := spaces[i].Connect(testContext(t), asleep); err != nil {
				t.Errorf("connect to a sleeping space: %v", err)
			}
		})
	}
	wg.Wait()
	b := wait(t, opened, "open space")
	if n := calls.Load(); n != 1 {
		t.Errorf("woken %d times", n)
	}
	a := spaces[0]
	eventually(t, "connected at the woken space", func() bool { return b.Connected(a.ID()) })
	authorise(a, b)
	gossip(t, a, b, "awake")
	// It wakes for a Space of its own process, too.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := newSpace(t, f).Connect(testContext(t), asleep); err != nil {
		t.Errorf("connect in process: %v", err)
	}
	if got := wait(t, opened, "open space").Addrs(); !slices.EqualFunc(got, asleep.Addrs, ma.Multiaddr.Equal) {
		t.Errorf("addresses awake %v, asleep %v", got, asleep.Addrs)
	}
}

// connectRequest sends a CONNECT for space and returns every byte of the
// answer.
func connectRequest(t *testing.T, h host.Host, front, space peer.ID) []byte {
	t.Helper()
	s, err := h.NewStream(testContext(t), front, "/libp2p/circuit/relay/0.2.0/hop")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{
		Type: pb.HopMessage_CONNECT.Enum(), Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: space}),
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Unknown, asleep and refused, over the wake limit: one answer.
func TestRefusalsAreEqual(t *testing.T) {
	known := keyID(t, newKey(t))
	var calls atomic.Int32
	sleepy := newFront(t, p2p.Options{Wake: func(context.Context, peer.ID, p2p.Caller) bool { calls.Add(1); return false }})
	empty := newFront(t, p2p.Options{})
	h := outsider(t)
	for _, f := range []*p2p.Front{sleepy, empty} {
		if err := h.Connect(testContext(t), peer.AddrInfo{ID: f.ID(), Addrs: f.Host().Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	want := connectRequest(t, h, empty.ID(), known)
	var msg pb.HopMessage
	if err := util.NewDelimitedReader(bytes.NewReader(want), 4096).ReadMsg(&msg); err != nil {
		t.Fatal(err)
	}
	if msg.GetStatus() != pb.Status_NO_RESERVATION {
		t.Errorf("status %s", msg.GetStatus())
	}
	const requests = 200
	for range requests {
		if got := connectRequest(t, h, sleepy.ID(), known); !bytes.Equal(got, want) {
			t.Fatalf("answer %x, want %x", got, want)
		}
	}
	if n := calls.Load(); n == 0 || n == requests {
		t.Errorf("Wake was called %d times for %d requests of one remote", n, requests)
	}
	// Another remote is not held back by the first.
	before := calls.Load()
	other := outsider(t)
	if err := other.Connect(testContext(t), peer.AddrInfo{ID: sleepy.ID(), Addrs: sleepy.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	if got := connectRequest(t, other, sleepy.ID(), known); !bytes.Equal(got, want) {
		t.Errorf("answer %x, want %x", got, want)
	}
	if calls.Load() != before+1 {
		t.Error("Wake was not called for another remote")
	}
}

func TestHopServesConnectOnly(t *testing.T) {
	f := newFront(t, p2p.Options{})
	h := outsider(t)
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: f.ID(), Addrs: f.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		req  *pb.HopMessage
		want pb.Status
	}{
		{"reserve", &pb.HopMessage{Type: pb.HopMessage_RESERVE.Enum()}, pb.Status_PERMISSION_DENIED},
		{"connect to nobody", &pb.HopMessage{Type: pb.HopMessage_CONNECT.Enum()}, pb.Status_MALFORMED_MESSAGE},
	} {
		s, err := h.NewStream(testContext(t), f.ID(), "/libp2p/circuit/relay/0.2.0/hop")
		if err != nil {
			t.Fatal(err)
		}
		if err := util.NewDelimitedWriter(s).WriteMsg(tt.req); err != nil {
			t.Fatal(err)
		}
		var got pb.HopMessage
		if err := util.NewDelimitedReader(s, 4096).ReadMsg(&got); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got.GetStatus() != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got.GetStatus(), tt.want)
		}
	}
}

// What the front tells about itself does not depend on its Spaces.
func TestFrontSaysNothingOfSpaces(t *testing.T) {
	f := newFront(t, p2p.Options{}, tcpAddr, quicAddr)
	look := func() (protos []protocol.ID, addrs []string, h host.Host) {
		h = outsider(t)
		if err := h.Connect(testContext(t), peer.AddrInfo{ID: f.ID(), Addrs: f.Host().Addrs()}); err != nil {
			t.Fatal(err)
		}
		protos, err := h.Peerstore().GetProtocols(f.ID())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range h.Peerstore().Addrs(f.ID()) {
			addrs = append(addrs, a.String())
		}
		slices.Sort(protos)
		slices.Sort(addrs)
		return protos, addrs, h
	}
	protos, addrs, _ := look()
	if !slices.Contains(protos, "/libp2p/circuit/relay/0.2.0/hop") {
		t.Fatalf("identify brought %v", protos)
	}
	a, b := newSpace(t, f), newSpace(t, newFront(t, p2p.Options{}))
	a.Handle(syncID, func(s network.Stream) { _ = s.Close() })
	connect(t, a, b)
	authorise(a, b)
	gossip(t, a, b, "busy")
	protosAfter, addrsAfter, h := look()
	if d := cmp.Diff(protos, protosAfter); d != "" {
		t.Errorf("protocols changed:\n%s", d)
	}
	if d := cmp.Diff(addrs, addrsAfter); d != "" {
		t.Errorf("addresses changed:\n%s", d)
	}
	for _, id := range h.Peerstore().Peers() {
		if id == a.ID() || id == b.ID() {
			t.Error("an outsider learned of a space peer")
		}
	}
	for _, id := range f.Host().Peerstore().Peers() {
		if id == a.ID() || id == b.ID() {
			t.Error("the front's peerstore knows a space peer")
		}
	}
}

func TestAddrs(t *testing.T) {
	announce := ma.StringCast("/dns4/node.example/tcp/4001")
	f := newFront(t, p2p.Options{Announce: []ma.Multiaddr{announce}})
	space := keyID(t, newKey(t))
	want := "/dns4/node.example/tcp/4001/p2p/" + f.ID().String()
	if got := f.Addrs(); len(got) != 1 || got[0].String() != want {
		t.Errorf("addrs %v, want %s", got, want)
	}
	want += "/p2p-circuit/p2p/" + space.String()
	if got := f.SpaceAddrs(space); len(got) != 1 || got[0].String() != want {
		t.Errorf("space addrs %v, want %s", got, want)
	}
	both := newFront(t, p2p.Options{}, quicAddr, tcpAddr).Addrs()
	if len(both) != 2 || !strings.Contains(both[0].String(), "/tcp/") || !strings.Contains(both[1].String(), "/quic-v1/") {
		t.Errorf("addrs %v, want tcp, then quic", both)
	}
	for _, a := range both {
		if strings.Contains(a.String(), "/tcp/0/") || strings.Contains(a.String(), "/udp/0/") {
			t.Errorf("port not resolved in %s", a)
		}
	}
}

func TestBadOptions(t *testing.T) {
	if _, err := p2p.New(p2p.Options{}); err == nil {
		t.Error("front without a key")
	}
	if _, err := p2p.New(p2p.Options{Key: newKey(t), Listen: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}}); err == nil {
		t.Error("front on an address that is not ours")
	}
	f := newFront(t, p2p.Options{})
	if _, err := f.Open(t.Context(), p2p.PeerOptions{}); err == nil {
		t.Error("space without a key")
	}
	if _, err := f.Open(t.Context(), p2p.PeerOptions{Key: newKey(t), Hello: sayHi}); err == nil {
		t.Error("hello without a protocol")
	}
}
