package replication_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

func TestRevokedHostIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("revoked")
		nodes := cluster(t, f, o, 2)
		target := hostDelegation(t, nodes[1])
		nodes[0].revoke(o.wallet.SignRevocation(target))
		began := time.Now()
		synctest.Wait()
		for nodes[0].end.connected(nodes[1].id) && time.Since(began) < 2*time.Second {
			<-time.After(10 * time.Millisecond)
			synctest.Wait()
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("cut after %s", d)
		}
		if got, want := nodes[1].status().Epochs, nodes[0].status().Epochs; got != want {
			t.Errorf("the revoked host has %d epochs, the other %d: the revocation did not reach it", got, want)
		}
		before := nodes[1].status().Epochs
		nodes[0].put("secret", "1")
		<-time.After(20 * time.Minute)
		synctest.Wait()
		if nodes[1].status().Epochs != before || nodes[0].end.IsAuthorised(nodes[1].id) {
			t.Error("the revoked host still gets the Space")
		}
	})
}

// While a removed host hears of its removal it hears of nothing else; the others do.
func TestNothingAfterRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("last word")
		nodes := cluster(t, f, o, 3)
		same(t, nodes...)
		nodes[0].revoke(o.wallet.SignRevocation(hostDelegation(t, nodes[2])))
		nodes[0].put("after", "1")
		nodes[1].put("beside", "1")
		<-time.After(time.Second)
		synctest.Wait()
		if got := nodes[1].get("after"); got != "1" {
			t.Errorf("another host reads %q", got)
		}
		if got := nodes[2].get("after"); got != "(none)" {
			t.Errorf("the removed host reads %q", got)
		}
		if err := nodes[2].tryPut("k", "v"); err == nil {
			t.Error("it has not heard of its removal")
		}
		same(t, nodes[:2]...)
	})
}

// What builds on a removal is not passed on with it: the removed host may be among those who would get it.
func TestRemovalIsPassedOnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("alone")
		nodes := cluster(t, f, o, 3)
		same(t, nodes...)
		f.setLoss(func(_, _ peer.ID) bool { return true })
		have := must(nodes[1].store.Tips(t.Context(), o.space))
		nodes[0].revoke(o.wallet.SignRevocation(hostDelegation(t, nodes[2])))
		nodes[0].put("after", "1")
		var news []hostlog.Bundle
		if err := nodes[0].store.Missing(t.Context(), o.space, have, 1<<20, func(b hostlog.Bundle) error {
			news = append(news, b)
			return nil
		}); err != nil || len(news) != 2 {
			t.Fatal(len(news), err)
		}
		if err := nodes[1].r.Check(t.Context(), nodes[0].id, wiretest.BatchMessage(news...)); !errors.Is(err, tinycloud.ErrUnavailable) {
			t.Errorf("what builds on a removal is passed on: %v", err)
		}
		same(t, nodes[:2]...) // it is taken all the same
	})
}

// hostDelegation finds the delegation that makes a node a host.
func hostDelegation(t *testing.T, n *node) tinycloud.Hash {
	t.Helper()
	chain, err := n.store.HostChain(t.Context(), n.o.space)
	if err != nil || len(chain) == 0 {
		t.Fatal(chain, err)
	}
	return tinycloud.Sum(chain[0])
}

// forAnHour makes a host and another one whose delegation lasts an hour.
func forAnHour(t *testing.T, f *fabric, o *owner) (first, short *node) {
	t.Helper()
	first = newNode(t, f, o, "first")
	first.delegate(o.header)
	short = &node{t: t, o: o, name: "short", f: f, dir: t.TempDir(), values: newMemValues()}
	short.startWith(t, captest.DelegationOptions{IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour)})
	short.join(first)
	same(t, first, short)
	return first, short
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("expiry")
		first, short := forAnHour(t, f, o)
		if p := peerStatus(first, short); !p.Connected || time.Until(p.Expires) > time.Hour || p.Expires.IsZero() {
			t.Fatalf("%+v", p)
		}
		<-time.After(61 * time.Minute)
		synctest.Wait()
		if first.end.IsAuthorised(short.id) {
			t.Error("a host whose delegation expired is still connected")
		}
	})
}

// A new delegation to the same key, made in time, lets a host go on when the old one ends, with all it wrote.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("renewal")
		first, short := forAnHour(t, f, o)
		<-time.After(30 * time.Minute)
		first.delegate(o.hosting(short.key(), captest.DelegationOptions{IssuedAt: time.Now(), Expires: time.Now().Add(10 * time.Hour)}))
		same(t, first, short)
		<-time.After(35 * time.Minute)
		short.put("after", "1")
		same(t, first, short)
		if got := first.get("after"); got != "1" {
			t.Errorf("after = %q", got)
		}
		if st := first.status(); st.Void != 0 {
			t.Errorf("%d void epochs", st.Void)
		}
		if p := peerStatus(first, short); !p.Connected || time.Until(p.Expires) < 9*time.Hour {
			t.Errorf("%+v", p)
		}
	})
}

// What a host hears with a removal is not passed on, since the removed one may listen. Who is connected to that host alone
// hears of it once it is durable there, and does not wait for a round.
func TestWhatFollowsARemovalIsHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("behind a removal")
		nodes := cluster(t, f, o, 4)
		same(t, nodes...)
		<-time.After(3 * time.Minute) // every host has heard where the others are
		first, between, last := nodes[0], nodes[1], nodes[2]
		f.part(first.id, last.id, true)
		for i := range 5 {
			first.put(fmt.Sprint("before/", i), "1")
		}
		same(t, nodes[:3]...)
		first.revoke(o.wallet.SignRevocation(hostDelegation(t, nodes[3])))
		first.put("after", "1")
		if took := same(t, first, between, last); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
