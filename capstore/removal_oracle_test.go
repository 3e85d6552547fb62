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
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// naiveRemovals fills in which entries are valid, by the letter: every entry, every removal, whole ancestor
// sets, again and again until nothing changes. It knows delegations by the owner alone.
func naiveRemovals(order []*naiveEpoch) {
	type removal struct {
		token *capstore.Token
		host  capstore.HostKey
		cut   *naiveEpoch
	}
	facts := map[tinycloud.Hash]*capstore.Token{}
	in := map[tinycloud.Hash][]*naiveEpoch{}
	for _, e := range order {
		for _, tok := range e.events {
			facts[tok.ID] = tok
			in[tok.ID] = append(in[tok.ID], e)
		}
	}
	if len(order) == 0 {
		return
	}
	space := order[0].entries[0].Space
	hostOf := func(d *capstore.Token) (h capstore.HostKey, ok bool) {
		h, ok = capstore.HostOf(d.Audience)
		return h, ok && d.Kind == judge.Delegation && d.HostsSpace(space) && d.Signer == space.Owner()
	}
	ends := func(r removal, d *capstore.Token) bool {
		h, ok := hostOf(d)
		younger := d.IssuedAt.After(r.token.IssuedAt)
		return ok && (d.ID == r.token.Target || h == r.host && !younger && (r.token.Signer == space.Owner() || r.token.Signer == d.Audience))
	}
	// held are the host delegations an entry of a host can rest on.
	held := func(e *naiveEpoch, h capstore.HostKey) (out []*capstore.Token) {
		for id, d := range facts {
			if host, ok := hostOf(d); !ok || host != h {
				continue
			}
			for _, p := range in[id] {
				if p == e || e.past[p.id] {
					out = append(out, d)
					break
				}
			}
		}
		return out
	}
	var removals []removal
	for _, r := range facts {
		d := facts[r.Target]
		if r.Kind != judge.Revocation || d == nil {
			continue
		}
		h, ok := hostOf(d)
		if !ok || r.Signer != space.Owner() && r.Signer != d.Audience {
			continue
		}
		x := removal{token: r, host: h}
		for _, others := range []bool{true, false} {
			for _, e := range in[r.ID] {
				fits := false
				for i, l := range e.entries {
					other := false
					for _, d := range held(e, l.Host) {
						other = other || l.Host != h && !ends(x, d)
					}
					fits = fits || e.able[i] && (other || !others)
				}
				at, best := capstore.Position{Seq: e.seq, Epoch: e.id}, capstore.Position{}
				if x.cut != nil {
					best = capstore.Position{Seq: x.cut.seq, Epoch: x.cut.id}
				}
				if fits && (x.cut == nil || at.Compare(best) < 0) {
					x.cut = e
				}
			}
			if x.cut != nil {
				break
			}
		}
		removals = append(removals, x)
	}
	type key struct {
		e *naiveEpoch
		i int
	}
	valid := map[key]bool{}
	survives := func(e *naiveEpoch, h capstore.HostKey, r removal) bool {
		if r.cut != nil && (r.cut == e || r.cut.past[e.id]) {
			return true
		}
		for k := range valid {
			if k.e.entries[k.i].Host == h || k.e != e && !k.e.past[e.id] {
				continue
			}
			knew := false
			for _, p := range in[r.token.ID] {
				knew = knew || k.e.past[p.id]
			}
			if !knew {
				return true
			}
		}
		return false
	}
	for changed := true; changed; {
		changed = false
		for _, e := range order {
			for i, l := range e.entries {
				if valid[key{e, i}] || !e.able[i] {
					continue
				}
				for _, d := range held(e, l.Host) {
					ok := true
					for _, r := range removals {
						ok = ok && (!ends(r, d) || survives(e, l.Host, r))
					}
					if ok {
						valid[key{e, i}], changed = true, true
						break
					}
				}
			}
		}
	}
	for k := range valid {
		k.e.valid = append(k.e.valid, k.e.entries[k.i].At)
	}
}

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
				_, err := stores[i].Write(t.Context(), tok, []capstore.Op{putOp(o.space, key, fmt.Sprint("twice ", i))}, nil)
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
