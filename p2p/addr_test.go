package p2p_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

const (
	frontPeer = "12D3KooWBhhMkNTptQ8S9YNEYKigXs3jKX8Z4WuWMbTegUSuRU6u"
	spacePeer = "12D3KooWGqFKyGLwKu3PXh6TdXYRssbPGFAbJcAerVpF3tVHPqQv"
	rsaPeer   = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
	circuit   = "/p2p/" + frontPeer + "/p2p-circuit"
)

func validSpaceAddrs() []string {
	return []string{
		"/ip4/192.0.2.1/tcp/4001" + circuit + "/p2p/" + spacePeer,
		"/ip6/2001:db8::1/udp/4001/quic-v1" + circuit + "/p2p/" + spacePeer,
		"/dns4/node.example/tcp/4001" + circuit + "/p2p/" + spacePeer,
		"/ip4/192.0.2.1/tcp/4001/p2p/" + rsaPeer + "/p2p-circuit/p2p/" + spacePeer,
	}
}

func TestParseSpaceAddr(t *testing.T) {
	for _, s := range validSpaceAddrs() {
		ai, err := p2p.ParseSpaceAddr(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		got, err := peer.AddrInfoToP2pAddrs(&ai)
		if err != nil || len(got) != 1 || got[0].String() != s {
			t.Errorf("%s became %v, %v", s, got, err)
		}
	}
	for _, tt := range []struct{ addr, why string }{
		{"", "not a multiaddr"},
		{"hello", "not a multiaddr"},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + frontPeer, "no /p2p-circuit"},
		{"/ip4/192.0.2.1/tcp/4001/p2p-circuit/p2p/" + spacePeer, "must end in /p2p/<front peer>"},
		{"/p2p-circuit/p2p/" + spacePeer, "must end in /p2p/<front peer>"},
		{circuit + "/p2p/" + spacePeer, "no transport address"},
		{"/ip4/192.0.2.1/tcp/4001" + circuit, "must be /p2p/<space peer>"},
		{"/ip4/192.0.2.1/tcp/4001" + circuit + "/tcp/1", "must be /p2p/<space peer>"},
		{"/ip4/192.0.2.1/tcp/4001" + circuit + "/p2p/" + spacePeer + circuit, "must be /p2p/<space peer>"},
		{"/ip4/192.0.2.1/tcp/4001" + circuit + circuit + "/p2p/" + spacePeer, "must be /p2p/<space peer>"},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + spacePeer + circuit + "/p2p/" + spacePeer, "must end in /p2p/<front peer>"},
		{"/ip4/192.0.2.1/tcp/4001" + circuit + "/p2p/" + frontPeer, "are the same"},
		{"/ip4/192.0.2.1/tcp/4001" + circuit + "/p2p/" + rsaPeer, "not an ed25519 key"},
	} {
		_, err := p2p.ParseSpaceAddr(tt.addr)
		if !errors.Is(err, p2p.ErrInvalid) || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%q: %v, want %q", tt.addr, err, tt.why)
		}
	}
}

// What parses has the one shape and parses again to the same.
func FuzzParseSpaceAddr(f *testing.F) {
	seeds := validSpaceAddrs()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Add("/ip4/192.0.2.1/tcp/4001/p2p/" + frontPeer)
	f.Fuzz(func(t *testing.T, s string) {
		ai, err := p2p.ParseSpaceAddr(s)
		if err != nil {
			if !errors.Is(err, p2p.ErrInvalid) || ai.ID != "" || ai.Addrs != nil {
				t.Fatalf("%q: %v with %v", s, err, ai)
			}
			return
		}
		if _, err := p2p.Ed25519FromPeerID(ai.ID); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		full, err := peer.AddrInfoToP2pAddrs(&ai)
		if err != nil || len(full) != 1 {
			t.Fatalf("%q: %v, %v", s, full, err)
		}
		again, err := p2p.ParseSpaceAddr(full[0].String())
		if err != nil {
			t.Fatalf("%q: again: %v", s, err)
		}
		if d := cmp.Diff(ai.String(), again.String()); d != "" {
			t.Fatalf("%q: %s", s, d)
		}
	})
}

func TestPeerIDs(t *testing.T) {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p2p.PeerIDFromEd25519(pub)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(id.String(), "12D3KooW") {
		t.Errorf("peer id %s is not of an ed25519 key", id)
	}
	back, err := p2p.Ed25519FromPeerID(id)
	if err != nil || !pub.Equal(back) {
		t.Errorf("key %x, %v; want %x", back, err, pub)
	}
	if _, err := p2p.PeerIDFromEd25519(pub[:31]); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("short key: %v", err)
	}
	_, secp, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := peer.IDFromPublicKey(secp)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []peer.ID{other, "", "junk"} {
		if _, err := p2p.Ed25519FromPeerID(id); !errors.Is(err, p2p.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestParseFrontAddr(t *testing.T) {
	id := keyID(t, newKey(t)).String()
	for _, good := range []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + id, "/dns4/peer.example/udp/4001/quic-v1/p2p/" + id} {
		info, err := p2p.ParseFrontAddr(good)
		if err != nil || info.ID.String() != id || len(info.Addrs) != 1 {
			t.Errorf("%s: %v, %v", good, info, err)
		}
	}
	for _, bad := range []string{
		"", "x", "/p2p/" + id, "/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/tcp/4001/p2p/" + id + "/p2p/" + id,
		"/ip4/192.0.2.1/tcp/4001/p2p/" + id + "/p2p-circuit/p2p/" + id,
		"/ip4/192.0.2.1/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
	} {
		if info, err := p2p.ParseFrontAddr(bad); !errors.Is(err, p2p.ErrInvalid) {
			t.Errorf("%q: %v, %v", bad, info, err)
		}
	}
}
