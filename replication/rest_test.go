package replication_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// lieDown asks whether a node may rest, and has it leave.
func (n *node) lieDown(t *testing.T) {
	t.Helper()
	rest, err := n.r.Rest(t.Context())
	if err != nil || !n.r.Rests(rest) {
		t.Fatal(err)
	}
	n.leave()
}

// wake runs a node's replica again.
func (n *node) wake(t testing.TB) {
	t.Helper()
	n.replicate(t, captest.DelegationOptions{})
}

// knocks reports whether a node that is not here was dialed since it was asked last.
func (f *fabric) knocks(n *node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer delete(f.knocked, n.id)
	return f.knocked[n.id]
}

// acquainted are hosts of a Space that are equal, and have heard where the others are.
func acquainted(t *testing.T, owner string, n int) (*fabric, []*node) {
	t.Helper()
	f, o := newFabric(t), newOwner(owner)
	nodes := cluster(t, f, o, n)
	same(t, nodes...)
	<-time.After(3 * time.Minute)
	synctest.Wait()
	return f, nodes
}

// A host that rests is not dialed until something is new at one that knows of it, and counts as connected until then.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, nodes := acquainted(t, "rest", 3)
		a, b, c := nodes[0], nodes[1], nodes[2]
		a.lieDown(t)
		<-time.After(25 * time.Minute)
		synctest.Wait()
		if p := peerStatus(b, a); f.knocks(a) || !p.Connected || !p.Synced {
			t.Errorf("after 25 minutes of rest: %+v", p)
		}
		c.put("new", "1")
		synctest.Wait()
		if p := peerStatus(b, a); !f.knocks(a) || p.Connected {
			t.Errorf("nobody tells the host that rests: %+v", p)
		}
		a.wake(t)
		same(t, nodes...)
		c.lieDown(t)
		<-time.After(2 * time.Hour)
		synctest.Wait()
		if !f.knocks(c) {
			t.Error("a host rests for ever")
		}
	})
}

// Hosts that agree to rest are equal, also if one was about to compare with the other: it tells so while it rests.
func TestRestTellsOfEqualHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := acquainted(t, "equal", 2)
		a, b := nodes[0], nodes[1]
		replication.Doubt(a.r, b.id)
		rest, err := a.r.Rest(t.Context())
		if err != nil || len(rest.Hosts) != 1 || !rest.Hosts[0].Connected || !rest.Hosts[0].Synced || time.Since(rest.Hosts[0].Equal) > time.Second {
			t.Errorf("%+v, %v", rest, err)
		}
	})
}

// Nobody rests before all are equal, nor is let go in the belief to have all when there is something new.
func TestNoRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, nodes := acquainted(t, "no rest", 2)
		a, b := nodes[0], nodes[1]
		f.setLoss(func(_, _ peer.ID) bool { return true })
		b.put("unheard", "1")
		if _, err := a.r.Rest(t.Context()); !errors.Is(err, tinycloud.ErrUnavailable) {
			t.Errorf("rests without what the other has: %v", err)
		}
		same(t, nodes...)
		rest, err := a.r.Rest(t.Context())
		if err != nil || !a.r.Rests(rest) {
			t.Fatal(err)
		}
		b.put("meanwhile", "1") // before A leaves
		a.leave()
		<-time.After(10 * time.Second)
		synctest.Wait()
		if !f.knocks(a) {
			t.Error("A is not told")
		}
		a.wake(t)
		same(t, nodes...)
		rest, err = a.r.Rest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a.put("own", "1")
		if a.r.Rests(rest) {
			t.Error("rests although it has something to tell")
		}
	})
}
