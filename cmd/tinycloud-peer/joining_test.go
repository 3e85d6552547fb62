package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// naming starts nodes of which each names the one after it, the last one the first: two name each other.
func (g *group) naming(n int) []*cluster.Peer {
	g.Helper()
	var peers []*cluster.Peer
	for range n {
		peers = append(peers, g.start(joinTimeout+"1h")) // nobody gets anywhere by waiting for it
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
			t.Logf("%d users began on %d nodes in %s", len(users), n, time.Since(began).Round(time.Millisecond))
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
	t.Logf("%d sign-ins of %d Spaces in %s", len(users), len(users)*5, time.Since(began).Round(time.Millisecond))
	for _, u := range users {
		g.must(u.keeps(g.ctx, first, second))
		g.polite(u)
	}
}

// TestSeveralProcessesJoin has users come to a second host that is two processes on one database: they sign in at one, and
// their apps ask both. One process is killed meanwhile, whichever leads. Nobody is told that there is nothing.
func TestSeveralProcessesJoin(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) *testservers.Database{"Postgres": testservers.Postgres, "MariaDB": testservers.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t)
			g := startGroup(t, 0)
			first := g.start()
			users := g.newUsers(4, first)
			shared := []string{
				"TINYCLOUD_KEYS_SECRET=" + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("of two processes", 4))),
				"TINYCLOUD_STORAGE_DATABASE=" + db.DSN, bootstrapTo + g.nodeAddr(first),
			}
			shared = append(shared, s3Env(testservers.S3(t))...)
			one, other := g.start(shared...), g.start(shared...)
			g.must(atOnce(2, users[:2], func(_ int, u *user) error { return u.begin(g.ctx, one, other) }))
			g.must(one.Kill()) // it led: it was there first
			g.must(atOnce(2, users[2:], func(_ int, u *user) error { return u.begin(g.ctx, other) }))
			g.must(one.Start(g.ctx))
			for _, u := range users {
				g.must(u.keeps(g.ctx, first, other, one))
				g.polite(u)
				g.noConflicts(u, first, other)
			}
		})
	}
}

// TestAllHostsAreRestored restores the only two hosts from backups at the same time. Neither can know what the other one
// still has, so each waits for it; alone it refuses. Together they go on, the least host first, with all that either has.
func TestAllHostsAreRestored(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2)
	g.same()
	peers := g.nodes.Peers()
	a, b := peers[0], peers[1]
	for _, p := range peers {
		local := admin.Local(filepath.Join(p.Dir, "data"))
		g.put(a, "backup/"+p.Name, "1")
		g.same()
		_, err := local.Backup(g.ctx, filepath.Join(p.Dir, "backup"))
		local.Close()
		g.must(err)
	}
	g.put(b, "lost", "is in no backup")
	g.same()
	for _, p := range peers {
		g.must(p.Stop())
		data := filepath.Join(p.Dir, "data")
		g.must(os.Rename(data, data+".lost"))
		g.must(os.Rename(filepath.Join(p.Dir, "backup"), data))
		p.Set(joinTimeout + "1s")
	}
	g.must(a.Start(g.ctx))
	if err := g.owner.Put(g.ctx, a, "early", []byte("1")); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a write while the other host is away: %v", err)
	}
	g.must(b.Start(g.ctx))
	g.must(atOnce(2, peers, func(i int, p *cluster.Peer) error {
		return cluster.Poll(g.ctx, pollEvery, func() (bool, error) {
			v, err := p.Admin.Space(g.ctx, g.owner.Space)
			return err == nil && v.State == "synced", err
		})
	}))
	g.put(a, "from/a", "2")
	g.put(b, "from/b", "2")
	g.same()
	for _, p := range peers {
		g.reads("backup/"+p.Name, "1", a, b) // the first backup lacks the second value, the second has it
	}
	g.reads("from/a", "2", a, b)
	g.reads("from/b", "2", a, b)
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
