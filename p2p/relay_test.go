package p2p_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// hidden starts a front that cannot be dialed.
func hidden(t *testing.T) *p2p.Front {
	t.Helper()
	f, err := p2p.New(p2p.Options{Key: newKey(t), NAT: true, Log: logTo(t)})
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

// by is a Space address that names a front, and not where it is.
func by(f *p2p.Front, s *space) peer.AddrInfo {
	return peer.AddrInfo{ID: s.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/p2p/" + f.ID().String() + "/p2p-circuit")}}
}

// Two hosts that cannot reach each other meet over a third that both are connected with, and only if it
// authorised both in their Space.
func TestRelayAmongHosts(t *testing.T) {
	middle := newFront(t, p2p.Options{NAT: true})
	fa, fb := hidden(t), hidden(t)
	m, a, b := newSpace(t, middle), newSpace(t, fa), newSpace(t, fb)
	connect(t, a, m)
	connect(t, b, m)
	refused := func(when string) {
		t.Helper()
		if err := a.Connect(testContext(t), by(fb, b)); !errors.Is(err, p2p.ErrUnreachable) {
			t.Fatalf("%s: %v", when, err)
		}
	}
	refused("in probation")
	authorise(a, m)
	refused("one is authorised")
	// The same two fronts, authorised in Spaces that have nothing to do with each other.
	other := newSpace(t, middle)
	stranger := newSpace(t, fb)
	connect(t, stranger, other)
	authorise(stranger, other)
	refused("of another space")
	authorise(b, m)
	if err := a.Connect(testContext(t), by(fb, b)); err != nil {
		t.Fatal(err)
	}
	wait(t, a.up, "connected at the dialer")
	wait(t, b.up, "connected at the listener")
	authorise(a, b)
	said(t, a, b, "over the third") // on the circuit, or passed on by the third before that
	for _, c := range fa.Host().Network().ConnsToPeer(fb.ID()) {
		if !strings.Contains(c.RemoteMultiaddr().String(), middle.ID().String()+"/p2p-circuit") || c.Stat().Limited {
			t.Errorf("connection %v %+v", c.RemoteMultiaddr(), c.Stat())
		}
	}
	// Neither learns of it from the addresses: a circuit is no address to tell others.
	for _, f := range []*p2p.Front{middle, fa, fb} {
		for _, addr := range f.Addrs() {
			if strings.Contains(addr.String(), "p2p-circuit") {
				t.Errorf("address %s", addr)
			}
		}
	}
	// Removed hosts have no such way any more.
	m.Evict(b.ID())
	wait(t, m.down, "evicted")
	if err := fa.Host().Network().ClosePeer(fb.ID()); err != nil {
		t.Fatal(err)
	}
	wait(t, a.down, "circuit closed")
	refused("removed")
}

// Nobody is relayed by who is not asked to, nor over a node that is no host.
func TestNoRelayForStrangers(t *testing.T) {
	plain, middle := newFront(t, p2p.Options{}), newFront(t, p2p.Options{NAT: true})
	target := hidden(t)
	for _, f := range []*p2p.Front{plain, middle} {
		if err := target.Host().Connect(testContext(t), frontInfo(f)); err != nil {
			t.Fatal(err)
		}
		asker := hidden(t)
		if err := asker.Host().Connect(testContext(t), frontInfo(f)); err != nil {
			t.Fatal(err)
		}
		way := ma.StringCast("/p2p/" + f.ID().String() + "/p2p-circuit")
		err := asker.Host().Connect(testContext(t), peer.AddrInfo{ID: target.ID(), Addrs: []ma.Multiaddr{way}})
		if err == nil {
			t.Errorf("relayed over %s", f.ID())
		}
	}
	// A relay that brings connections unasked: the front behind it does not take them.
	evil := hidden(t)
	if err := evil.Host().Connect(testContext(t), frontInfo(middle)); err != nil {
		t.Fatal(err)
	}
	s, err := evil.Host().NewStream(testContext(t), middle.ID(), "/libp2p/circuit/relay/0.2.0/stop")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if err := p2p.StopConnect(s, target.ID()); err != nil {
		t.Fatal(err)
	}
	before := len(middle.Host().Network().ConnsToPeer(target.ID()))
	_ = s.SetReadDeadline(time.Now().Add(5 * time.Second)) // less than a handshake may take
	// No handshake follows the answer, if there is one.
	if b, err := io.ReadAll(io.LimitReader(s, 1<<10)); len(b) > len("\x04\x08\x01\x20\x64") {
		t.Errorf("answer %q, %v", b, err)
	}
	if after := len(middle.Host().Network().ConnsToPeer(target.ID())); after != before {
		t.Errorf("%d connections, %d before", after, before)
	}
}
