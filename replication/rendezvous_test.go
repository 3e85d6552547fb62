package replication_test

import (
	"testing"
	"testing/synctest"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

func TestRendezvousNames(t *testing.T) {
	const week = 7 * 24 * time.Hour
	secret := tinycloud.Sum([]byte("secret"))
	monday := time.Unix(0, 0).Add(3000 * week)
	at := func(d time.Duration, secret tinycloud.Hash, means string) [][32]byte {
		return replication.RendezvousNames(secret, means, monday.Add(d))
	}
	middle := at(week/2, secret, "dht")
	if len(middle) != 1 {
		t.Fatalf("%d names in the middle of a week", len(middle))
	}
	// Clocks that differ by hours have a name in common.
	before, after := at(-time.Hour, secret, "dht"), at(time.Hour, secret, "dht")
	if len(before) != 2 || len(after) != 2 || before[1] != after[0] || before[0] != after[1] {
		t.Errorf("before %x, after %x the change", before, after)
	}
	if after[0] != middle[0] || at(0, secret, "dht")[0] != middle[0] {
		t.Error("a week has two names")
	}
	if at(week+week/2, secret, "dht")[0] == middle[0] {
		t.Error("the name does not change")
	}
	if at(week/2, secret, "mdns")[0] == middle[0] || at(week/2, tinycloud.Sum(nil), "dht")[0] == middle[0] {
		t.Error("a name for two things")
	}
}

// All hosts come to share a secret, and a host that is removed has none of the later ones.
func TestHostsShareTheirRendezvous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, o := newFabric(t), newOwner("rendezvous")
		nodes := cluster(t, f, o, 4)
		get := func(n *node) hostlog.Rendezvous {
			r, err := n.store.Rendezvous(t.Context(), o.space, false)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		shared := func(nodes ...*node) func() bool {
			return func() bool {
				for _, n := range nodes {
					if r := get(n); r.Secret.IsZero() || r != get(nodes[0]) {
						return false
					}
				}
				return true
			}
		}
		until(t, "one secret", shared(nodes...))
		old := get(nodes[0])
		outcast, rest := nodes[2], []*node{nodes[0], nodes[1], nodes[3]}
		nodes[0].revoke(o.wallet.SignRevocation(hostDelegation(t, outcast)))
		until(t, "another secret", func() bool { return get(nodes[0]) != old && shared(rest...)() })
		if r, err := outcast.store.Rendezvous(t.Context(), o.space, true); err != nil || r.Secret == get(nodes[0]).Secret {
			t.Errorf("the removed host knows %+v, %v", r, err)
		}
		late := newNode(t, f, o, "late")
		before := get(nodes[0])
		late.join(nodes[1])
		until(t, "the newcomer has it", shared(append(rest, late)...))
		if get(late) != before {
			t.Error("a newcomer changed it")
		}
	})
}
