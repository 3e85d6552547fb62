package locate_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

// locating is a node with a socket that hosts Spaces and answers where they are.
type locating struct {
	*locate.Locator
	node
	front *p2p.Front
}

// newLocating makes a node that hosts the owner's Space, unless host is "".
func newLocating(t *testing.T, o *owner, name, host string) *locating {
	t.Helper()
	x := &locating{node: node{t: t, o: o, name: keys(name)}}
	x.store = must(capstore.Open(t.Context(), capstore.Options{Services: servicetest.Services(), Database: filepath.Join(t.TempDir(), "caps.db"), Keys: x.name}))
	x.front = must(p2p.New(p2p.Options{
		Key: keys(name + " node").SpaceKey(o.space), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
	}))
	x.Locator = must(locate.New(locate.Options{
		Node: x.front.ID(), Key: x.name.SpaceKey, Spaces: x.store.Spaces, Store: x.store,
	}))
	x.front.Handle(t.Context(), locate.Protocol, x.Serve)
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
	if host != "" {
		x.delegate(host)
	}
	return x
}

// hosted makes a node that the owner made a host.
func hosted(t *testing.T, o *owner, name string) *locating {
	t.Helper()
	return newLocating(t, o, name, o.hosting(keys(name).SpaceKey(o.space), captest.DelegationOptions{IssuedAt: time.Now()}))
}

func (x *locating) info(t *testing.T) peer.AddrInfo {
	t.Helper()
	return must(p2p.ParseFrontAddr(x.front.Addrs()[0].String()))
}

func (x *locating) stream(t *testing.T, to *locating) network.Stream {
	t.Helper()
	return must(x.front.NewStream(t.Context(), to.info(t), locate.Protocol))
}

func (x *locating) ask(t *testing.T, to *locating, private bool) (peer.ID, error) {
	t.Helper()
	return x.Ask(t.Context(), x.stream(t, to), x.o.space, private)
}

func (x *locating) spacePeer() peer.ID {
	return must(p2p.PeerIDFromEd25519(x.key().Public().(ed25519.PublicKey)))
}

func TestWhere(t *testing.T) {
	o := newOwner("where")
	a, b := hosted(t, o, "a"), hosted(t, o, "b")
	if got, err := a.ask(t, b, false); err != nil || got != b.spacePeer() {
		t.Errorf("answer %s, %v; want %s", got, err, b.spacePeer())
	}
	if _, err := a.ask(t, b, true); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("private without a key: %v", err)
	}
	one := must(a.store.Rendezvous(t.Context(), o.space, true))
	if _, err := a.ask(t, b, true); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("private with a key of its own: %v", err)
	}
	from := hostlog.Key(keys("b").SpaceKey(o.space).Public().(ed25519.PublicKey)) // the one host that b knows
	if err := b.store.SaveRendezvous(t.Context(), o.space, from, one); err != nil {
		t.Fatal(err)
	}
	if got, err := a.ask(t, b, true); err != nil || got != b.spacePeer() {
		t.Errorf("private answer %s, %v; want %s", got, err, b.spacePeer())
	}
	// What the digest of the Space id opened stays open to joiners, who have no other.
	if got, err := a.ask(t, b, false); err != nil || got != b.spacePeer() {
		t.Errorf("answer %s, %v; want %s", got, err, b.spacePeer())
	}
}

// refusedWith says how long a stream stayed open after what was sent, and that some bytes came that are always the same.
func refusedWith(t *testing.T, s network.Stream, send func(nonce [32]byte) []byte, want []byte) (time.Duration, error) {
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
	if got, _ := io.ReadAll(s); !bytes.Equal(got, want) { // however the stream ends
		return 0, fmt.Errorf("there was an answer: %x", got)
	}
	return time.Since(began), nil
}

func TestWhereRefuses(t *testing.T) {
	o, other := newOwner("where"), newOwner("somebody")
	b := hosted(t, o, "b")
	host := hosted(t, o, "host")
	thief := newLocating(t, o, "thief", "")
	elsewhere := hosted(t, other, "elsewhere")
	random := func() (n [32]byte) { _, _ = rand.Read(n[:]); return n }
	question := func(l *locating, from, to peer.ID, n wire.Nonces, space tinycloud.SpaceID) []byte {
		return must(locate.Question(t.Context(), l.Locator, from, to, n, space))
	}
	// with asks with the delegation of host and another key.
	with := func(key ed25519.PrivateKey) *locating {
		return &locating{Locator: must(locate.New(locate.Options{
			Node: thief.front.ID(), Key: func(tinycloud.SpaceID) ed25519.PrivateKey { return key }, Spaces: host.store.Spaces,
			Store: host.store,
		}))}
	}
	fromThief := func(l *locating) func(nonce [32]byte) []byte {
		return func(nonce [32]byte) []byte {
			return question(l, thief.front.ID(), b.front.ID(), wire.Nonces{Dialer: random(), Responder: nonce}, o.space)
		}
	}
	for _, tt := range []struct {
		name string
		send func(nonce [32]byte) []byte
	}{
		{"a copy of another node's question", func(nonce [32]byte) []byte {
			return question(host, host.front.ID(), b.front.ID(), wire.Nonces{Dialer: random(), Responder: nonce}, o.space)
		}},
		{"a question to another node", func(nonce [32]byte) []byte {
			return question(host, thief.front.ID(), host.front.ID(), wire.Nonces{Dialer: random(), Responder: nonce}, o.space)
		}},
		{"a question of before", func([32]byte) []byte {
			return question(host, thief.front.ID(), b.front.ID(), wire.Nonces{Dialer: random(), Responder: random()}, o.space)
		}},
		{"another space", func(nonce [32]byte) []byte {
			return question(elsewhere, thief.front.ID(), b.front.ID(), wire.Nonces{Dialer: random(), Responder: nonce}, other.space)
		}},
		{"no host's delegation", fromThief(with(thief.key()))},
		{"no host's signature", fromThief(with(append(thief.key()[:32:32], host.key()[32:]...)))},
		{"junk", func([32]byte) []byte { return wiretest.Frame(bytes.Repeat([]byte{0xff}, 100)) }},
		{"an empty frame", func([32]byte) []byte { return []byte{0} }},
		{"a frame too long", func([32]byte) []byte { return []byte{0xff, 0xff, 0x7f} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			took, err := refusedWith(t, thief.stream(t, b), tt.send, locate.NoneAnswer())
			if err != nil {
				t.Fatal(err)
			}
			if took < locate.RefusedAfter {
				t.Errorf("refused after %s, others after %s", took, locate.RefusedAfter)
			}
		})
	}
	t.Run("a revoked host", func(t *testing.T) {
		header := o.hosting(keys("gone").SpaceKey(o.space), captest.DelegationOptions{IssuedAt: time.Now()})
		gone := newLocating(t, o, "gone", header)
		if got, err := gone.ask(t, b, false); err != nil || got != b.spacePeer() {
			t.Fatalf("before: %s, %v", got, err)
		}
		b.delegate(header)
		b.revoke(o.wallet.SignRevocation(captest.ID(header)))
		if got, err := gone.ask(t, b, false); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("answer %s, %v", got, err)
		}
	})
	t.Run("a space that is not here", func(t *testing.T) {
		if got, err := host.ask(t, elsewhere, false); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("answer %s, %v", got, err)
		}
	})
}

// A question shows nobody whose Space it is about, who asks and who may.
func TestWhereShowsNothing(t *testing.T) {
	o := newOwner("where")
	a := hosted(t, o, "a")
	frame := must(locate.Question(t.Context(), a.Locator, a.front.ID(), a.front.ID(), wire.Nonces{}, o.space))
	key := a.key().Public().(ed25519.PublicKey)
	for _, secret := range []string{o.space.String(), string(o.space.Owner()), didOf(a.key()), string(key), "tinycloud:", "did:"} {
		if bytes.Contains(frame, []byte(secret)) {
			t.Errorf("question holds %q", secret)
		}
	}
	chain := must(a.store.HostChain(t.Context(), o.space))
	if !strings.Contains(string(chain[0]), "tinycloud:") {
		t.Error("the search finds nothing anywhere")
	}
	if len(frame) > wire.MaxHello {
		t.Errorf("question of %d bytes", len(frame))
	}
}

// Strangers that ask without end cost little, and do not keep others from asking.
func TestWhereIsBounded(t *testing.T) {
	o := newOwner("where")
	a, b := hosted(t, o, "a"), hosted(t, o, "b")
	wiretest.Besiege(t, func() (network.Stream, error) { return a.front.NewStream(t.Context(), b.info(t), locate.Protocol) })
}

// Only a node's word that there is none is a no. A paired node gets it at once; a node that can't tell, as it starts or
// its database fails, says nothing.
func TestWhereNone(t *testing.T) {
	o, other := newOwner("where"), newOwner("somebody")
	a, b := hosted(t, o, "a"), hosted(t, other, "b")
	ask := func(responder *locate.Locator) (time.Duration, error) {
		t.Helper()
		b.front.Handle(t.Context(), locate.Protocol, responder.Serve)
		began := time.Now()
		_, err := a.ask(t, b, false)
		return time.Since(began), err
	}
	with := func(trusted bool, ready error) *locate.Locator {
		return must(locate.New(locate.Options{
			Node: b.front.ID(), Key: b.name.SpaceKey, Spaces: b.store.Spaces, Store: b.store,
			Trusted: func(id peer.ID) bool { return trusted && id == a.front.ID() },
			Ready:   func(context.Context) error { return ready },
		}))
	}
	if took, err := ask(with(false, nil)); !errors.Is(err, locate.ErrNone) || took < locate.RefusedAfter {
		t.Errorf("a stranger: %v after %s", err, took)
	}
	if took, err := ask(with(true, nil)); !errors.Is(err, locate.ErrNone) || took >= locate.RefusedAfter {
		t.Errorf("a paired node: %v after %s", err, took)
	}
	if _, err := ask(with(true, tinycloud.ErrUnavailable)); err == nil || errors.Is(err, locate.ErrNone) {
		t.Errorf("a node that starts: %v", err)
	}
	b.front.Handle(t.Context(), locate.Protocol, func(_ context.Context, s network.Stream) { _ = s.Reset() })
	if _, err := a.ask(t, b, false); err == nil || errors.Is(err, locate.ErrNone) {
		t.Errorf("a node that resets: %v", err)
	}
}

// A node of before takes the new answer for one of another question: a refusal, and no Space peer.
func TestWhereNoneToOlderNodes(t *testing.T) {
	b := locate.NoneAnswer()
	if tag, err := locate.AnswerTag(b); err != nil || tag != ([32]byte{}) {
		t.Errorf("tag %x, %v", tag, err)
	}
	if len(b) != 70 {
		t.Errorf("%d bytes, and an answer has 70", len(b))
	}
}

func FuzzWhere(f *testing.F) {
	f.Add(locate.NoneAnswer()[1:]) // without its length
	f.Add([]byte{0x83})
	f.Add([]byte(fmt.Sprintf("\x83\x58\x20%032d\x58\x20%032d\x40", 0, 0)))
	f.Fuzz(func(_ *testing.T, b []byte) { locate.Try(b) })
}
