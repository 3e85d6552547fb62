package capstore_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// removals makes a random history in which hosts are removed, by the owner or by themselves, at any host,
// and admitted again, while all go on writing and hearing of some of the others.
func removals(t *testing.T, rng *rand.Rand, steps int) (*owner, []*testStore) {
	t.Helper()
	base := newClock()
	o := newOwner(t, fmt.Sprint("owner", rng.Uint64()), base)
	var stores []*testStore
	delegations := map[*testStore][]tinycloud.Hash{}
	admit := func(s, at *testStore) {
		options := captest.HostOptions(o.space, s.host(o.space).String())
		options.IssuedAt = base.now()
		header := o.wallet.SignDelegation(options)
		delegations[s] = append(delegations[s], captest.ID(header))
		at.delegate(header)
	}
	for i := range 4 {
		c := newClock()
		s := openNew(t, fmt.Sprint("host", i), c)
		admit(s, s)
		stores = append(stores, s)
	}
	stores[0].delegate(o.header)
	for _, s := range stores[1:] {
		s.pull(stores[0], o.space)
	}
	for range steps {
		s, key := stores[rng.IntN(len(stores))], fmt.Sprint("k/", rng.IntN(4))
		switch rng.IntN(16) {
		case 0, 1, 2, 3, 4, 5:
			allowed(t, o.put(s, key, fmt.Sprint(rng.IntN(1000))))
		case 6, 7:
			allowed(t, o.del(s, key))
		case 8, 9:
			tok := o.invoke(t, key, "tinycloud.kv/put")
			for _, i := range rng.Perm(len(stores))[:2] {
				_, err := stores[i].Write(t.Context(), tok, []kv.Op{putOp(o.space, key, fmt.Sprint("twice ", i))}, nil)
				allowed(t, err)
			}
		case 10:
			x := stores[rng.IntN(len(stores))]
			ids := delegations[x]
			rev, err := capstore.ParseRevocation(o.wallet.SignDelegation(captest.DelegationOptions{
				Audience: "ucan:" + ids[rng.IntN(len(ids))].EventID(), IssuedAt: base.now(),
			}))
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + rng.IntN(2) {
				allowed(t, stores[rng.IntN(len(stores))].Revoke(t.Context(), rev))
			}
		case 11:
			admit(stores[rng.IntN(len(stores))], s)
		default:
			s.pull(stores[rng.IntN(len(stores))], o.space)
		}
		for _, s := range stores {
			s.clock.ms.Add(50)
		}
		base.ms.Add(50)
	}
	return o, stores
}

func TestRemovalConvergence(t *testing.T) {
	voids := int64(0)
	for seed := range uint64(24) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			o, stores := removals(t, rng, 70)
			for range 3 {
				for _, a := range stores {
					for _, b := range stores {
						a.pull(b, o.space)
					}
				}
			}
			bundles := all(t, stores[0], o.space)
			if got := naive(t, bundles); !maps.Equal(got, state(t, stores[0], o.space)) {
				t.Errorf("the store's state\n%v\nnaive\n%v", state(t, stores[0], o.space), got)
			}
			want := stores[0].status(o.space)
			if void := naiveVoid(t, bundles); want.Void != void {
				t.Errorf("%d void epochs, naively %d", want.Void, void)
			}
			voids += want.Void
			same := func(s *testStore) {
				t.Helper()
				got := s.status(o.space)
				if got.StateHash != want.StateHash || fmt.Sprint(got.Heads) != fmt.Sprint(want.Heads) || got.Void != want.Void {
					t.Errorf("%s:\n%+v\nwant\n%+v", s.name, got, want)
				}
			}
			for _, s := range stores[1:] {
				same(s)
			}
			c := newClock()
			c.ms.Add(time.Hour.Milliseconds())
			late := openNew(t, "late", c)
			o.hostOn(late)
			feed(t, rng, late, o.space, bundles)
			if got := late.status(o.space); got.StateHash != want.StateHash || got.Void != want.Void {
				t.Errorf("late joiner: %+v, want %+v", got, want)
			}
			stores[1].stop()
			again := open(t, "host1", stores[1].clock, stores[1].path)
			same(again)
			allowed(t, o.put(again, "k/0", "after"))
		})
	}
	if voids == 0 {
		t.Error("no epoch was ever void")
	}
}
