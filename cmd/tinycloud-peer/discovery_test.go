package main

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

const pollEvery = 50 * time.Millisecond

// nodeAddr is where a peer is, without a Space.
func (g *group) nodeAddr(p *cluster.Peer) string {
	g.Helper()
	info, err := p.Admin.Node(g.ctx)
	g.must(err)
	return info.Addrs[0]
}

// connected waits until two peers are.
func (g *group) connected(a, b *cluster.Peer) {
	g.Helper()
	var v node.SpaceView
	did, err := b.Admin.HostDID(g.ctx, g.owner.Space)
	g.must(err)
	err = cluster.Poll(g.ctx, pollEvery, func() (bool, error) {
		v, err = a.Admin.Space(g.ctx, g.owner.Space)
		return slices.ContainsFunc(v.Hosts, func(h node.HostView) bool { return h.DID == did && h.Connected }), err
	})
	if err != nil {
		g.Fatalf("%s is not connected with %s: %v: %+v", a.Name, b.Name, err, v.Hosts)
	}
}

// oneSecret waits until peers share the secret under whose names they find each other; it follows the connection.
func (g *group) oneSecret(peers ...*cluster.Peer) {
	g.Helper()
	g.must(cluster.Poll(g.ctx, pollEvery, func() (bool, error) {
		secrets := map[string]bool{}
		for _, p := range peers {
			db, err := sql.Open("sqlite", "file:"+filepath.Join(p.Dir, "data", "caps.db")+"?mode=ro&_pragma=busy_timeout(5000)")
			if err != nil {
				return false, err
			}
			var secret []byte
			err = errors.Join(db.QueryRowContext(g.ctx, "SELECT secret FROM rendezvous").Scan(&secret), db.Close())
			if errors.Is(err, sql.ErrNoRows) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			secrets[string(secret)] = true
		}
		return len(secrets) == 1, nil
	}))
}

// Peers that know one host each find each other by what it tells them of the others' addresses.
func TestHostsFindEachOtherThroughAThird(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3)
	g.same()
	c, a, b := g.nodes.Peers()[0], g.nodes.Peers()[1], g.nodes.Peers()[2]
	g.connected(a, b)
	g.must(c.Stop())
	g.put(a, "without", "the third")
	g.same(a, b)
	g.reads("without", "the third", a, b)
}

// All peers but one move while they are down. The one that stayed is where the others find it, and so each
// other; and when only one is up that the mover knows, that is enough.
func TestAddressesSurvive(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 4)
	g.same()
	g.awaitConnected(g.nodes.Peers())
	stayed := g.nodes.Peers()[3]
	for _, p := range g.nodes.Peers() {
		g.must(p.Stop())
	}
	for _, p := range g.nodes.Peers()[:3] {
		g.must(p.Move())
	}
	g.must(stayed.Start(g.ctx))
	for _, p := range g.nodes.Peers()[:3] {
		g.must(p.Start(g.ctx))
	}
	g.put(g.nodes.Peers()[1], "moved", "all but one")
	g.same()
	g.reads("moved", "all but one", g.nodes.Peers()...)
	g.awaitConnected(g.nodes.Peers())
}

// Two hosts of a Space move at once, so that none has an address of the other that is good. Both know a
// third node, which hosts nothing of the Space and is only a server of the DHT.
func TestHostsFindEachOtherInTheDHT(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	server, err := g.nodes.Add(g.ctx, "TINYCLOUD_P2P_DHT=true", "TINYCLOUD_LOG_LEVEL=debug")
	g.must(err)
	env := []string{"TINYCLOUD_P2P_DHT=true", "TINYCLOUD_P2P_BOOTSTRAP=" + g.nodeAddr(server)}
	a, err := g.nodes.Add(g.ctx, env...)
	g.must(err)
	b, err := g.nodes.Add(g.ctx, env...)
	g.must(err)
	g.must(g.owner.Host(g.ctx, a))
	_, err = g.owner.SignIn(g.ctx, a)
	g.must(err)
	g.put(a, "k", "v")
	g.must(g.owner.Host(g.ctx, b))
	g.must(g.owner.Join(g.ctx, b, a))
	g.same(a, b)
	g.connected(a, b)
	g.connected(b, a)
	g.oneSecret(a, b)
	for _, p := range []*cluster.Peer{a, b} {
		g.must(p.Stop())
		g.must(p.Move())
	}
	for _, p := range []*cluster.Peer{a, b} {
		g.must(p.Start(g.ctx))
	}
	g.connected(a, b)
	g.put(a, "after", "the move")
	g.same(a, b)
	g.reads("after", "the move", a, b)
	views, err := server.Admin.Spaces(g.ctx)
	if err != nil || len(views) != 0 {
		t.Errorf("the server has spaces %+v, %v", views, err)
	}
	log, err := os.ReadFile(server.LogFile())
	g.must(err)
	for _, secret := range []string{g.owner.Space.String(), string(g.owner.Wallet.DID()), "pkh:"} {
		if strings.Contains(string(log), secret) {
			t.Errorf("the server knows %q", secret)
		}
	}
}

// Two hosts of a Space move at once and find each other on the local network.
func TestHostsFindEachOtherOnTheLAN(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	var pair []*cluster.Peer
	for i := range 2 {
		p, err := g.nodes.Add(g.ctx, "TINYCLOUD_P2P_MDNS=true")
		g.must(err)
		g.must(g.owner.Host(g.ctx, p))
		if i == 0 {
			_, err = g.owner.SignIn(g.ctx, p)
			g.must(err)
		} else {
			g.must(g.owner.Join(g.ctx, p, pair[0]))
		}
		pair = append(pair, p)
	}
	a, b := pair[0], pair[1]
	g.same()
	g.connected(a, b)
	g.connected(b, a)
	g.oneSecret(a, b)
	for _, p := range pair {
		g.must(p.Stop())
		g.must(p.Move())
	}
	for _, p := range pair {
		g.must(p.Start(g.ctx))
	}
	g.connected(a, b)
	g.put(a, "after", "the move")
	g.same()
}
