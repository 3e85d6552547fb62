package capstore_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// reference makes of a history what a node without logs would hold of it: its epochs, parents first.
func reference(bundles []hostlog.Bundle) []hostlog.Imported {
	var out []hostlog.Imported
	seen := map[tinycloud.Hash]bool{}
	for _, b := range bundles {
		if !seen[b.Entry.Epoch] {
			seen[b.Entry.Epoch] = true
			out = append(out, hostlog.Imported{At: b.Entry.At, Epoch: b.Epoch, Events: b.Events, Ops: b.Ops})
		}
	}
	return out
}

// takeOver imports epochs, up to n at once, beginning with those that are missing.
func (s *testStore) takeOver(space tinycloud.SpaceID, epochs []hostlog.Imported, n func() int) capstore.Taken {
	s.t.Helper()
	o := s.Takeover()
	if err := o.Begin(s.t.Context(), space); err != nil {
		s.t.Fatal(err)
	}
	for len(epochs) > 0 {
		k := min(n(), len(epochs))
		if err := o.Epochs(s.t.Context(), space, epochs[:k]); err != nil {
			s.t.Fatal(err)
		}
		epochs = epochs[k:]
	}
	out, err := o.End(s.t.Context(), space)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TestImportConverges takes a history with forks over on two hosts, at different times and in different
// pieces, goes on writing on them and on a third, and feeds the result to others in any order.
func TestImportConverges(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { importConverges(t, seed, 80) })
	}
	onServers(t, func(t *testing.T) { importConverges(t, 6, 40) })
}

func importConverges(t *testing.T, seed uint64, steps int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 2))
	o, old := history(t, rng, steps)
	for range 2 {
		old[0].pull(old[1], o.space)
		old[0].pull(old[2], o.space)
	}
	epochs := reference(all(t, old[0], o.space))
	var stores []*testStore
	for i := range 2 {
		c := newClock()
		c.ms.Add(30_000)
		s := openNew(t, fmt.Sprint("importer", i), c)
		if taken := s.takeOver(o.space, epochs, func() int { return 1 + rng.IntN(40) }); taken.Hosted {
			t.Fatal("hosted without a delegation to the importer")
		}
		if s.Hosted(o.space) {
			t.Fatal("hosted before the owner delegated it")
		}
		o.hostOn(s)
		stores = append(stores, s)
	}
	third := openNew(t, "third", stores[0].clock)
	o.hostOn(third)
	stores = append(stores, third)
	for range 60 {
		step(t, rng, stores, []*owner{o})
		for _, s := range stores[:2] {
			s.clock.ms.Add(50)
		}
	}
	agree(t, rng, o, stores)
}

// agree exchanges everything, asks the oracle, and feeds the history to others.
func agree(t *testing.T, rng *rand.Rand, o *owner, stores []*testStore) {
	t.Helper()
	for range 2 {
		for _, a := range stores {
			for _, b := range stores {
				a.pull(b, o.space)
			}
		}
	}
	want, bundles := stores[0].status(o.space), all(t, stores[0], o.space)
	if got := naive(t, bundles); !maps.Equal(got, state(t, stores[0], o.space)) {
		t.Errorf("the store's state\n%v\nnaive\n%v", state(t, stores[0], o.space), got)
	}
	for _, s := range stores {
		s.whole()
	}
	same := func(what string, got status) {
		t.Helper()
		if got.StateHash != want.StateHash || got.Void != want.Void {
			t.Errorf("%s: %+v\nwant %+v", what, got, want)
		}
	}
	for _, s := range stores[1:] {
		same(string(s.name), s.status(o.space))
	}
	for i := range 2 {
		c := newClock()
		c.ms.Add(3_600_000)
		late := openNew(t, fmt.Sprint("late", i), c)
		o.hostOn(late)
		feed(t, rng, late, o.space, bundles)
		same("late joiner", late.status(o.space))
		late.stop()
		same("after a restart", open(t, fmt.Sprint("late", i), c, late.path).status(o.space))
	}
}

// TestImportKeepsHost imports with the key of the node the history is of: nothing is void, what the node
// served is served, and a peer judges the same.
func TestImportKeepsHost(t *testing.T) {
	c := newClock()
	old, o := openNew(t, "one", c), newOwner(t, "import", c)
	o.hostOn(old)
	old.delegate(o.header)
	for i := range 40 {
		if err := o.put(old, fmt.Sprint("k/", i%7), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.del(old, "k/3"); err != nil {
		t.Fatal(err)
	}
	epochs := reference(all(t, old, o.space))
	c.ms.Add(1 << 30)
	s := open(t, "one", c, t.TempDir()+"/caps.db")
	taken := s.takeOver(o.space, epochs[:20], func() int { return 6 })
	s.stop()
	s = open(t, "one", c, s.path)
	if !taken.Hosted || taken.Void != 0 {
		t.Fatalf("half of it: %+v", taken)
	}
	known, err := s.Takeover().Known(t.Context(), o.space, []tinycloud.Hash{tinycloud.Sum(epochs[19].Epoch), tinycloud.Sum(epochs[20].Epoch)})
	if err != nil || !known[tinycloud.Sum(epochs[19].Epoch)] || known[tinycloud.Sum(epochs[20].Epoch)] {
		t.Fatalf("known: %v, %v", known, err)
	}
	taken = s.takeOver(o.space, epochs[20:], func() int { return 6 })
	if got, want := s.status(o.space), old.status(o.space); got.StateHash != want.StateHash || taken.Void != 0 || got.Void != 0 {
		t.Errorf("%+v, want %+v", got, want)
	}
	o.header = o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: c.now().Add(time.Hour), IssuedAt: c.now(),
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put"}},
	})
	o.proof = captest.ID(o.header)
	s.delegate(o.header)
	if err := o.put(s, "new", "1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Takeover().Begin(t.Context(), o.space); !errors.Is(err, tinycloud.ErrConflict) {
		t.Errorf("an import after a write: %v", err)
	}
	peer := openNew(t, "two", c)
	o.hostOn(peer)
	peer.pull(s, o.space)
	s.pull(peer, o.space)
	if got, want := peer.status(o.space), s.status(o.space); got.Void != 0 || got.StateHash != want.StateHash || got.Keys != 7 {
		t.Errorf("peer: %+v, want %+v", got, want)
	}
}

// signed makes an import entry of a host, whatever it lists.
func signed(key ed25519.PrivateKey, b hostlog.Bundle) hostlog.Bundle {
	b.Entry.Host = hostlog.Key(key.Public().(ed25519.PublicKey))
	b.Entry.Import = hostlog.ImportHash(b.Imported)
	d := b.Entry.Digest()
	b.Sig = hostlog.Signature(ed25519.Sign(key, append([]byte("tinycloud/hostlog/1"), d[:]...)))
	return b
}

func TestImportRefuses(t *testing.T) {
	c := newClock()
	old, o := openNew(t, "one", c), newOwner(t, "refuses", c)
	o.hostOn(old)
	old.delegate(o.header)
	for i := range 5 {
		if err := o.put(old, "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	epochs := reference(all(t, old, o.space))
	key := keys("liar").SpaceKey(o.space)
	good := signed(key, hostlog.Bundle{Entry: hostlog.Entry{Space: o.space, At: c.now().UnixMilli()}, Imported: epochs[:3]})
	change := func(f func(b *hostlog.Bundle)) hostlog.Bundle {
		b := good
		b.Imported = slices.Clone(epochs[:3])
		f(&b)
		return signed(key, b)
	}
	for _, tt := range []struct {
		name string
		b    hostlog.Bundle
		want error
	}{
		{"of another list", func() hostlog.Bundle { b := good; b.Imported = epochs[:2]; return b }(), tinycloud.ErrForged},
		{"twice", change(func(b *hostlog.Bundle) { b.Imported = append(b.Imported, b.Imported[0]) }), tinycloud.ErrInvalid},
		{"from after the entry", change(func(b *hostlog.Bundle) { b.Imported[1].At = b.Entry.At + 1 }), tinycloud.ErrInvalid},
		{"before all time", change(func(b *hostlog.Bundle) { b.Imported[1].At = -1 }), tinycloud.ErrInvalid},
		{"too many", change(func(b *hostlog.Bundle) { b.Imported = make([]hostlog.Imported, 513) }), tinycloud.ErrInvalid},
		{"with an epoch of its own", change(func(b *hostlog.Bundle) { b.Epoch = []byte{1} }), tinycloud.ErrInvalid},
		{"another event", change(func(b *hostlog.Bundle) { b.Imported[1].Events = [][]byte{{1}} }), tinycloud.ErrForged},
		{"no events", change(func(b *hostlog.Bundle) { b.Imported[1].Events = nil }), tinycloud.ErrInvalid},
		{"forged", func() hostlog.Bundle { b := good; b.Sig[0] ^= 1; return b }(), tinycloud.ErrForged},
		{"good", good, nil},
	} {
		if err := hostlog.CheckAll(o.space, []hostlog.Bundle{tt.b}).Bad; !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	s := openNew(t, "two", c)
	o.hostOn(s)
	gap := change(func(b *hostlog.Bundle) { b.Imported = b.Imported[1:] })
	if a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{gap}); err != nil || !a.Gap || a.New != 0 {
		t.Errorf("children without their parents: %+v, %v", a, err)
	}
	if a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{good, good}); err != nil || a.New != 1 || a.Duplicate != 1 {
		t.Errorf("the good one: %+v, %v", a, err)
	}
	// No owner ever named the liar: what it vouches for counts for nothing, and harms no one.
	if st := s.status(o.space); st.Void != 3 || st.Keys != 0 {
		t.Errorf("after an import by nobody: %+v", st)
	}
}

// whole verifies a store.
func (s *testStore) whole() {
	s.t.Helper()
	err := s.VerifyStored(s.t.Context(), capstore.VerifyOptions{}, func(d capstore.Damage) { s.t.Errorf("%s: %+v", s.name, d) })
	if err != nil {
		s.t.Error(err)
	}
}
