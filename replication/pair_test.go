package replication_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

// pairing is a node with a socket that makes and uses invites.
type pairing struct {
	*replication.Pairing
	t     *testing.T
	store *capstore.Store
	front *p2p.Front
	tells []ma.Multiaddr // addresses, instead of its own
	ahead atomic.Int64   // of the store's clock, in nanoseconds
}

func newPairing(t *testing.T, name string) *pairing {
	t.Helper()
	x := &pairing{t: t}
	x.store = must(capstore.Open(t.Context(), capstore.Options{
		Services: servicetest.Services(), Database: filepath.Join(t.TempDir(), "caps.db"), Keys: keys(name),
		Now: func() time.Time { return time.Now().Add(time.Duration(x.ahead.Load())) },
	}))
	x.front = must(p2p.New(p2p.Options{
		Key: keys(name + " node").SpaceKey(newOwner("nobody").space), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
	}))
	x.Pairing = must(replication.NewPairing(replication.PairingOptions{
		Node: x.front.ID(), Store: x.store, Addrs: func() []ma.Multiaddr {
			if x.tells != nil {
				return x.tells
			}
			return x.front.Addrs()
		},
	}))
	x.front.Handle(t.Context(), wire.PairProtocol, x.Serve)
	ctx, cancel := context.WithCancel(context.Background())
	var writer sync.WaitGroup
	writer.Go(func() { _ = x.store.Run(ctx) })
	t.Cleanup(func() {
		err := x.front.Close()
		cancel()
		writer.Wait()
		if err := errors.Join(err, x.store.Close()); err != nil {
			t.Error(err)
		}
	})
	return x
}

// invite makes an invite to the node.
func (x *pairing) invite() replication.Invite {
	x.t.Helper()
	i := must(replication.NewInvite(x.front.ID(), x.front.Addrs(), time.Now().Add(time.Hour)))
	must(x.store.AddInvite(x.t.Context(), i.ID(), time.Hour))
	return i
}

func (x *pairing) stream(to *pairing) network.Stream {
	x.t.Helper()
	info := must(p2p.ParseFrontAddr(to.front.Addrs()[0].String()))
	return must(x.front.NewStream(x.t.Context(), info, wire.PairProtocol))
}

func (x *pairing) use(to *pairing, i replication.Invite) error {
	x.t.Helper()
	_, err := x.Use(x.t.Context(), x.stream(to), &i)
	return err
}

func (x *pairing) paired() []hostlog.PairedNode {
	x.t.Helper()
	return must(x.store.Paired(x.t.Context()))
}

// transports are the addresses of the node without its name.
func (x *pairing) transports() (out []string) {
	for _, a := range x.front.Addrs() {
		transport, _ := peer.SplitAddr(a)
		out = append(out, transport.String())
	}
	return out
}

func TestPairByInvite(t *testing.T) {
	a, b := newPairing(t, "a"), newPairing(t, "b")
	text := func() string { i := a.invite(); return i.Text() }()
	i := must(replication.ParseInvite(text))
	check := func(x, other *pairing) {
		t.Helper()
		list := x.paired()
		if len(list) != 1 || list[0].Peer != other.front.ID().String() || !list[0].Back || !slices.Equal(list[0].Addrs, other.transports()) {
			t.Errorf("paired %+v, want %s at %q", list, other.front.ID(), other.transports())
		}
	}
	for range 2 { // the answer may be lost: the same node may show it again
		if err := b.use(a, i); err != nil {
			t.Fatal(err)
		}
		check(a, b)
		check(b, a)
	}
	c := newPairing(t, "c")
	if err := c.use(a, i); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("another node uses it: %v", err)
	}
	check(a, b)
	if list := c.paired(); len(list) != 0 {
		t.Errorf("the other node paired %+v", list)
	}
}

func TestPairRefuses(t *testing.T) {
	a, stranger := newPairing(t, "a"), newPairing(t, "stranger")
	used := a.invite()
	if err := newPairing(t, "friend").use(a, used); err != nil {
		t.Fatal(err)
	}
	open, elsewhere := a.invite(), newPairing(t, "elsewhere").invite()
	before := a.paired()
	random := func() (n [32]byte) { _, _ = rand.Read(n[:]); return n }
	show := func(secret [32]byte, dialer, responder peer.ID, addrs ...string) func([32]byte) []byte {
		return func(nonce [32]byte) []byte {
			n := wire.Nonces{Dialer: random(), Responder: nonce}
			return wiretest.PairFrame(n.Dialer, secret, replication.PairTag(secret, dialer, responder, n, true), addrs...)
		}
	}
	me, it := stranger.front.ID(), a.front.ID()
	for _, tt := range []struct {
		name string
		send func(nonce [32]byte) []byte
	}{
		{"no invite", show(random(), me, it)},
		{"an invite of another node", show(elsewhere.Secret, me, it)},
		{"a used invite", show(used.Secret, me, it)},
		{"the hash that is stored", show([32]byte(open.ID()), me, it)},
		{"a tag of another dialer", show(open.Secret, it, it)},
		{"a tag of another responder", show(open.Secret, me, me)},
		{"a tag of before", func([32]byte) []byte { return show(open.Secret, me, it)(random()) }},
		{"a tag of the responder", func(nonce [32]byte) []byte {
			n := wire.Nonces{Dialer: random(), Responder: nonce}
			return wiretest.PairFrame(n.Dialer, open.Secret, replication.PairTag(open.Secret, me, it, n, false))
		}},
		{"too many addresses", show(open.Secret, me, it, slices.Repeat([]string{"/ip4/8.8.8.8/tcp/1"}, 33)...)},
		{"no address", show(open.Secret, me, it, "nonsense")},
		{"a relay's address", show(open.Secret, me, it, "/ip4/8.8.8.8/tcp/1/p2p/"+it.String()+"/p2p-circuit")},
		{"another spelling of an address", show(open.Secret, me, it, "/ip4/8.8.8.8/tcp/1/")},
		{"junk", func([32]byte) []byte { return wiretest.Frame(bytes.Repeat([]byte{0xff}, 100)) }},
		{"an empty frame", func([32]byte) []byte { return []byte{0} }},
		{"a frame too long", func([32]byte) []byte { return []byte{0x81, 0x80, 0x01} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			took, err := refused(t, stranger.stream(a), tt.send)
			if err != nil {
				t.Fatal(err)
			}
			if took < locate.RefusedAfter {
				t.Errorf("refused after %s, others after %s", took, locate.RefusedAfter)
			}
		})
	}
	a.ahead.Store(int64(time.Hour))
	t.Run("an expired invite", func(t *testing.T) {
		if took, err := refused(t, stranger.stream(a), show(open.Secret, me, it)); err != nil || took < locate.RefusedAfter {
			t.Error(took, err)
		}
	})
	if list := a.paired(); len(list) != len(before) || list[0].Peer != before[0].Peer {
		t.Errorf("paired %+v", list)
	}
	a.ahead.Store(0)
	if err := stranger.use(a, open); err != nil {
		t.Errorf("what was refused took the invite: %v", err)
	}
}

// What a node says of its addresses does not make others dial about in their own network.
func TestPairToldAddrs(t *testing.T) {
	a, b := newPairing(t, "a"), newPairing(t, "b")
	for _, text := range []string{
		"/ip4/8.8.8.8/tcp/1", "/dns4/example.org/tcp/1", "/ip4/127.0.0.1/tcp/7", "/ip4/10.0.0.1/tcp/1", "/ip4/169.254.169.254/tcp/80",
		"/ip6/::1/tcp/1", "/dns4/localhost/tcp/1",
	} {
		b.tells = append(b.tells, ma.StringCast(text))
	}
	if err := b.use(a, a.invite()); err != nil {
		t.Fatal(err)
	}
	want := []string{"/ip4/8.8.8.8/tcp/1", "/dns4/example.org/tcp/1"}
	if list := a.paired(); len(list) != 1 || !slices.Equal(list[0].Addrs, want) {
		t.Errorf("paired %+v", list)
	}
	// The one it is connected from is no secret, in whatever network.
	b.tells = b.tells[2:3]
	if err := b.use(a, a.invite()); err != nil {
		t.Fatal(err)
	}
	if list := a.paired(); len(list) != 1 || !slices.Equal(list[0].Addrs, append([]string{"/ip4/127.0.0.1/tcp/7"}, want...)) {
		t.Errorf("paired %+v", list)
	}
}

// An answer counts only from the node that the invite names, and for this invite.
func TestPairChecksTheAnswer(t *testing.T) {
	a, b, liar := newPairing(t, "a"), newPairing(t, "b"), newPairing(t, "liar")
	if err := b.use(liar, a.invite()); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("another node: %v", err)
	}
	i := liar.invite()
	wrong := i
	_, _ = rand.Read(wrong.Secret[:])
	if err := b.use(liar, wrong); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("another secret: %v", err)
	}
	liar.front.Handle(t.Context(), wire.PairProtocol, func(_ context.Context, s network.Stream) { // instead of the true one
		_, _ = s.Write(wiretest.HelloNonce([32]byte{}))
		_, _ = s.Read(make([]byte, 1))
		_, _ = s.Write(wiretest.PairAnswer([32]byte{1}))
		_ = s.Close()
	})
	if err := b.use(liar, i); !errors.Is(err, tinycloud.ErrForged) {
		t.Errorf("an answer without the secret: %v", err)
	}
	if list := b.paired(); len(list) != 0 {
		t.Errorf("paired %+v", list)
	}
}

// Strangers that try without end cost little, and do not keep others from pairing for long.
func TestPairIsBounded(t *testing.T) {
	a, b := newPairing(t, "a"), newPairing(t, "b")
	to := must(p2p.ParseFrontAddr(b.front.Addrs()[0].String()))
	wiretest.Besiege(t, func() (network.Stream, error) { return a.front.NewStream(t.Context(), to, wire.PairProtocol) })
}

func FuzzPair(f *testing.F) {
	f.Add(wiretest.PairFrame([32]byte{1}, [32]byte{2}, [32]byte{3}, "/ip4/8.8.8.8/tcp/1")[2:])
	f.Add([]byte(fmt.Sprintf("\x82\x58\x20%032d\x80", 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, again := range wiretest.SpellPair(b) {
			if !bytes.Equal(again, b) {
				t.Errorf("%x becomes %x", b, again)
			}
		}
	})
}

// refused says how long a stream stayed open after what was sent; nothing may come.
func refused(t *testing.T, s network.Stream, send func(nonce [32]byte) []byte) (time.Duration, error) {
	t.Helper()
	defer func() { _ = s.Reset() }()
	first := make([]byte, 35) // length, array of one, head and bytes of the nonce
	first = append(first, 0)
	if _, err := io.ReadFull(s, first); err != nil {
		t.Fatal(err)
	}
	nonce, err := wiretest.NonceOf(first)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := s.Write(send(nonce)); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(s); len(got) > 0 { // however the stream ends
		return 0, fmt.Errorf("there was an answer: %x", got)
	}
	return time.Since(began), nil
}
