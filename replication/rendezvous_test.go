package replication_test

import (
	"testing"
	"testing/synctest"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

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
