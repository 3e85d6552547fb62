package replication_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

type peerID = peer.ID

// outsider is a peer that a test drives by hand. It speaks the first version of the handshake if not told otherwise.
type outsider struct {
	*endpoint
	key  ed25519.PrivateKey
	gone chan struct{}
	told atomic.Int64 // gossip messages
	// answer serves what others open to it; nil: everything is reset.
	answer func(network.Stream)
}

func newOutsider(t *testing.T, f *fabric, o *owner, name string) *outsider {
	t.Helper()
	x := &outsider{key: keys(name).SpaceKey(o.space), gone: make(chan struct{}, 64)}
	id := must(peer.IDFromPrivateKey(must(crypto.UnmarshalEd25519PrivateKey(x.key))))
	serve := func(s network.Stream) {
		if x.answer == nil {
			_ = s.Reset()
			return
		}
		x.answer(s)
	}
	x.endpoint = f.add(t, id, hooks{
		hello:        func(_ context.Context, s network.Stream) { serve(s) },
		sync:         serve,
		check:        func(context.Context, peer.ID, []byte) error { x.told.Add(1); return nil },
		connected:    func(peer.ID, network.Direction) {},
		disconnected: func(peer.ID) { x.gone <- struct{}{} },
	}, nil)
	x.greets = []protocol.ID{wire.FirstHello}
	return x
}

func digestToSign(e hostlog.Entry) []byte {
	d := e.Digest()
	return append([]byte("tinycloud/hostlog/1"), d[:]...)
}

func bytesOf(t testing.TB, header string) []byte {
	t.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		t.Fatal(err)
	}
	return tok.Bytes
}

// greet runs the dialer's handshake by hand, in a version that x speaks, and returns every byte that came back.
func (x *outsider) greet(t *testing.T, n *node, proof func(nonces wire.Nonces) []byte) []byte {
	t.Helper()
	if err := x.Connect(t.Context(), peer.AddrInfo{ID: n.id}); err != nil {
		t.Fatal(err)
	}
	s, err := x.NewStream(t.Context(), n.id, wire.HelloProtocols()...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first := wiretest.HelloNonce([32]byte{})
	if s.Protocol() == wire.HelloProtocol {
		first = wiretest.FieldsNonce([32]byte{})
	}
	if _, err := io.ReadFull(s, first); err != nil {
		t.Fatal(err)
	}
	nonce, err := wiretest.NonceOf(first)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write(proof(wire.Nonces{Dialer: [32]byte{1}, Responder: nonce, Version: s.Protocol()}))
	rest, _ := io.ReadAll(s)
	return rest
}

func TestHandshakeRefuses(t *testing.T) {
	for _, version := range wire.HelloProtocols() {
		t.Run(string(version), func(t *testing.T) { handshakeRefuses(t, version) })
	}
}

func handshakeRefuses(t *testing.T, version protocol.ID) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("hello")
		n := newNode(t, f, o, "host")
		n.delegate(o.header)
		n.put("secret", "do not tell")
		x := newOutsider(t, f, o, "outsider")
		x.greets = []protocol.ID{version}
		var told []byte
		if version == wire.HelloProtocol {
			told = wiretest.Told(servicetest.Hello())
		}
		now := time.Now()
		did, other := didOf(x.key), didOf(keys("someone else").SpaceKey(o.space))
		revoked := o.hosting(x.key, captest.DelegationOptions{IssuedAt: now.Add(-time.Second)})
		n.delegate(revoked)
		n.revoke(o.wallet.SignRevocation(captest.ID(revoked)))
		good := o.hosting(x.key, captest.DelegationOptions{IssuedAt: now})
		forged := bytesOf(t, good)
		forged = append(bytes.Clone(forged[:len(forged)-3]), forged[len(forged)-3]^1, forged[len(forged)-2], forged[len(forged)-1])
		elsewhere := o.wallet.Space("elsewhere")
		manager := captest.NewSession("manager")
		hosting := captest.HostOptions(o.space, manager.URI())
		hosting.IssuedAt, hosting.Expires = now, now.Add(2*time.Hour)
		above := o.wallet.SignDelegation(hosting)
		below := manager.Delegate(tinycloud.Principal(did), captest.TokenOptions{
			Caps: hosting.Caps, Proofs: []tinycloud.Hash{captest.ID(above)}, Expires: now.Add(time.Hour),
		})
		hosting.IssuedAt, hosting.Expires = now.Add(-2*time.Hour), now.Add(-time.Hour)
		ended := o.wallet.SignDelegation(hosting)
		belowEnded := manager.Delegate(tinycloud.Principal(did), captest.TokenOptions{
			Caps: hosting.Caps, Proofs: []tinycloud.Hash{captest.ID(ended)}, Expires: now.Add(time.Hour),
		})
		tag := func(dialer, responder peer.ID, change func(*wire.Nonces), ofDialer bool) func(wire.Nonces) [32]byte {
			return func(ns wire.Nonces) [32]byte {
				change(&ns)
				return replication.HelloTag(o.space, dialer, responder, ns, ofDialer, told...)
			}
		}
		unchanged := func(*wire.Nonces) {}
		tests := []struct {
			name  string
			space tinycloud.SpaceID // in the tag
			tag   func(wire.Nonces) [32]byte
			chain [][]byte
			raw   []byte // instead of a proof
			ok    bool
		}{
			{name: "no delegation", space: o.space},
			{name: "another space's", space: o.space, chain: [][]byte{bytesOf(t, o.wallet.SignHost(elsewhere, did))}},
			{name: "another host's", space: o.space, chain: [][]byte{bytesOf(t, o.wallet.SignHost(o.space, other))}},
			{name: "of another owner", space: o.space, chain: [][]byte{bytesOf(t, captest.NewWallet("mallory").SignHost(o.space, did))}},
			{name: "a session's", space: o.space, chain: [][]byte{bytesOf(t, o.header)}},
			{name: "expired", space: o.space, chain: [][]byte{bytesOf(t, o.hosting(x.key, captest.DelegationOptions{IssuedAt: now.Add(-2 * time.Hour), Expires: now.Add(-time.Hour)}))}},
			{name: "of the future", space: o.space, chain: [][]byte{bytesOf(t, o.hosting(x.key, captest.DelegationOptions{IssuedAt: now, NotBefore: now.Add(time.Hour)}))}},
			{name: "revoked", space: o.space, chain: [][]byte{bytesOf(t, revoked)}},
			{name: "forged", space: o.space, chain: [][]byte{forged}},
			{name: "tag of another space", space: elsewhere, chain: [][]byte{bytesOf(t, good)}},
			{name: "too many tokens", space: o.space, chain: slicesRepeat(bytesOf(t, good), 17)},
			{name: "tag of the other role", tag: tag(x.id, n.id, unchanged, false), chain: [][]byte{bytesOf(t, good)}},
			{name: "tag of the other direction", tag: tag(n.id, x.id, unchanged, true), chain: [][]byte{bytesOf(t, good)}},
			{name: "tag for another responder", tag: tag(x.id, x.id, unchanged, true), chain: [][]byte{bytesOf(t, good)}},
			{name: "tag of another dialer", tag: tag(n.id, n.id, unchanged, true), chain: [][]byte{bytesOf(t, good)}},
			{name: "tag of another nonce of its own", tag: tag(x.id, n.id, func(ns *wire.Nonces) { ns.Dialer[0] ^= 1 }, true), chain: [][]byte{bytesOf(t, good)}},
			{name: "tag of another nonce of ours", tag: tag(x.id, n.id, func(ns *wire.Nonces) { ns.Responder[0] ^= 1 }, true), chain: [][]byte{bytesOf(t, good)}},
			{name: "without what it rests on", space: o.space, chain: [][]byte{bytesOf(t, below)}},
			{name: "what it rests on alone", space: o.space, chain: [][]byte{bytesOf(t, above)}},
			{name: "in another order", space: o.space, chain: [][]byte{bytesOf(t, above), bytesOf(t, below)}},
			{name: "resting on what has ended", space: o.space, chain: [][]byte{bytesOf(t, belowEnded), bytesOf(t, ended)}},
			{name: "of a manager", space: o.space, chain: [][]byte{bytesOf(t, below), bytesOf(t, above)}, ok: true},
			{name: "garbage", raw: []byte("\x05hello")},
			{name: "empty frame", raw: []byte{0}},
			{name: "oversized frame", raw: wiretest.Frame(make([]byte, wire.MaxHello+1))},
			{name: "endless length", raw: bytes.Repeat([]byte{0xff}, 16)},
			{name: "good", space: o.space, chain: [][]byte{bytesOf(t, good)}, ok: true},
		}
		for _, tt := range tests {
			rest := x.greet(t, n, func(ns wire.Nonces) []byte {
				if tt.raw != nil {
					return tt.raw
				}
				if tt.tag != nil {
					return wiretest.Proof(ns, tt.tag(ns), tt.chain, told)
				}
				return wiretest.Proof(ns, replication.HelloTag(tt.space, x.id, n.id, ns, true, told...), tt.chain, told)
			})
			if got := n.end.IsAuthorised(x.id); got != tt.ok {
				t.Errorf("%s: authorised %v", tt.name, got)
			}
			if (len(rest) > 0) != tt.ok {
				t.Errorf("%s: %d bytes came back", tt.name, len(rest))
			}
			n.put("secret", tt.name)
			synctest.Wait()
			if told := x.told.Load() > 0; told {
				t.Errorf("%s: it got a message", tt.name) // it never authorised its side, so not even when good
			}
			if !tt.ok {
				if _, err := x.NewStream(t.Context(), n.id, wire.SyncProtocol); err == nil {
					t.Errorf("%s: a sync stream opens", tt.name)
				}
			}
			x.Evict(n.id)
			<-x.gone
		}
	})
}

func slicesRepeat(b []byte, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// A silent peer is left after ten seconds, and a proof is good for one handshake.
func TestHandshakeSilenceAndReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("silence")
		n := newNode(t, f, o, "host")
		x := newOutsider(t, f, o, "outsider")
		began := time.Now()
		if rest := x.greet(t, n, func(wire.Nonces) []byte { return nil }); len(rest) > 0 || time.Since(began) != 10*time.Second {
			t.Errorf("%d bytes after %s of silence", len(rest), time.Since(began))
		}
		chain := [][]byte{bytesOf(t, o.hosting(x.key, captest.DelegationOptions{IssuedAt: time.Now()}))}
		var proof []byte
		rest := x.greet(t, n, func(ns wire.Nonces) []byte {
			proof = wiretest.HelloProof(ns.Dialer, replication.HelloTag(o.space, x.id, n.id, ns, true), chain)
			return proof
		})
		if len(rest) == 0 {
			t.Fatal("a good proof was refused")
		}
		x.Evict(n.id)
		<-x.gone
		synctest.Wait()
		if rest := x.greet(t, n, func(wire.Nonces) []byte { return proof }); len(rest) > 0 || n.end.IsAuthorised(x.id) {
			t.Error("a proof was good twice")
		}
	})
}

// A host that dials learns whether it reached a host, and does not talk to one that proves nothing.
func TestDialerRefusesImpostor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("impostor")
		n := newNode(t, f, o, "host")
		x := newOutsider(t, f, o, "outsider")
		asked := make(chan []byte, 1024)
		x.answer = func(s network.Stream) {
			defer s.Close()
			_, _ = s.Write(wiretest.HelloNonce([32]byte{7}))
			b := make([]byte, 64<<10)
			k, _ := s.Read(b)
			asked <- b[:k]
			_, _ = s.Write(wiretest.HelloProof([32]byte{7}, [32]byte{}, [][]byte{bytesOf(t, o.hosting(x.key, captest.DelegationOptions{IssuedAt: time.Now()}))}))
			_, _ = io.Copy(io.Discard, s)
		}
		addr := strings.Replace(n.addr(), n.id.String(), x.id.String(), 1)
		if err := n.store.AddJoin(t.Context(), o.space, []string{addr}, false); err != nil {
			t.Fatal(err)
		}
		n.r.Kick()
		<-asked
		synctest.Wait()
		if n.end.IsAuthorised(x.id) {
			t.Error("an impostor was authorised")
		}
		joins, err := n.store.Joins(t.Context(), o.space)
		if err != nil || len(joins) != 1 || joins[0].State != replication.JoinRefused || joins[0].LastError == "" {
			t.Errorf("%+v, %v", joins, err)
		}
		if st := n.r.Status(); !st.Joining {
			t.Error("the space counts as here")
		}
		again := 0
		<-time.After(time.Hour)
		for range len(asked) {
			<-asked
			again++
		}
		if again < 12 || again > 40 {
			t.Errorf("dialed %d times in an hour", again)
		}
	})
}

// admitted makes the outsider a host that proved itself.
func (x *outsider) admitted(t *testing.T, n *node) {
	t.Helper()
	chain := [][]byte{bytesOf(t, n.o.hosting(x.key, captest.DelegationOptions{IssuedAt: time.Now()}))}
	rest := x.greet(t, n, func(ns wire.Nonces) []byte {
		return wiretest.HelloProof(ns.Dialer, replication.HelloTag(n.o.space, x.id, n.id, ns, true), chain)
	})
	if len(rest) == 0 {
		t.Fatal("a good proof was refused")
	}
	x.Authorise(n.id)
	synctest.Wait()
}

func TestGarbageCutsOff(t *testing.T) {
	for name, send := range map[string][]byte{
		"garbage":       []byte("\x07garbage"),
		"empty frame":   {0},
		"long length":   {0xff, 0xff, 0xff, 0xff, 1},
		"oversized":     wiretest.Frame(make([]byte, wire.MaxRequest+1)),
		"not a request": wiretest.DoneFrame(),
		"wrong answer":  append(wiretest.OpenFrame(tinycloud.Hash{1}), wiretest.DoneFrame()...),
		"acknowledges what was not sent": append(append(wiretest.OpenFrame(tinycloud.Hash{1}), wiretest.HaveFrame()...),
			wiretest.Frame(wiretest.SampleMessages()["ack"])...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, o := newFabric(t), newOwner("garbage")
				n := newNode(t, f, o, "host")
				x := newOutsider(t, f, o, "outsider")
				x.admitted(t, n)
				for i := range replication.OffenceLimit {
					if !x.connected(n.id) {
						t.Fatalf("cut off after %d offences", i)
					}
					s, err := x.NewStream(t.Context(), n.id, wire.SyncProtocol)
					if err != nil {
						t.Fatal(err)
					}
					go func() { _, _ = s.Write(send) }()
					_, _ = io.Copy(io.Discard, s)
					_ = s.Close()
					synctest.Wait()
				}
				if x.connected(n.id) {
					t.Fatal("still connected")
				}
				<-x.gone
				chain := [][]byte{bytesOf(t, o.hosting(x.key, captest.DelegationOptions{IssuedAt: time.Now()}))}
				try := func() bool {
					return len(x.greet(t, n, func(ns wire.Nonces) []byte {
						return wiretest.HelloProof(ns.Dialer, replication.HelloTag(o.space, x.id, n.id, ns, true), chain)
					})) > 0
				}
				if try() {
					t.Error("it comes back at once")
				}
				<-time.After(replication.BanTime)
				if !try() {
					t.Error("it may not come back later")
				}
			})
		})
	}
}

// A host that says it has more and then sends nothing keeps the others from catching the Space up for a turn, not for
// as long as a stream may be silent.
func TestStalledSourceLosesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("stall")
		n := newNode(t, f, o, "host")
		n.delegate(o.header)
		x := newOutsider(t, f, o, "outsider")
		host := hostlog.Key(x.key.Public().(ed25519.PublicKey))
		holds := make(chan struct{}, 64)
		x.answer = func(s network.Stream) {
			var reading sync.WaitGroup
			defer reading.Wait()
			reading.Go(func() { _, _ = io.Copy(io.Discard, s) })
			_, _ = s.Write(wiretest.TipsFrame([]hostlog.Tip{{Host: host, N: 9, Digest: tinycloud.Hash{9}}}))
			holds <- struct{}{}
		}
		x.admitted(t, n)
		<-holds
		synctest.Wait() // it has the turn
		began := time.Now()
		other := newNode(t, f, o, "other")
		other.delegate(o.header)
		for i := range 10 {
			other.put(fmt.Sprint("key/", i), "value")
		}
		other.join(n)
		until(t, "what the other has is here", func() bool { return n.status().Keys == 10 })
		if spent := time.Since(began); spent > 20*time.Second {
			t.Errorf("it took %v", spent)
		}
	})
}

// A host whose gossip no honest host would pass on is cut off, and what else it sent is not read.
func TestBadGossipCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("gossip")
		n := newNode(t, f, o, "host")
		x := newOutsider(t, f, o, "outsider")
		x.admitted(t, n)
		for i := range replication.OffenceLimit {
			if !x.connected(n.id) {
				t.Fatalf("cut off after %d offences", i)
			}
			if err := n.r.Check(t.Context(), x.id, []byte("garbage")); !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("garbage: %v", err)
			}
			synctest.Wait()
		}
		if x.connected(n.id) {
			t.Fatal("still connected")
		}
		if err := n.r.Check(t.Context(), x.id, []byte("garbage")); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("after it was cut off: %v", err)
		}
	})
}

// A host that answers with garbage, or stalls, is left, and does not keep others from being heard.
func TestBadSource(t *testing.T) {
	for name, answer := range map[string]func(network.Stream){
		"silence":   func(s network.Stream) { _, _ = io.Copy(io.Discard, s) },
		"garbage":   func(s network.Stream) { _, _ = s.Write([]byte("\x07garbage")) },
		"oversized": func(s network.Stream) { _, _ = s.Write(wiretest.Frame(make([]byte, wire.MaxFrame+1))) },
		"stall in the stream": func(s network.Stream) {
			go func() { _, _ = s.Write(wiretest.TipsFrame([]hostlog.Tip{{N: 1 << 40}})) }()
			_, _ = io.Copy(io.Discard, s)
		},
		"endless promises": func(s network.Stream) {
			tips := wiretest.TipsFrame([]hostlog.Tip{{N: 1 << 40}})
			go func() { _, _ = io.Copy(io.Discard, s) }()
			_, _ = s.Write(tips)
			_, _ = s.Write(wiretest.DoneFrame())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, o := newFabric(t), newOwner("source")
				n := newNode(t, f, o, "host")
				x := newOutsider(t, f, o, "outsider")
				x.answer = func(s network.Stream) {
					answer(s)
					_ = s.Close()
				}
				x.admitted(t, n)
				first := newNode(t, f, o, "first")
				first.delegate(o.header)
				first.put("a", "1")
				n.join(first)
				until(t, "the honest host is heard", func() bool { return n.get("a") == "1" })
				until(t, "equal", func() bool { return n.status().StateHash == first.status().StateHash })
			})
		})
	}
}

func signedRecord(t testing.TB) []byte {
	t.Helper()
	key := must(crypto.UnmarshalEd25519PrivateKey(keys("record").SpaceKey(captest.NewWallet("record").Space("default"))))
	id := must(peer.IDFromPrivateKey(key))
	addr := ma.StringCast("/ip4/192.0.2.1/tcp/4001/p2p/" + id.String() + "/p2p-circuit/p2p/" + id.String())
	env, err := record.Seal(&peer.PeerRecord{PeerID: id, Addrs: []ma.Multiaddr{addr}, Seq: 1}, key)
	if err != nil {
		t.Fatal(err)
	}
	return must(env.Marshal())
}

func TestRecords(t *testing.T) {
	good := signedRecord(t)
	if err := replication.TryRecord(good); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		err := replication.TryRecord(b)
		if err == nil {
			t.Errorf("byte %d changed and accepted", i)
		}
		if errors.Is(err, tinycloud.ErrForged) || errors.Is(err, tinycloud.ErrInvalid) {
			refused++
		}
	}
	if refused != len(good) {
		t.Errorf("%d of %d refusals have a class", refused, len(good))
	}
}

// What a host stores between its tips and the answer to them may have come from the very peer that answers.
func TestNothingBeyondTheTipsIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("tips")
		n := newNode(t, f, o, "host")
		n.delegate(o.header)
		n.put("key/0", "before")
		told := n.status().Epochs
		x := newOutsider(t, f, o, "outsider")
		x.admitted(t, n)
		s := must(x.NewStream(t.Context(), n.id, wire.SyncProtocol))
		defer s.Close()
		frames := make(chan [][]byte, 1)
		go func() {
			all, _ := wiretest.ReadFrames(s, wire.MaxFrame)
			frames <- all
		}()
		_ = must(s.Write(wiretest.OpenFrame(tinycloud.Hash{1})))
		synctest.Wait()
		n.put("key/1", "after")
		_ = must(s.Write(wiretest.HaveFrame()))
		var sent []hostlog.Bundle
		for _, b := range <-frames { // the host gives up when nothing is acknowledged
			if kind, _, err := wiretest.Spell(o.space, b); err == nil && kind == "batch" {
				sent = append(sent, must(wiretest.Bundles(o.space, b))...)
			}
		}
		if got := int64(len(sent)); got != told {
			t.Errorf("%d entries were sent, %d were told of", got, told)
		}
	})
}
