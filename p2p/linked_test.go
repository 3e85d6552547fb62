package p2p_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// processesOf are two processes of one node: one has the front, the other is linked to it.
type processesOf struct {
	front, linked *p2p.Front
	key           ed25519.PrivateKey // of the node
	gone          chan struct{}
	lost          chan peer.ID // of the linked one

	mu   sync.Mutex
	of   *p2p.Process                   // guarded by mu
	wake func(context.Context, peer.ID) // guarded by mu
}

func newProcesses(t *testing.T) *processesOf {
	t.Helper()
	return newProcessesWith(t, p2p.Options{})
}

func newProcessesWith(t *testing.T, o p2p.Options) *processesOf {
	t.Helper()
	x := &processesOf{key: newKey(t), gone: make(chan struct{}, 1), lost: make(chan peer.ID, 16)}
	process := newKey(t)
	o.Key, o.Process = x.key, process
	x.front = newFront(t, o)
	err := x.front.ServeProcesses(t.Context(), process, p2p.ProcessOptions{
		Deal: func(_ context.Context, p *p2p.Process, said []byte) ([]byte, error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.of = p
			return append([]byte("dealt to "), said...), nil
		},
		Gone: func(*p2p.Process) { x.gone <- struct{}{} },
		Call: func(_ context.Context, asked []byte) ([]byte, error) { return append([]byte("front: "), asked...), nil },
		Of: func(peer.ID) *p2p.Process {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.of
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := x.front.ListenAddrs()
	if err != nil {
		t.Fatal(err)
	}
	x.linked, err = p2p.Linked(testContext(t), p2p.Options{
		Key: x.key, Process: process, Log: logTo(t), Lost: func(id peer.ID) { x.lost <- id },
		Wake: func(ctx context.Context, id peer.ID, by p2p.Caller) bool {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.wake == nil || by.Origin == "" {
				return false
			}
			x.wake(ctx, id)
			return true
		},
	}, p2p.LinkOptions{Addrs: addrs, Call: func(_ context.Context, asked []byte) ([]byte, error) {
		return append([]byte("linked: "), asked...), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.linked.Close(); err != nil {
			t.Error(err)
		}
	})
	x.ask(t)
	return x
}

func (x *processesOf) ask(t *testing.T) {
	t.Helper()
	if got, err := x.linked.Ask(testContext(t), []byte("me")); err != nil || string(got) != "dealt to me" {
		t.Fatalf("%q, %v", got, err)
	}
}

// Space peers of a process that has no front dial and are dialed, asleep or not, as if they were at the front.
func TestLinkedSpacePeers(t *testing.T) {
	x := newProcesses(t)
	if x.linked.ID() != x.front.ID() || !slices.EqualFunc(x.linked.Addrs(), x.front.Addrs(), ma.Multiaddr.Equal) {
		t.Errorf("linked %s at %s, front %s at %s", x.linked.ID(), x.linked.Addrs(), x.front.ID(), x.front.Addrs())
	}
	other := newFront(t, p2p.Options{})
	a, b := newSpace(t, x.linked), newSpace(t, other)
	connect(t, a, b) // it dials
	authorise(a, b)
	gossip(t, a, b, "from the linked one")
	gossip(t, b, a, "to the linked one")
	if home := b.Home(a.ID()); home != x.front.ID() {
		t.Errorf("it is taken for one of %s", home)
	}
	block := a.put(t, "a block")
	if got := b.fetch(t, soon, block); len(got) != 1 {
		t.Errorf("fetched %q", got)
	}

	c, d := newSpace(t, x.linked), newSpace(t, other)
	connect(t, d, c) // it is dialed
	authorise(c, d)
	gossip(t, c, d, "dialed")

	key, opened := newKey(t), make(chan *space, 1)
	x.mu.Lock()
	x.wake = func(_ context.Context, id peer.ID) {
		if id == keyID(t, key) {
			opened <- newSpace(t, x.linked, withKey(key))
		}
	}
	x.mu.Unlock()
	e := newSpace(t, other)
	if err := e.Connect(testContext(t), infoOf(keyID(t, key), x.front.SpaceAddrs(keyID(t, key)))); err != nil {
		t.Fatal(err)
	}
	wait(t, opened, "open space")

	// One that is at the front itself is not looked for elsewhere.
	f, g := newSpace(t, x.front), newSpace(t, other)
	connect(t, g, f)
}

// Hosts that cannot reach each other meet over a third whose Space is another process's, once that one authorised both.
func TestLinkedRelay(t *testing.T) {
	x := newProcessesWith(t, p2p.Options{NAT: true})
	fa, fb := hidden(t), hidden(t)
	m, a, b := newSpace(t, x.linked), newSpace(t, fa), newSpace(t, fb)
	connect(t, a, m)
	connect(t, b, m)
	authorise(a, m)
	x.ask(t)
	if err := a.Connect(testContext(t), by(fb, b)); !errors.Is(err, p2p.ErrUnreachable) {
		t.Fatalf("one is authorised: %v", err)
	}
	authorise(b, m)
	x.ask(t)
	if err := a.Connect(testContext(t), by(fb, b)); err != nil {
		t.Fatal(err)
	}
	wait(t, b.up, "connected at the listener")
}

// Unknown to the linked process is as unknown as ever.
func TestLinkedRefusals(t *testing.T) {
	x := newProcesses(t)
	h := outsider(t)
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: x.front.ID(), Addrs: x.front.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	unknown := keyID(t, newKey(t))
	got := connectRequest(t, h, x.front.ID(), unknown)
	empty := newFront(t, p2p.Options{})
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: empty.ID(), Addrs: empty.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	if want := connectRequest(t, h, empty.ID(), unknown); !bytes.Equal(got, want) {
		t.Errorf("answer %x, want %x", got, want)
	}
	// Who does not know the node's secret is heard by nobody.
	s, err := h.NewStream(testContext(t), x.front.ID(), "/tinycloud/process/1")
	if err == nil {
		_, err = s.Write([]byte("\x00\x00\x00\x0f{\"Kind\":\"link\"}"))
		if err == nil {
			_, err = s.Read(make([]byte, 1))
		}
	}
	if err == nil {
		t.Error("a stranger is answered")
	}
}

// What a front does beside Space peers it does for the linked process.
func TestLinkedErrands(t *testing.T) {
	x := newProcesses(t)
	other := newFront(t, p2p.Options{})
	other.Handle(t.Context(), "/echo/1", func(ctx context.Context, s network.Stream) {
		if s.Conn().RemotePeer() == x.front.ID() {
			sayHi(ctx, s)
		}
	})
	to := peer.AddrInfo{ID: other.ID(), Addrs: other.Host().Addrs()}
	s, err := x.linked.NewStream(testContext(t), to, "/echo/1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Conn().RemotePeer() != other.ID() || !slices.ContainsFunc(to.Addrs, s.Conn().RemoteMultiaddr().Equal) {
		t.Errorf("stream of %s at %s", s.Conn().RemotePeer(), s.Conn().RemoteMultiaddr())
	}
	answer := make([]byte, 2)
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(answer); err != nil || string(answer[:n]) != "hi" {
		t.Errorf("%q, %v", answer[:n], err)
	}
	_ = s.Reset()
	if _, err := x.linked.NewStream(testContext(t), to, "/none/1"); !errors.Is(err, p2p.ErrUnreachable) {
		t.Errorf("a protocol that it does not speak: %v", err)
	}
	away := peer.AddrInfo{ID: keyID(t, newKey(t)), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}}
	if err := x.linked.Connect(testContext(t), away); !errors.Is(err, p2p.ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	if err := x.linked.Connect(testContext(t), to); err != nil {
		t.Error(err)
	}
	if _, ok := x.linked.Keep(away.ID); ok {
		t.Error("keeps what is not connected")
	}
	release, ok := x.linked.Keep(to.ID)
	if !ok {
		t.Fatal("does not keep a connection")
	}
	defer release()
	if again, ok := x.linked.Keep(to.ID); !ok {
		t.Error("does not keep it twice")
	} else {
		again()
	}
	if got, err := x.linked.Call(testContext(t), []byte("?")); err != nil || string(got) != "front: ?" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := x.of.Call(testContext(t), []byte("?")); err != nil || string(got) != "linked: ?" {
		t.Errorf("%q, %v", got, err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told of a lost front", func() bool {
		x.ask(t)
		select {
		case id := <-x.lost:
			return id == to.ID
		default:
			return false
		}
	})
	if _, ok := x.linked.Keep(to.ID); ok {
		t.Error("keeps what was lost")
	}
}

// A link ends for both when either process does.
func TestLinkEnds(t *testing.T) {
	x := newProcesses(t)
	a, b := newSpace(t, x.linked), newSpace(t, newFront(t, p2p.Options{}))
	connect(t, a, b)
	if err := x.front.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, a.down, "disconnected")
	wait(t, b.down, "disconnected")
	if _, err := x.linked.Ask(testContext(t), nil); !errors.Is(err, p2p.ErrUnreachable) {
		t.Error(err)
	}

	y := newProcesses(t)
	if err := y.linked.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-y.gone:
	case <-time.After(soon):
		t.Error("the process is not gone")
	}
}
