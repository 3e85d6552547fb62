package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	hop "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/attack"
)

// forgedHandshakes are refused in one way, whatever is wrong with them.
func forgedHandshakes(s *siege) {
	now, space := time.Now(), s.owner.Space
	hosting := func(c *attack.Client, change func(*captest.DelegationOptions)) []byte {
		o := captest.HostOptions(space, c.HostKey().String())
		change(&o)
		return s.token(s.owner.Wallet.SignDelegation(o))
	}
	raw := func(b []byte) func(*attack.Client) attack.Proof {
		return func(*attack.Client) attack.Proof { return func(peer.ID, peer.ID, [32]byte) []byte { return b } }
	}
	chain := func(make func(c *attack.Client) []byte) func(*attack.Client) attack.Proof {
		return func(c *attack.Client) attack.Proof { return attack.Prove(space, make(c)) }
	}
	good := func(c *attack.Client) []byte { b, _ := s.delegated(c); return b }
	cases := map[string]func(*attack.Client) attack.Proof{
		"no delegation": func(*attack.Client) attack.Proof { return attack.Prove(space) },
		"of another space": chain(func(c *attack.Client) []byte {
			return s.token(s.owner.Wallet.SignHost(s.owner.Wallet.Space("elsewhere"), c.HostKey().String()))
		}),
		"of another owner": chain(func(c *attack.Client) []byte {
			return s.token(captest.RandomWallet().SignHost(space, c.HostKey().String()))
		}),
		"of another host": chain(func(*attack.Client) []byte {
			return s.token(s.owner.Wallet.SignHost(space, s.view(s.b, s.owner).DID))
		}),
		"of a session": chain(func(*attack.Client) []byte { return s.token(s.owner.SessionHeader()) }),
		"expired": chain(func(c *attack.Client) []byte {
			return hosting(c, func(o *captest.DelegationOptions) { o.IssuedAt, o.Expires = now.Add(-time.Hour), now.Add(-time.Minute) })
		}),
		"of the future": chain(func(c *attack.Client) []byte {
			return hosting(c, func(o *captest.DelegationOptions) { o.NotBefore = now.Add(time.Hour) })
		}),
		"revoked": chain(func(c *attack.Client) []byte {
			b, header := s.delegated(c)
			_, err := s.a.Admin.Delegate(s.ctx, header)
			s.must(err)
			s.must(s.owner.RevokeHost(s.ctx, s.a, header))
			return b
		}),
		"forged": chain(func(c *attack.Client) []byte {
			b := bytes.Clone(good(c))
			b[len(b)-3] ^= 1
			return b
		}),
		"tag of a guessed space": func(c *attack.Client) attack.Proof {
			return attack.Prove(s.owner.Wallet.Space("guess"), good(c))
		},
		"the other space's host": func(c *attack.Client) attack.Proof {
			return attack.Prove(s.other.Space, s.token(s.other.Wallet.SignHost(s.other.Space, c.HostKey().String())))
		},
		"garbage":    raw([]byte("\x05hello")),
		"empty":      raw([]byte{0}),
		"oversized":  raw(attack.Frame(make([]byte, 60<<10+1))),
		"endless":    raw(bytes.Repeat([]byte{0xff}, 16)),
		"deep":       raw(attack.Frame(bytes.Repeat([]byte{0x81}, 50<<10))),
		"many items": raw(attack.Frame(append([]byte{0x9a, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 50<<10)...))),
	}
	endings := map[string][]string{}
	for name, proof := range cases {
		c, id := s.attacker()
		answer, err := c.Hello(s.ctx, id, proof(c))
		if !errors.Is(err, attack.ErrRefused) {
			s.Errorf("%s: %d bytes, %v", name, len(answer), err)
			continue
		}
		endings[err.Error()] = append(endings[err.Error()], name)
		for _, proto := range []string{attack.SyncProtocol, attack.Bitswap, "/meshsub/1.1.0"} {
			if c.Speaks(s.ctx, id, protocol.ID(proto)) {
				s.Errorf("%s: %s is spoken", name, proto)
			}
		}
		s.nothingLeaked(c)
		_ = c.Close()
	}
	if len(endings) != 1 {
		s.Errorf("refusals differ: %v", endings)
	}
	s.replayedHandshake(good)
}

// replayedHandshake has a proof that was good once sent again.
func (s *siege) replayedHandshake(good func(*attack.Client) []byte) {
	s.Helper()
	c, id := s.attacker()
	var sent []byte
	once := attack.Prove(s.owner.Space, good(c))
	if _, err := c.Hello(s.ctx, id, func(d, r peer.ID, n [32]byte) []byte { sent = once(d, r, n); return sent }); err != nil {
		s.Errorf("a good proof: %v", err)
	}
	c.Hang(id)
	s.await("hung up", func() bool { return c.Gone(id) })
	again, err := c.Dial(s.ctx, s.addr)
	s.must(err)
	if _, err := c.Hello(s.ctx, again, func(peer.ID, peer.ID, [32]byte) []byte { return sent }); !errors.Is(err, attack.ErrRefused) {
		s.Errorf("a proof was good twice: %v", err)
	}
}

// enumeration asks every layer which Spaces there are.
func enumeration(s *siege) {
	c, id := s.attacker()
	front, err := c.Peerstore().GetProtocols(s.front)
	s.must(err)
	for _, proto := range front {
		switch proto {
		case "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop",
			"/libp2p/dcutr", "/libp2p/autonat/2/dial-back", "/libp2p/autonat/2/dial-request", attack.WhereProtocol, "/tinycloud/pair/1":
		default:
			s.Errorf("the front speaks %s", proto)
		}
	}
	if got, err := c.Peerstore().GetProtocols(id); err != nil || len(got) != 0 {
		s.Errorf("the space peer identified itself: %v, %v", got, err)
	}
	for _, proto := range []protocol.ID{attack.HelloProtocol, attack.SecondHello, attack.SyncProtocol, attack.Bitswap, "/ipfs/bitswap/1.2.0", "/meshsub/1.1.0", "/ipfs/ping/1.0.0"} {
		if c.Speaks(s.ctx, s.front, proto) {
			s.Errorf("the front speaks %s", proto)
		}
		if proto != attack.HelloProtocol && proto != attack.SecondHello && c.Speaks(s.ctx, id, proto) {
			s.Errorf("the space peer speaks %s to a stranger", proto)
		}
	}
	elsewhere, err := peer.Decode(s.view(s.b, s.owner).PeerID) // a Space peer, but not of this front
	s.must(err)
	guesses := [][]byte{[]byte(elsewhere), []byte(s.front), []byte(c.ID())}
	for range 1000 { // more than are looked up
		guess := append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, make([]byte, 32)...)
		_, _ = rand.Read(guess[6:])
		guesses = append(guesses, guess)
	}
	for _, guess := range guesses {
		if st, err := c.Hop(s.ctx, s.front, guess); err != nil || st != hop.Status_NO_RESERVATION {
			s.Errorf("CONNECT to %x: %s, %v", guess, st, err)
		}
	}
	for name, raw := range map[string][]byte{
		"no peer": attack.Frame([]byte{8, 1}), "reservation": attack.Frame([]byte{8, 0}), "garbage": []byte("\x05hello"),
		"empty": {0}, "oversized": attack.Frame(make([]byte, 4<<10+1)), "endless": bytes.Repeat([]byte{0xff}, 20),
	} {
		if answer, err := c.HopRaw(s.ctx, s.front, raw); len(answer) > 8 {
			s.Errorf("%s: answer %x, %v", name, answer, err)
		}
	}
	s.whereabouts(c)
	s.nothingLeaked(c)
}

// whereabouts asks the front for Space peers without being a host of any: it says a nonce and, whatever was wrong, that there is none.
func (s *siege) whereabouts(c *attack.Client) {
	s.Helper()
	for name, question := range map[string][]byte{
		"nothing": nil, "garbage": []byte("\x05hello"), "empty": {0}, "endless": bytes.Repeat([]byte{0xff}, 16),
		"oversized": attack.Frame(make([]byte, 60<<10)), "the space's id": attack.Frame([]byte(s.owner.Space.String())),
		"a question": attack.Frame(slices.Concat([]byte{0x84, 0x58, 0x20}, make([]byte, 32), []byte{0x58, 0x20}, make([]byte, 32),
			[]byte{0x58, 0x20}, make([]byte, 32), []byte{0x40})),
	} {
		st, err := c.NewStream(s.ctx, s.front, attack.WhereProtocol)
		s.must(err)
		_ = st.SetDeadline(time.Now().Add(15 * time.Second))
		_, err = st.Write(question)
		s.must(err)
		_ = st.CloseWrite()
		b, _ := io.ReadAll(st)     // however it ends
		const nonce, none = 36, 70 // bytes of the frames
		if len(b) > nonce+none || len(b) > nonce && len(bytes.ReplaceAll(b[nonce:], []byte{0}, nil)) > 8 {
			s.Errorf("where, %s: %x", name, b)
		}
	}
}

// floods of strangers cost neither memory nor the Space's hosts.
func floods(s *siege) {
	const crowd = 24
	var wg sync.WaitGroup
	var nonces atomic.Int64
	clients := make(chan *attack.Client, crowd)
	for range crowd {
		wg.Go(func() {
			c, err := attack.New()
			if err != nil {
				s.Error(err)
				return
			}
			clients <- c
			for range crowd {
				if id, err := c.Dial(s.ctx, s.addr); err == nil {
					nonces.Add(s.exhaust(c, id))
				}
			}
		})
	}
	wg.Wait()
	close(clients)
	id := s.spaceAt()
	for c := range clients {
		s.nothingLeaked(c)
		s.await("a stranger that used its allowance up is cut off", func() bool { return c.Gone(id) })
		_ = c.Close()
	}
	if nonces.Load() == 0 {
		s.Error("nobody was answered")
	}
	s.endless()
}

// exhaust opens handshakes on one connection until its allowance is used up, and returns how many were answered.
func (s *siege) exhaust(c *attack.Client, id peer.ID) (nonces int64) {
	for range 100 {
		st, err := c.NewStream(network.WithNoDial(s.ctx, "this connection"), id, attack.HelloProtocol)
		if err != nil {
			break
		}
		if _, err := attack.ReadFrame(st, 64); err == nil {
			nonces++
		}
		_, _ = st.Write(make([]byte, 8<<10))
	}
	return nonces
}

func (s *siege) spaceAt() peer.ID {
	s.Helper()
	id, err := peer.Decode(s.view(s.a, s.owner).PeerID)
	s.must(err)
	return id
}

// endless sends one stranger's bytes without an end.
func (s *siege) endless() {
	s.Helper()
	c, id := s.attacker()
	st, err := c.NewStream(s.ctx, id, attack.HelloProtocol)
	s.must(err)
	sent := 0
	for err == nil && sent < 8<<20 {
		var n int
		n, err = st.Write(make([]byte, 4<<10))
		sent += n
	}
	if err == nil {
		s.Errorf("%d bytes were taken from a stranger", sent)
	}
	s.await("hung up", func() bool { return c.Gone(id) })
}

// sloth holds connections and streams open and sends next to nothing. All of it ends in time.
func sloth(s *siege) {
	deadline := time.Now().Add(15 * time.Second)
	c, id := s.attacker()
	served, open := 0, 8 // a stranger may have as many handshakes at once
	for range 2 * open {
		st, err := c.NewStream(s.ctx, id, attack.HelloProtocol)
		if err != nil {
			continue
		}
		_ = st.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = st.Write([]byte{0xff}) // the first byte of a length
		if _, err := attack.ReadFrame(st, 64); err == nil {
			served++
		}
	}
	if served != open {
		s.Errorf("%d handshakes of a stranger at once", served)
	}
	slow, err := c.NewStream(s.ctx, s.front, "/libp2p/circuit/relay/0.2.0/hop")
	s.must(err)
	_, err = slow.Write([]byte{40})
	s.must(err)
	_ = slow.SetReadDeadline(deadline)
	if _, err := attack.ReadFrame(slow, 64); err == nil || errors.Is(err, context.DeadlineExceeded) || time.Now().After(deadline) {
		s.Errorf("a CONNECT that never comes is waited for: %v", err)
	}
	s.await("the slow stranger is gone", func() bool { return c.Gone(id) })
	s.nothingLeaked(c)
}

// silence opens TCP connections on which nothing is said, or one byte. wait waits until they are closed.
func (s *siege) silence() (wait func()) {
	s.Helper()
	const connections, most = 40, 25 * time.Second
	deadline := time.Now().Add(most)
	addr, err := ma.NewMultiaddr(s.addr)
	s.must(err)
	tcp, _ := ma.SplitFunc(addr, func(c ma.Component) bool { return c.Protocol().Code == ma.P_P2P })
	target, err := manet.ToNetAddr(tcp)
	s.must(err)
	var wg sync.WaitGroup
	for i := range connections {
		c, err := net.Dial("tcp", target.String())
		s.must(err)
		if i%2 == 0 {
			_, _ = c.Write([]byte{0x13})
		}
		wg.Go(func() {
			defer c.Close()
			_ = c.SetReadDeadline(deadline)
			if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				s.Errorf("a silent connection is kept: %v", err)
			}
		})
	}
	return wg.Wait
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// heard counts what gossipsub and bitswap get.
type heard struct {
	pubsub.RawTracer
	rpcs, messages atomic.Int64
}

func (*heard) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (*heard) OnClosedOutboundStream(peer.ID)                       {}
func (*heard) Join(string)                                          {}
func (*heard) Leave(string)                                         {}
func (*heard) Graft(peer.ID, string)                                {}
func (*heard) Prune(peer.ID, string)                                {}
func (*heard) ValidateMessage(*pubsub.Message)                      {}
func (*heard) DeliverMessage(*pubsub.Message)                       {}
func (*heard) RejectMessage(*pubsub.Message, string)                {}
func (*heard) DuplicateMessage(*pubsub.Message)                     {}
func (*heard) ThrottlePeer(peer.ID)                                 {}
func (*heard) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (*heard) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (*heard) DropRPC(*pubsub.RPC, peer.ID)                         {}
func (*heard) UndeliverableMessage(*pubsub.Message)                 {}
func (*heard) MessageSent(peer.ID, bsmsg.BitSwapMessage)            {}
func (h *heard) RecvRPC(*pubsub.RPC)                                { h.rpcs.Add(1) }
func (h *heard) MessageReceived(peer.ID, bsmsg.BitSwapMessage)      { h.messages.Add(1) }

// stockPeers has the library's own gossipsub and bitswap connect while the Space has something to say and a value
// to ask for: in probation they hear nothing, as hosts they hear both.
func stockPeers(s *siege) {
	if s.view(s.a, s.owner).Wants == 0 {
		s.Error("nothing is wanted, so nothing could be heard")
	}
	c, err := attack.New()
	s.must(err)
	defer c.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	got := &heard{}
	ps, err := pubsub.NewGossipSub(ctx, c.Host, pubsub.WithRawTracer(got))
	s.must(err)
	topic, err := ps.Join(attack.Topic)
	s.must(err)
	sub, err := topic.Subscribe()
	s.must(err)
	defer sub.Cancel()
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	bs := bitswap.New(ctx, bsnet.NewFromIpfsHost(c.Host, bsnet.Prefix("/tinycloud")), nil, store, bitswap.WithTracer(got))
	defer bs.Close()
	id, err := c.Dial(s.ctx, s.addr)
	s.must(err)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, _ = s.owner.Get(short, s.a, "withheld")
	}()
	for range 20 {
		s.put(s.a, "plans/next", "published while a stranger listens")
	}
	<-asked // the value was looked for, in vain
	for _, conn := range c.Network().ConnsToPeer(id) {
		for _, st := range conn.GetStreams() {
			if st.Stat().Direction == network.DirInbound {
				s.Errorf("a stream of %q was opened to a stranger", st.Protocol())
			}
		}
	}
	if rpcs, messages := got.rpcs.Load(), got.messages.Load(); rpcs+messages != 0 {
		s.Errorf("in probation: %d RPCs and %d bitswap messages", rpcs, messages)
	}
	s.nothingLeaked(c)
	chain, _ := s.delegated(c)
	_, err = c.Hello(s.ctx, id, attack.Prove(s.owner.Space, chain))
	s.must(err)
	s.put(s.a, "plans/next", "published while a host listens")
	go func() { _, _ = s.owner.Get(s.ctx, s.a, "withheld") }()
	s.await("a host hears RPCs and wants", func() bool { return got.rpcs.Load() > 0 && got.messages.Load() > 0 })
}
