package capstore_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/oracletest"
)

// history makes a random history of one Space on several hosts: races on few keys, deletes, the same
// token posted to two hosts, clocks that differ, revocations amid writes, partial exchange.
func history(t *testing.T, rng *rand.Rand, steps int) (*owner, []*testStore) {
	t.Helper()
	base := newClock()
	o := newOwner(t, fmt.Sprint("owner", rng.Uint64()), base)
	var stores []*testStore
	for i := range 3 {
		c := newClock()
		c.ms.Add(int64(rng.IntN(40_000)) - 20_000)
		s := openNew(t, fmt.Sprint("host", i), c)
		o.hostOn(s)
		stores = append(stores, s)
	}
	stores[0].delegate(o.header)
	sessions := []*owner{o}
	for i := range 2 {
		x := &owner{wallet: o.wallet, space: o.space, clock: base, session: captest.NewSession(fmt.Sprint("extra", i, rng.Uint64()))}
		x.header = o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: x.session.URI(), IssuedAt: base.now(), Expires: base.now().Add(time.Hour), Nonce: "nonce0000002",
			Caps: captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/put", "tinycloud.kv/del"}},
		})
		x.proof = captest.ID(x.header)
		stores[rng.IntN(3)].delegate(x.header)
		sessions = append(sessions, x)
	}
	for range steps {
		step(t, rng, stores, sessions)
		base.ms.Add(50)
		for _, s := range stores {
			s.clock.ms.Add(50)
		}
	}
	return o, stores
}

func step(t *testing.T, rng *rand.Rand, stores []*testStore, sessions []*owner) {
	t.Helper()
	s, x := stores[rng.IntN(len(stores))], sessions[rng.IntN(len(sessions))]
	key := fmt.Sprint("k/", rng.IntN(4))
	allowed := func(err error) {
		t.Helper()
		allowed(t, err)
	}
	switch rng.IntN(12) {
	case 0, 1, 2, 3, 4:
		allowed(x.put(s, key, fmt.Sprint(rng.IntN(1000))))
	case 5, 6:
		allowed(x.del(s, key))
	case 7:
		tok := x.invoke(t, key, "tinycloud.kv/put")
		for _, i := range rng.Perm(len(stores))[:2] {
			_, err := stores[i].Write(t.Context(), tok, []kv.Op{putOp(x.space, key, fmt.Sprint("twice ", i))}, nil)
			allowed(err)
		}
	case 8:
		if x == sessions[0] || rng.IntN(4) > 0 {
			return
		}
		rev, err := capstore.ParseRevocation(x.wallet.SignRevocation(x.proof))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Revoke(t.Context(), rev); err != nil && !errors.Is(err, tinycloud.ErrForbidden) {
			t.Fatal(err)
		}
	default:
		s.pull(stores[rng.IntN(len(stores))], x.space)
	}
}

// allowed fails the test unless an error is one that a random history may bring about.
func allowed(t *testing.T, err error) {
	t.Helper()
	for _, class := range []error{nil, tinycloud.ErrUnauthorized, tinycloud.ErrNotFound, tinycloud.ErrConflict, tinycloud.ErrUnavailable, tinycloud.ErrForbidden} {
		if errors.Is(err, class) {
			return
		}
	}
	t.Fatal(err)
}

func all(t *testing.T, s *testStore, space tinycloud.SpaceID) []hostlog.Bundle {
	t.Helper()
	var out []hostlog.Bundle
	if err := s.Missing(t.Context(), space, nil, 1<<20, func(b hostlog.Bundle) error { out = append(out, b); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// feed gives bundles to a store in a random order that keeps each log's, in random batches, some of
// them twice.
func feed(t *testing.T, rng *rand.Rand, s *testStore, space tinycloud.SpaceID, bundles []hostlog.Bundle) {
	t.Helper()
	logs := map[hostlog.Key][]hostlog.Bundle{}
	for _, b := range bundles {
		logs[b.Entry.Host] = append(logs[b.Entry.Host], b)
	}
	hosts := slices.SortedFunc(maps.Keys(logs), func(a, b hostlog.Key) int { return slices.Compare(a[:], b[:]) })
	done := map[hostlog.Key]int{}
	for stuck := 0; stuck < 1000; stuck++ {
		h := hosts[rng.IntN(len(hosts))]
		from := max(0, done[h]-rng.IntN(3))
		to := min(len(logs[h]), from+1+rng.IntN(8))
		a, err := s.Apply(t.Context(), space, logs[h][from:to])
		if err != nil {
			t.Fatal(err)
		}
		if from+a.Covered > done[h] {
			done[h], stuck = from+a.Covered, 0
		}
		left := 0
		for _, h := range hosts {
			left += len(logs[h]) - done[h]
		}
		if left == 0 {
			return
		}
	}
	t.Fatal("the history cannot be applied")
}

func TestConvergence(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		seeds := uint64(12)
		if racing {
			seeds = 3
		}
		if !strings.HasSuffix(t.Name(), "/sqlite") {
			seeds = 1 // servers are slower, and the rules are the same
		}
		testConvergence(t, seeds)
	})
}

func testConvergence(t *testing.T, seeds uint64) {
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			o, stores := history(t, rng, 120)
			for range 2 {
				for _, a := range stores {
					for _, b := range stores {
						a.pull(b, o.space)
					}
				}
			}
			for _, s := range stores {
				s.redate()
			}
			want := stores[0].status(o.space)
			bundles := all(t, stores[0], o.space)
			if got := naive(t, bundles); !maps.Equal(got, state(t, stores[0], o.space)) {
				t.Errorf("the store's state\n%v\nnaive\n%v", state(t, stores[0], o.space), got)
			}
			told := oracle(t, bundles).Conflicts
			for _, s := range stores {
				s.whole()
				if got := conflicts(t, s, o.space); !reflect.DeepEqual(got, told) {
					t.Errorf("%s: conflicts %v, naively %v", s.name, got, told)
				}
			}
			for _, s := range stores[1:] {
				if got := s.status(o.space); got.StateHash != want.StateHash || fmt.Sprint(got.Heads) != fmt.Sprint(want.Heads) || got.Void != want.Void {
					t.Errorf("%s:\n%+v\nwant\n%+v", s.name, got, want)
				}
			}
			for i := range 3 {
				c := newClock()
				c.ms.Add(3_600_000)
				late := openNew(t, fmt.Sprint("late", i), c)
				o.hostOn(late)
				feed(t, rng, late, o.space, bundles)
				late.redate()
				if got := conflicts(t, late, o.space); !reflect.DeepEqual(got, told) {
					t.Errorf("late joiner %d: conflicts %v, naively %v", i, got, told)
				}
				got := late.status(o.space)
				if got.StateHash != want.StateHash || got.Void != want.Void {
					t.Errorf("late joiner %d: %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

func state(t *testing.T, s *testStore, space tinycloud.SpaceID) map[string]tinycloud.Hash {
	t.Helper()
	out := map[string]tinycloud.Hash{}
	keys, _, err := s.List(t.Context(), space, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		r, err := s.Get(t.Context(), space, k)
		if err != nil {
			t.Fatal(err)
		}
		out[k] = r.Value
	}
	return out
}

// naive folds a history by the letter of the rules.
func naive(t *testing.T, bundles []hostlog.Bundle) map[string]tinycloud.Hash {
	t.Helper()
	return oracle(t, bundles).Keys
}

// naiveVoid counts the void epochs.
func naiveVoid(t *testing.T, bundles []hostlog.Bundle) int64 {
	t.Helper()
	return int64(oracle(t, bundles).Void)
}

func oracle(t *testing.T, bundles []hostlog.Bundle) oracletest.State {
	t.Helper()
	st, err := oracletest.Fold(bundles, oracletest.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// conflicts are the events of a Space's conflicts, by key.
func conflicts(t *testing.T, s *testStore, space tinycloud.SpaceID) map[string]map[tinycloud.Hash]bool {
	t.Helper()
	out := map[string]map[tinycloud.Hash]bool{}
	for after, more := (kv.ConflictCursor{}), true; more; more = after != (kv.ConflictCursor{}) {
		list, next, err := s.Conflicts(t.Context(), space, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if out[c.Key] == nil {
				out[c.Key] = map[tinycloud.Hash]bool{}
			}
			out[c.Key][c.Event] = true
		}
		after = next
	}
	return out
}
