package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// naming starts nodes of which each names the one after it, the last one the first: two name each other.
func (g *group) naming(n int) []*cluster.Peer {
	g.Helper()
	var peers []*cluster.Peer
	for range n {
		peers = append(peers, g.start())
	}
	addrs := make([]string, n)
	for i, p := range peers {
		addrs[i] = g.nodeAddr(p)
	}
	g.must(atOnce(n, peers, func(i int, p *cluster.Peer) error {
		if err := p.Stop(); err != nil {
			return err
		}
		p.Set(bootstrapTo + addrs[(i+1)%n])
		return p.Start(g.ctx)
	}))
	return peers
}

// everywhere has an app of its own arrive at each node at the same moment, and returns them.
func (u *user) everywhere(g *group, peers []*cluster.Peer) []*cluster.App {
	g.Helper()
	apps := make([]*cluster.App, len(peers))
	for i := range apps {
		apps[i] = cluster.NewApp(u.phone.Wallet)
		apps[i].Spaces = u.phone.Spaces
		g.Cleanup(apps[i].Close)
	}
	g.must(cluster.Each(peers, func(i int, p *cluster.Peer) error {
		_, err := u.arrive(g.ctx, apps[i], p)
		return err
	}))
	return apps
}

// TestFreshNodesInACircle has nodes that nobody uses yet name each other, and users who come to all of them at the same
// moment. Nobody waits for somebody who waits; all come to one state, and what lost is listed.
func TestFreshNodesInACircle(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 3; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			g := startGroup(t, 0)
			peers := g.naming(n)
			var users []*user
			for range 5 {
				users = append(users, g.newUser())
			}
			began := time.Now()
			g.must(atOnce(len(users), users, func(_ int, u *user) error {
				apps := u.everywhere(g, peers)
				for i, app := range apps {
					if err := app.Save(g.ctx, peers[i], "default", fmt.Sprint("from/", i), []byte("here")); err != nil {
						return err
					}
					u.remember("default", fmt.Sprint("from/", i), "here")
				}
				return nil
			}))
			took := time.Since(began)
			t.Logf("%d users began on %d nodes in %s", len(users), n, took.Round(time.Millisecond))
			if took > 9*time.Second { // less than p2p.join_timeout: no node had to run into it
				t.Errorf("took %s", took)
			}
			for _, u := range users {
				for _, name := range u.names() {
					u.remember(name, settings, defaults) // whoever won
				}
				_, err := u.phone.SignIn(g.ctx, peers[0], nil)
				g.must(err)
				_, err = u.laptop.SignIn(g.ctx, peers[1], nil)
				g.must(err)
				g.must(u.keeps(g.ctx, peers...))
			}
		})
	}
}

// remember notes a value that an app was acknowledged.
func (u *user) remember(space, key, value string) {
	if u.saved[space] == nil {
		u.saved[space] = map[string]string{}
	}
	u.saved[space][key] = value
}

// TestCircleWithValues has users of one node come to two others at the same moment, that know each other and one of
// which knows the first.
func TestCircleWithValues(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	peers := g.naming(3)
	first, second, third := peers[0], peers[1], peers[2] // the third names the first, the second the third
	users := g.newUsers(10, first)
	g.must(atOnce(4, users, func(_ int, u *user) error { return u.begin(g.ctx, third) }))
	g.must(atOnce(4, users, func(_ int, u *user) error { return u.begin(g.ctx, second) }))
	for _, u := range users {
		g.must(u.keeps(g.ctx, first, third, second))
		g.polite(u)
	}
}

// TestManySignInsAtOnce has many users come at the same moment to a second host that is paired with the first.
func TestManySignInsAtOnce(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	first := g.start()
	users := g.newUsers(scale(t, "SIGN_INS", 13), first)
	second := ways["paired"].second(g, first, users)
	began := time.Now()
	g.must(atOnce(len(users), users, func(_ int, u *user) error { return u.begin(g.ctx, second) }))
	took := time.Since(began)
	t.Logf("%d sign-ins of %d Spaces in %s", len(users), len(users)*5, took.Round(time.Millisecond))
	if most := time.Duration(len(users)) * time.Second; took > most {
		t.Errorf("took %s, want at most %s", took, most)
	}
	for _, u := range users {
		g.must(u.keeps(g.ctx, first, second))
		g.polite(u)
	}
}

// arriveAnew has the laptop create everything at a host, which must not know what there is.
func (u *user) arriveAnew(g *group, p *cluster.Peer, others ...*cluster.Peer) error {
	created, err := u.arrive(g.ctx, u.laptop, p, others...)
	slices.Sort(created)
	if all := slices.Sorted(slices.Values(u.names())); err == nil && !slices.Equal(created, all) {
		err = fmt.Errorf("created %v, want %v", created, all)
	}
	return err
}
