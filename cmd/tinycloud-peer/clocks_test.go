package main

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// parted is a user of two hosts, whose clocks may be off like those of the devices beside them, and the ways between them.
type parted struct {
	*group
	user  *user
	peers []*cluster.Peer
	apps  []*cluster.App // each is at the host of its place
	ways  []*cluster.WAN
}

// newApart starts hosts that replicate a Space.
func newApart(t *testing.T, off ...time.Duration) *parted {
	t.Helper()
	a := &parted{group: startGroup(t, 0)}
	a.user = a.newUser("default")
	a.apps = []*cluster.App{a.user.phone, a.user.laptop}
	for i, by := range off {
		env := []string{clockOff + by.String()}
		if i > 0 {
			env = append(env, bootstrapTo+a.nodeAddr(a.peers[0]))
		}
		p := a.start(env...)
		a.ways = append(a.ways, a.remote(p, 0))
		a.peers = append(a.peers, p)
		a.apps[i].Now = func() time.Time { return time.Now().Add(by) }
		_, err := a.apps[i].SignIn(a.ctx, p, nil)
		a.must(err)
		a.save(i, "begun", fmt.Sprint("by ", i))
	}
	a.meet()
	return a
}

// save saves a value at one of the hosts.
func (a *parted) save(at int, key, value string) {
	a.Helper()
	a.must(a.apps[at].Save(a.ctx, a.peers[at], "default", key, []byte(value)))
}

// reads waits until a host has a value.
func (a *parted) awaits(at int, key, value string) {
	a.Helper()
	a.must(cluster.Poll(a.ctx, pollEvery/10, func() (bool, error) {
		got, _, err := a.apps[at].Load(a.ctx, a.peers[at], "default", key)
		return string(got) == value, err
	}))
}

// meet waits until the hosts have the same.
func (a *parted) meet() {
	a.Helper()
	if views, err := cluster.AwaitSame(a.ctx, a.user.phone.Space("default"), a.peers); err != nil {
		a.Fatalf("%v: %+v", err, views)
	}
}

// won checks that a value is that of a key at both hosts, and that just some others are its conflicts.
func (a *parted) won(key, value string, conflicts ...string) {
	a.Helper()
	for i, p := range a.peers {
		if got, found, err := a.apps[i].Load(a.ctx, p, "default", key); err != nil || string(got) != value {
			a.Errorf("%s: %s is %q, %t, %v; want %q", p.Name, key, got, found, err, value)
		}
		a.conflicting(p, a.user, "default", key, conflicts...)
	}
}

func (a *parted) cut() {
	for _, w := range a.ways {
		w.Cut()
	}
}

func (a *parted) mend() {
	for _, w := range a.ways {
		w.Mend()
	}
}

// TestTheLastWriteWins has a user write the same keys at two hosts: in turn, which clocks have no part in, and while the
// hosts are parted, when the later write stands by their clocks, and the other one is a conflict.
func TestTheLastWriteWins(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{0, time.Minute, -time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			a := newApart(t, 0, off)
			for n := range 10 {
				a.save(n%2, "turns", fmt.Sprint("turn ", n))
				a.awaits((n+1)%2, "turns", fmt.Sprint("turn ", n))
			}
			a.meet()
			a.won("turns", "turn 9")

			a.cut()
			// Many writes at one host don't make it win.
			for n := range 20 {
				a.save(0, "busy", fmt.Sprint("busy ", n))
			}
			a.save(0, "early-here", "here")
			a.save(1, "early-there", "there")
			a.save(0, "late-here", "first there")
			a.save(1, "late-here", "first there")
			a.save(1, "busy", "there, once")
			a.save(1, "early-here", "there")
			a.save(0, "early-there", "here")
			a.must(a.apps[1].Remove(a.ctx, a.peers[1], "default", "begun"))
			a.mend()
			a.meet()
			const here, there = "here", "there"
			switch {
			case off == 0:
				a.won("early-here", there, here)
				a.won("early-there", here, there)
				a.won("busy", "there, once", "busy 19")
			case off > 0: // its writes are dated a minute later
				a.won("early-here", there, here)
				a.won("early-there", there, here)
				a.won("busy", "there, once", "busy 19")
			default:
				a.won("early-here", here, there)
				a.won("early-there", here, there)
				a.won("busy", "busy 19", "there, once")
			}
			for i, p := range a.peers {
				if _, found, err := a.apps[i].Load(a.ctx, p, "default", "begun"); err != nil || found {
					t.Errorf("%s: a deleted key is there: %t, %v", p.Name, found, err)
				}
			}

			// Whoever saw both decides.
			a.save(1, "early-here", "decided")
			a.meet()
			a.won("early-here", "decided")
			// Neither order nor conflicts are lost with the processes.
			for _, p := range a.peers {
				a.must(p.Kill())
				a.must(p.Start(a.ctx))
			}
			a.meet()
			a.won("early-here", "decided")
			if off >= 0 {
				a.won("busy", "there, once", "busy 19")
			}
		})
	}
}

// TestWritesAtTheSameTime writes many keys at two hosts that are parted, at once. Of each key one value stands on both
// hosts, whatever the times are, and the other one is a conflict.
func TestWritesAtTheSameTime(t *testing.T) {
	t.Parallel()
	a := newApart(t, 0, 0)
	a.cut()
	keys := make([]string, 40)
	for i := range keys {
		keys[i] = fmt.Sprint("key/", i)
	}
	a.must(atOnce(4, keys, func(_ int, key string) error {
		return cluster.Each(a.apps, func(i int, app *cluster.App) error {
			return app.Save(a.ctx, a.peers[i], "default", key, fmt.Appendf(nil, "%s at %d", key, i))
		})
	}))
	a.mend()
	a.meet()
	won := [2]int{}
	for _, key := range keys {
		got, _, err := a.apps[0].Load(a.ctx, a.peers[0], "default", key)
		a.must(err)
		values := []string{key + " at 0", key + " at 1"}
		winner := 0
		if bytes.HasSuffix(got, []byte("1")) {
			winner = 1
		}
		won[winner]++
		a.won(key, values[winner], values[1-winner])
	}
	t.Logf("the hosts won %v", won)
}
