package capstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// counting opens a store that has the counter.
func counting(t *testing.T, name string, c *clock, path string, version uint64) *testStore {
	t.Helper()
	return openWith(t, name, c, path, func(o *capstore.Options) { o.Services = servicetest.Services(servicetest.Counter{Form: version}) })
}

// counts reads the counter of a subject: its sum and what was added last; "upgrade" where it can't be known.
func (s *testStore) counts(space tinycloud.SpaceID, about string) string {
	s.t.Helper()
	b, err := s.ServiceState(s.t.Context(), space, "counter", about)
	if errors.Is(err, tinycloud.ErrUnavailable) {
		return "upgrade"
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return servicetest.Shown(b)
}

// accountant is an owner whose session may count.
type accountant struct{ *owner }

func newAccountant(t *testing.T, c *clock) accountant {
	o := newOwner(t, "alice", c)
	o.header = o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: c.now().Add(24 * time.Hour), IssuedAt: c.now(), Nonce: "nonce0000002",
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"}, o.space.String() + "/counter": {servicetest.Add}},
	})
	o.proof = captest.ID(o.header)
	return accountant{o}
}

func (o accountant) token(t *testing.T, about string) *capstore.Token {
	t.Helper()
	o.n++
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/counter/" + about: {servicetest.Add}},
		Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(time.Minute), Nonce: fmt.Sprint("count ", o.n),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func (o accountant) try(s *testStore, about string, by int64, version uint64) error {
	tok := o.token(s.t, about)
	if err := s.Admit(s.t.Context(), tok); err != nil {
		return err
	}
	return s.Perform(s.t.Context(), servicetest.Request(tok, o.space, about, by, version))
}

func (o accountant) add(s *testStore, about string, by int64) {
	s.t.Helper()
	if err := o.try(s, about, by, 1); err != nil {
		s.t.Fatal(err)
	}
}

func (s *testStore) sound() {
	s.t.Helper()
	err := s.VerifyStored(s.t.Context(), capstore.VerifyOptions{}, func(d capstore.Damage) { s.t.Errorf("%s: %+v", s.name, d) })
	if err != nil {
		s.t.Error(err)
	}
}

// A service beside key-value is admitted, minted, replicated, folded in any order and anew, verified, and part of the
// state hash: with one package, and one line where the store is opened.
func TestService(t *testing.T) { everywhere(t, testService) }

func testService(t *testing.T) {
	c := newClock()
	o := newAccountant(t, c)
	a, b := counting(t, "a", c, newDatabase(t), 1), counting(t, "b", c, newDatabase(t), 1)
	o.member(a)
	gone := o.member(b)
	a.delegate(o.header)
	b.pull(a, o.space)
	a.pull(b, o.space)
	b.pull(a, o.space)
	empty := a.status(o.space).StateHash
	o.add(a, "visits", 2)
	c.ms.Add(10)
	o.add(a, "visits", 3)
	o.add(a, "likes", 7)
	if got := a.counts(o.space, "visits") + ", " + a.counts(o.space, "likes") + ", " + a.counts(o.space, "else"); got != "5 3, 7 7, nothing" {
		t.Errorf("counted %s", got)
	}
	tok := o.token(t, "visits")
	once := func(s *testStore) error {
		return s.Perform(t.Context(), servicetest.Request(tok, o.space, "visits", 1, 1))
	}
	if err := once(b); err != nil { // beside what a has
		t.Fatal(err)
	}
	if err := once(b); err == nil {
		t.Error("a token counts twice")
	}
	for name, bad := range map[string][]byte{
		"another subject": servicetest.Addition("likes", 1, 1), "a key": []byte("\xa2\x63key\x61k\x67version\xf6"), "no operation": {0x01}, "nothing": nil,
	} {
		err := a.Perform(t.Context(), service.Request{Token: o.token(t, "visits"), Service: "counter", Parts: []service.Part{
			{Space: o.space, Plan: func(service.Tx) (service.Plan, error) { return service.Plan{Ops: [][]byte{bad}}, nil }},
		}})
		if !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := a.status(o.space).StateHash; got == empty {
		t.Error("the state hash has nothing of it")
	}
	lone := counting(t, "lone", c, newDatabase(t), 1)
	o.member(lone)
	lone.pull(a, o.space)
	a.pull(b, o.space)
	b.pull(a, o.space)
	// By time b's comes last, as its clock was the same as that of a's second: then seq and digest decide, on both alike.
	if x, y := a.counts(o.space, "visits"), b.counts(o.space, "visits"); x != y || x[:2] != "6 " {
		t.Errorf("%s, %s", x, y)
	}
	if x, y := a.status(o.space), b.status(o.space); x.StateHash != y.StateHash || x.Void != 0 {
		t.Errorf("%+v, %+v", x, y)
	}
	eventually(t, 10*time.Second, func() bool { return len(b.written()) >= 4 }) // they are told behind the transactions
	var told []string
	for _, x := range b.written() {
		told = append(told, x.Service+" "+x.Key+" "+x.Ability)
	}
	slices.Sort(told)
	want := []string{"counter likes " + servicetest.Add, "counter visits " + servicetest.Add, "counter visits " + servicetest.Add, "counter visits " + servicetest.Add}
	if !slices.Equal(told, want) {
		t.Errorf("told %q", told)
	}
	a.sound()

	// b's is void when its host is removed, and nobody had built on it.
	c.ms.Add(10)
	o.remove(t, lone, gone)
	lone.pull(b, o.space)
	if got := lone.counts(o.space, "visits"); got != "5 3" {
		t.Errorf("after the removal %s", got)
	}
	lone.sound()
}

// Any order of arrival comes to one state.
func TestServiceConverges(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAccountant(t, c)
		stores := []*testStore{counting(t, "a", c, newDatabase(t), 1), counting(t, "b", c, newDatabase(t), 1)}
		o.member(stores[0])
		o.member(stores[1])
		stores[0].delegate(o.header)
		stores[1].pull(stores[0], o.space)
		stores[0].pull(stores[1], o.space)
		rng := rand.New(rand.NewPCG(3, 4))
		for i := range 60 {
			c.ms.Add(rng.Int64N(3))
			o.add(stores[rng.IntN(2)], fmt.Sprint("c", rng.IntN(3)), int64(i))
			if rng.IntN(5) == 0 {
				stores[0].pull(stores[1], o.space)
			}
		}
		stores[0].pull(stores[1], o.space)
		stores[1].pull(stores[0], o.space)
		for i := range 5 {
			x := counting(t, fmt.Sprint("x", i), c, newDatabase(t), 1)
			o.member(x)
			feed(t, rng, x, o.space, all(t, stores[0], o.space))
			x.redate()
			for n := range 3 {
				about := fmt.Sprint("c", n)
				if got, want := x.counts(o.space, about), stores[0].counts(o.space, about); got != want {
					t.Errorf("%s is %s, want %s", about, got, want)
				}
			}
			x.sound()
		}
	})
}

// A host without the service, or with an older one, passes its operations on, says that it needs an upgrade, and knows
// what they mean once it has had it.
func TestPendingOperations(t *testing.T) { everywhere(t, testPendingOperations) }

func testPendingOperations(t *testing.T) {
	c := newClock()
	o := newAccountant(t, c)
	path := newDatabase(t)
	a, plain, b := counting(t, "a", c, newDatabase(t), 2), open(t, "plain", c, path), counting(t, "b", c, newDatabase(t), 1)
	for _, s := range []*testStore{a, plain, b} {
		o.member(s)
	}
	a.delegate(o.header)
	o.add(a, "visits", 2)
	if err := o.try(a, "visits", 5, 2); err != nil {
		t.Fatal(err)
	}
	o.add(a, "likes", 1)
	mustPut(t, o.owner, a, "key", "value")
	plain.pull(a, o.space)
	b.pull(plain, o.space) // through the one that can't read it
	st := plain.status(o.space)
	if got := plain.get(o.space, "key"); got != "value" || st.Pending != 3 || st.Void != 0 {
		t.Errorf("%s; %+v", got, st)
	}
	if got := plain.counts(o.space, "visits"); got != "upgrade" {
		t.Errorf("without the service %s", got)
	}
	if got := b.counts(o.space, "visits") + ", " + b.counts(o.space, "likes"); got != "upgrade, 1 1" || b.status(o.space).Pending != 1 {
		t.Errorf("with an older one %s, %+v", got, b.status(o.space))
	}
	if err := o.try(b, "visits", 1, 1); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("written beside what it can't read: %v", err)
	}
	eventually(t, 10*time.Second, func() bool { return len(plain.written()) >= 1 })
	if len(plain.written()) != 1 {
		t.Errorf("told %+v", plain.written())
	}
	used, err := plain.Usage(t.Context(), o.space)
	size := int64(len(servicetest.Addition("visits", 2, 1)) + len(servicetest.Addition("visits", 5, 2)) + len(servicetest.Addition("likes", 1, 1)) + len("value"))
	if err != nil || used != size {
		t.Errorf("%d bytes used, want %d, %v", used, size, err)
	}
	plain.sound()

	if kind(t) == onMemory {
		return // nothing to open again
	}
	plain.stop()
	plain = counting(t, "plain", c, path, 2)
	if err := plain.Review(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := plain.counts(o.space, "visits") + ", " + plain.counts(o.space, "likes"); got != "12 10, 1 1" {
		t.Errorf("after the upgrade %s", got)
	}
	st = plain.status(o.space)
	if want := a.status(o.space); st.Pending != 0 || st.StateHash != want.StateHash || len(plain.written()) != 0 {
		t.Errorf("%+v, want %+v; told %+v", st, want, plain.written())
	}
	if used, err := plain.Usage(t.Context(), o.space); err != nil || used != size { // they count whether they can be read or not
		t.Errorf("%d bytes used, %v", used, err)
	}
	plain.sound()
}
