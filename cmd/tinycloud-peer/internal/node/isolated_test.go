package node_test

import (
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// Two isolated nodes replicate two Spaces over two connections, between fronts that have nothing in common; the
// addresses stay true after a restart.
func TestIsolated(t *testing.T) {
	isolated := []string{"TINYCLOUD_P2P_ISOLATED=true", "TINYCLOUD_P2P_LISTEN=/ip4/127.0.0.1/tcp/4001"}
	first := settings(t, isolated...)
	a, stop := run(t, first)
	b, _ := run(t, settings(t, isolated...))
	spaces := []*signed{newSigned(t), newSigned(t)}
	addrs := map[string]bool{}
	for _, s := range spaces {
		s.host(a, true)
		s.put(a, "k", "v")
		s.host(b, false)
		addr := view(t, a, s.space).Addrs[0]
		addrs[addr] = true
		body, err := json.Marshal(node.JoinRequest{Addrs: []string{addr}})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := call(t, http.MethodPost, b.URL()+"/admin/spaces/"+url.PathEscape(s.space.String())+"/join", bearer, string(body)); status != http.StatusAccepted {
			t.Fatal(status, answer)
		}
		s.reads(b, "k", "v")
	}
	ports, fronts := map[string]bool{}, map[string]bool{}
	for _, n := range []*node.Node{a, b} {
		for _, s := range spaces {
			addr, err := ma.NewMultiaddr(view(t, n, s.space).Addrs[0])
			if err != nil {
				t.Fatal(err)
			}
			port, _ := addr.ValueForProtocol(ma.P_TCP)
			front, _ := addr.ValueForProtocol(ma.P_P2P)
			ports[port], fronts[front] = true, true
		}
		if peers := n.Connected(nil); len(peers) != 0 {
			t.Errorf("the node's own front is connected with %v", peers)
		}
	}
	if len(ports) != 4 || len(fronts) != 4 || ports["4001"] {
		t.Errorf("ports %v, fronts %v", ports, fronts)
	}
	for i, s := range spaces {
		other := spaces[1-i].space
		for _, pair := range [][2]*node.Node{{a, b}, {b, a}} {
			want := pair[1].EntranceID(s.space)
			if peers := pair[0].Connected(&s.space); len(peers) != 1 || peers[0] != want {
				t.Errorf("connected with %v, want %s", peers, want)
			}
		}
		addr := view(t, a, s.space).Addrs[0]
		if err := reach(t, addr); err != nil {
			t.Error(err)
		}
		cut := strings.LastIndex(addr, "/") + 1
		if err := reach(t, addr[:cut]+view(t, a, other).PeerID); err == nil {
			t.Error("the entrance of a Space leads to another Space")
		}
	}
	stop()
	a, _ = run(t, first)
	for _, s := range spaces {
		if addr := view(t, a, s.space).Addrs[0]; !addrs[addr] {
			t.Errorf("another address: %s", addr)
		}
		s.put(a, "again", "v")
		s.reads(b, "again", "v")
	}
}

// reach connects a stranger with a Space peer, as far as probation.
func reach(t *testing.T, addr string) error {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	front, err := p2p.New(p2p.Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	_, key, err = ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := front.Open(t.Context(), p2p.PeerOptions{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	to, err := p2p.ParseSpaceAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	return peer.Connect(t.Context(), to)
}

func TestIsolatedRefuses(t *testing.T) {
	for _, variable := range []string{"TINYCLOUD_P2P_DHT=true", "TINYCLOUD_P2P_MDNS=true", "TINYCLOUD_P2P_ANNOUNCE=/ip4/192.0.2.1/tcp/4001"} {
		_, err := node.New(t.Context(), settings(t, "TINYCLOUD_P2P_ISOLATED=true", variable), node.Options{})
		if err == nil || !strings.Contains(err.Error(), "p2p.isolated") {
			t.Errorf("%s: %v", variable, err)
		}
	}
}
