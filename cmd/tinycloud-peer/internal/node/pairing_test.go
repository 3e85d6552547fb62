package node_test

import (
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// pair has a node pair itself with another, and returns the answer, which has a text in it unless that is "".
func pair(t *testing.T, n *node.Node, q node.PairRequest, status int, text string) (v node.NodeView) {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	got, answer := call(t, http.MethodPost, n.URL()+"/admin/nodes", bearer, string(body))
	if got != status || !strings.Contains(answer, text) {
		t.Errorf("%d %s, want %d and %q", got, answer, status, text)
	}
	if got/100 == 2 {
		if err := json.Unmarshal([]byte(answer), &v); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func named(t *testing.T, n *node.Node) []node.NodeView {
	t.Helper()
	return operator[[]node.NodeView](t, n, http.MethodGet, "nodes", nil, http.StatusOK)
}

func invite(t *testing.T, n *node.Node) replication.Invite {
	t.Helper()
	v := operator[node.InviteView](t, n, http.MethodPost, "invites", node.InviteRequest{}, http.StatusOK)
	return parsed(t, v.Invite)
}

func parsed(t *testing.T, text string) replication.Invite {
	t.Helper()
	i, err := replication.ParseInvite(text)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func shown(i replication.Invite) node.PairRequest { return node.PairRequest{Invite: i.Text()} }

// apart splits the address of a node.
func apart(addr string) (transport ma.Multiaddr, id string) {
	transport, name := peer.SplitAddr(ma.StringCast(addr))
	return transport, name.String()
}

// isPaired fails unless a node is paired with the one at an address and no other.
func isPaired(t *testing.T, n *node.Node, addr string, back bool) {
	t.Helper()
	transport, id := apart(addr)
	all := named(t, n)
	if len(all) != 1 || all[0].Peer != id || all[0].Back != back || all[0].Source != "paired" || !slices.Equal(all[0].Addrs, []string{transport.String()}) ||
		all[0].Since == nil || time.Since(*all[0].Since).Abs() > time.Minute {
		t.Errorf("nodes %+v, want %s, back %v", all, addr, back)
	}
}

// Without an invite only one asks, and the other has nothing of it; after a restart too.
func TestPairingByAddressIsOneWay(t *testing.T) {
	cfg := settings(t)
	a, stop := run(t, cfg)
	b, _ := run(t, settings(t))
	addr := nodeAddr(t, b)
	for range 2 {
		if v := pair(t, a, node.PairRequest{Addr: addr}, http.StatusOK, ""); v.Silent != nil {
			t.Errorf("%+v", v)
		}
	}
	isPaired(t, a, addr, false)
	if all := named(t, b); len(all) != 0 {
		t.Errorf("the other has %+v", all)
	}
	if _, text := call(t, http.MethodGet, a.MetricsURL(), "", ""); !strings.Contains(text, "\ntinycloud_paired_nodes 1\n") {
		t.Error("the metrics do not tell")
	}
	await(t, func() bool { return named(t, a)[0].Heard != nil }, func() string { return "the node is heard of" })
	stop()
	a, _ = run(t, cfg)
	isPaired(t, a, addr, false)
}

// Who was unpaired does not come back by the invite that it used.
func TestUnpairedStaysAway(t *testing.T) {
	a, _ := run(t, settings(t))
	b, _ := run(t, settings(t))
	i := invite(t, a)
	pair(t, b, shown(i), http.StatusOK, "")
	isPaired(t, a, nodeAddr(t, b), true)
	isPaired(t, b, nodeAddr(t, a), true)
	_, id := apart(nodeAddr(t, b))
	operator[node.NodeView](t, a, http.MethodDelete, "nodes/"+id, nil, http.StatusOK)
	pair(t, b, shown(i), http.StatusForbidden, "refuses the invite")
	if all := named(t, a); len(all) != 0 {
		t.Errorf("it came back: %+v", all)
	}
}

// Refusals say what is wrong, and pair with nobody.
func TestPairingSaysWhatIsWrong(t *testing.T) {
	a, _ := run(t, settings(t))
	b, stopB := run(t, settings(t))
	c, _ := run(t, settings(t))
	space, _ := signedIn(t, b)
	atB, idB := apart(nodeAddr(t, b))
	atC, idC := apart(nodeAddr(t, c))
	stale, expired, astray, forged := invite(t, b), invite(t, b), invite(t, b), invite(t, b)
	expired.Expires = time.Now().Add(-time.Hour).Truncate(time.Second)
	astray.Addrs = []ma.Multiaddr{atC}
	forged.Secret[0]++
	old := olderNode(t)
	toOld, err := replication.NewInvite(old.ID(), old.Addrs(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct { // in this order: a node that is connected is reached whatever address is given
		name   string
		q      node.PairRequest
		status int
		text   string
	}{
		{"a node alone", node.PairRequest{Addr: atB.String()}, 400, "must end in /p2p/"},
		{"a Space", node.PairRequest{Addr: view(t, b, space).Addrs[0]}, 400, "/p2p/" + idB},
		{"itself", node.PairRequest{Addr: nodeAddr(t, a)}, 400, "is this node"},
		{"another node", node.PairRequest{Addr: atC.String() + "/p2p/" + idB}, 409, idC},
		{"an invite of its own", shown(invite(t, a)), 400, "made by this node"},
		{"an expired invite", shown(expired), 400, "expired at " + expired.Expires.UTC().Format(time.RFC3339)},
		{"an invite at another node", shown(astray), 409, idC},
		{"another secret", shown(forged), 403, "refuses the invite"},
		{"an invite of an older node", shown(toOld), 400, "older version"},
	} {
		t.Run(tt.name, func(t *testing.T) { pair(t, a, tt.q, tt.status, tt.text) })
	}
	if all := named(t, a); len(all) != 0 {
		t.Errorf("paired %+v", all)
	}
	stopB()
	pair(t, a, shown(stale), http.StatusServiceUnavailable, "out of reach")
	if v := pair(t, a, node.PairRequest{Addr: atB.String() + "/p2p/" + idB}, http.StatusAccepted, ""); v.Silent == nil {
		t.Errorf("out of reach: %+v", v)
	}
	isPaired(t, a, atB.String()+"/p2p/"+idB, false)
	operator[node.NodeView](t, a, http.MethodDelete, "nodes/"+idB, nil, http.StatusOK)
	pair(t, a, node.PairRequest{Addr: old.Addrs()[0].String()}, http.StatusOK, "") // it can be asked all the same
}

// olderNode is a front without this protocol.
func olderNode(t *testing.T) *p2p.Front {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := p2p.New(p2p.Options{Key: key, Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// A node of the configuration is listed, and not to be unpaired.
func TestBootstrapNodesAreListed(t *testing.T) {
	b, _ := run(t, settings(t))
	_, id := apart(nodeAddr(t, b))
	a, _ := run(t, settings(t, "TINYCLOUD_P2P_BOOTSTRAP="+nodeAddr(t, b)))
	if all := named(t, a); len(all) != 1 || all[0].Peer != id || all[0].Source != "bootstrap" || all[0].Since != nil {
		t.Errorf("%+v", all)
	}
	if status, text := call(t, http.MethodDelete, a.URL()+"/admin/nodes/"+id, bearer, ""); status != http.StatusConflict || !strings.Contains(text, "p2p.bootstrap") {
		t.Error(status, text)
	}
	pair(t, a, node.PairRequest{Addr: nodeAddr(t, b)}, http.StatusOK, "")
	if v := operator[node.NodeView](t, a, http.MethodDelete, "nodes/"+id, nil, http.StatusOK); v.Source != "bootstrap" {
		t.Errorf("%+v", v)
	}
}

// With p2p.isolated nobody is paired, and who was before is not asked: a Space does not wait for it.
func TestPairingIsolated(t *testing.T) {
	b, stopB := run(t, settings(t))
	addr, i := nodeAddr(t, b), invite(t, b)
	_, id := apart(addr)
	cfg := settings(t)
	a, stop := run(t, cfg)
	pair(t, a, node.PairRequest{Addr: addr}, http.StatusOK, "")
	stop()
	stopB()
	cfg.P2P.Isolated = true
	a, _ = run(t, cfg)
	pair(t, a, node.PairRequest{Addr: addr}, http.StatusBadRequest, "p2p.isolated")
	pair(t, a, shown(i), http.StatusBadRequest, "p2p.isolated")
	if status, text := call(t, http.MethodPost, a.URL()+"/admin/invites", bearer, "{}"); status != http.StatusBadRequest || !strings.Contains(text, "p2p.isolated") {
		t.Error(status, text)
	}
	space, _ := signedIn(t, a)
	if v := view(t, a, space); v.State != "hosted" {
		t.Errorf("a Space is %s", v.State)
	}
	operator[node.NodeView](t, a, http.MethodDelete, "nodes/"+id, nil, http.StatusOK)
}

// On a shared database all processes are paired as one node; each uses and makes invites, by way of the one that has the
// front, which answers them.
func TestPairingShared(t *testing.T) {
	onServers(t, func(t *testing.T, db *testservers.Database) {
		leads, stop := run(t, sharing(t, db.DSN))
		eventually(t, "leading", 5*time.Second, func() bool { return len(addrs(t, leads)) > 0 })
		follows, _ := run(t, sharing(t, db.DSN))
		other, _ := run(t, settings(t))
		pair(t, follows, node.PairRequest{Addr: nodeAddr(t, other)}, http.StatusOK, "")
		isPaired(t, leads, nodeAddr(t, other), false)
		await(t, func() bool { return named(t, leads)[0].Heard != nil }, func() string { return "the one that has the front asks it" })
		eventually(t, "linked", 10*time.Second, func() bool { return info(t, follows).Shards > 0 })
		await(t, func() bool { return named(t, follows)[0].Heard != nil }, func() string { return "the other one asks it" })
		pair(t, follows, shown(invite(t, other)), http.StatusOK, "")
		isPaired(t, follows, nodeAddr(t, other), true)
		isPaired(t, leads, nodeAddr(t, other), true)
		isPaired(t, other, nodeAddr(t, leads), true)
		third, _ := run(t, settings(t))
		pair(t, third, shown(invite(t, follows)), http.StatusOK, "")
		isPaired(t, third, nodeAddr(t, leads), true)
		// What one process made is honoured by the one that replicates next.
		ours := invite(t, leads)
		stop()
		eventually(t, "the other leading", 10*time.Second, func() bool { return len(addrs(t, follows)) > 0 })
		at, _ := apart(addrs(t, follows)[0])
		ours.Addrs = []ma.Multiaddr{at}
		fresh, _ := run(t, settings(t))
		pair(t, fresh, shown(ours), http.StatusOK, "")
		if all := named(t, follows); len(all) != 3 {
			t.Errorf("%+v", all)
		}
	})
}
