package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
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
			users := g.newUsers(scale(t, "AWAY_ROUNDS", 4), first)
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

// TestFirstHostRefuses has a node lose its data after the first host was told that its delegation is over. Hosting the
// Space by that delegation again, it is refused like a stranger, so it opens, and what is written there does not reach
// the first host. When the owner lets the node in again, both have what was there first, and nothing of the time between:
// the node was no host then.
func TestFirstHostRefuses(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 1)
	first := g.nodes.Peers()[0]
	second := g.start(bootstrapTo+g.nodeAddr(first), joinTimeout+"2s")
	header, err := g.owner.HostHeader(g.ctx, second)
	g.must(err)
	_, err = second.Admin.Delegate(g.ctx, header)
	g.must(err)
	_, err = g.owner.SignIn(g.ctx, second)
	g.must(err)
	g.put(first, settings, "of the user")
	g.same()
	g.must(g.owner.RevokeHost(g.ctx, first, header))
	g.must(second.Stop())
	g.must(os.RemoveAll(filepath.Join(second.Dir, "data")))
	g.must(second.Start(g.ctx))

	_, err = second.Admin.Delegate(g.ctx, header)
	g.must(err)
	_, err = g.owner.SignIn(g.ctx, second)
	g.must(err)
	if _, err := g.owner.Get(g.ctx, second, settings); !errors.Is(err, tinycloud.ErrNotFound) {
		g.Fatalf("the refused node says %v", err)
	}
	g.put(second, settings, "defaults")
	g.put(second, "beside", "of the second")
	g.reads(settings, "of the user", first)
	if _, err := g.owner.Get(g.ctx, first, "beside"); !errors.Is(err, tinycloud.ErrNotFound) {
		g.Fatalf("a removed host's write came to the first: %v", err)
	}

	g.must(g.owner.Host(g.ctx, second))
	if views, err := g.owner.AwaitSame(g.ctx, g.nodes.Peers()); err != nil {
		g.Fatalf("%v: %+v", err, views)
	}
	g.reads(settings, "of the user", first, second)
	for _, p := range g.nodes.Peers() {
		if _, err := g.owner.Get(g.ctx, p, "beside"); !errors.Is(err, tinycloud.ErrNotFound) {
			g.Errorf("%s: a write of a host that was removed: %v", p.Name, err)
		}
	}
}
