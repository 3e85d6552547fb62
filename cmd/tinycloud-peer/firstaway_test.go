//go:build twohosts

package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// TestFirstHostIsAway has users come to a second host while the first one is down. After a while their apps are told that
// there is nothing, and begin anew. When the first one is back, what was there stands; what the apps wrote meanwhile in its
// place is listed as a conflict, and what they wrote beside it is on both.
func TestFirstHostIsAway(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"named as a node", "paired", "paired by an invite"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGroup(t, 0)
			first := g.start()
			users := g.newUsers(scale(t, "AWAY_ROUNDS", 8), first)
			second := ways[name].second(g, first, users)
			g.must(second.Stop())
			second.Set(joinTimeout + "1s")
			g.must(first.Stop())
			g.must(second.Start(g.ctx))
			g.startAnew(users, second)
			g.must(second.Kill()) // what opened stays open
			g.must(second.Start(g.ctx))
			g.must(atOnce(4, users, func(_ int, u *user) error {
				return u.laptop.Save(g.ctx, second, "default", settings, []byte("changed on the laptop"))
			}))
			g.must(first.Start(g.ctx))
			g.met(users, first, second)
		})
	}
}

// startAnew has the laptops begin at a host that can't know what there is: they create everything.
func (g *group) startAnew(users []*user, second *cluster.Peer) {
	g.Helper()
	began := time.Now()
	g.must(atOnce(len(users), users, func(i int, u *user) error {
		if err := u.arriveAnew(g, second); err != nil {
			return err
		}
		for _, name := range u.names() {
			if err := u.laptop.Save(g.ctx, second, name, "notes", fmt.Appendf(nil, "%s of %d", name, i)); err != nil {
				return err
			}
		}
		return nil
	}))
	g.Logf("%d users began anew in %s", len(users), time.Since(began).Round(time.Millisecond))
}

// met checks what two hosts come to of which the second one began anew: the phone's values stand on both, the laptop's are
// conflicts, and its notes are on both. Then both go on.
func (g *group) met(users []*user, first, second *cluster.Peer) {
	g.Helper()
	g.must(atOnce(8, users, func(_ int, u *user) error { return u.keeps(g.ctx, first, second) }))
	for i, u := range users {
		for _, name := range u.names() {
			want := defaults
			if name == "default" {
				want = "changed on the laptop"
			}
			for _, p := range []*cluster.Peer{first, second} {
				g.conflicting(p, u, name, settings, want)
				if got, found, err := u.phone.Load(g.ctx, first, name, "notes"); err != nil || string(got) != fmt.Sprintf("%s of %d", name, i) {
					g.Errorf("notes at %s: %q, %t, %v", p.Name, got, found, err)
				}
			}
		}
		g.polite(u, u.names()...)
		// The user goes on, on either host: what is new stands, and the conflict is over.
		g.must(u.laptop.Save(g.ctx, second, "default", settings, []byte("changed later")))
		u.saved["default"][settings] = "changed later"
	}
	g.must(atOnce(8, users, func(_ int, u *user) error { return u.keeps(g.ctx, first, second) }))
	for _, u := range users {
		for _, p := range []*cluster.Peer{first, second} {
			g.conflicting(p, u, "default", settings)
		}
	}
}

// TestNobodyIsNamed has users come to a second host that knows nobody: their apps begin anew at once. The operator pairs it
// later, or joins the Spaces: what was there first stands.
func TestNobodyIsNamed(t *testing.T) {
	t.Parallel()
	for name, meet := range map[string]func(g *group, first, second *cluster.Peer, users []*user){
		"paired later": func(g *group, first, second *cluster.Peer, _ []*user) {
			g.verb(second, "pair", g.nodeAddr(first))
		},
		"paired later by an invite": func(g *group, first, second *cluster.Peer, _ []*user) {
			g.verb(first, "pair", g.invite(second))
		},
		"joined later": func(g *group, first, second *cluster.Peer, users []*user) {
			for _, u := range users {
				for _, name := range u.names() {
					v, err := first.Admin.Space(g.ctx, u.phone.Space(name))
					g.must(err)
					g.verb(second, "join", u.phone.Space(name).String(), v.Addrs[0])
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGroup(t, 0)
			first, second := g.start(), g.start()
			users := g.newUsers(4, first)
			g.startAnew(users, second)
			g.must(atOnce(4, users, func(_ int, u *user) error {
				return u.laptop.Save(g.ctx, second, "default", settings, []byte("changed on the laptop"))
			}))
			meet(g, first, second, users)
			g.met(users, first, second)
		})
	}
}
