package capstore_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// remove posts the owner's revocation of a delegation.
func (o *owner) remove(t *testing.T, s *testStore, delegation tinycloud.Hash) {
	t.Helper()
	if err := s.Revoke(t.Context(), o.revocation(t, delegation)); err != nil {
		t.Fatal(err)
	}
}

func (o *owner) revocation(t *testing.T, delegation tinycloud.Hash) *capstore.Token {
	t.Helper()
	rev, err := capstore.ParseRevocation(o.wallet.SignDelegation(captest.DelegationOptions{Audience: "ucan:" + delegation.EventID(), IssuedAt: o.clock.now()}))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// member makes a store a host and returns its delegation.
func (o *owner) member(s *testStore) tinycloud.Hash {
	options := captest.HostOptions(o.space, s.host(o.space).String())
	options.IssuedAt = o.clock.now()
	header := o.wallet.SignDelegation(options)
	s.delegate(header)
	return captest.ID(header)
}

func mustPut(t *testing.T, o *owner, s *testStore, key, value string) {
	t.Helper()
	if err := o.put(s, key, value); err != nil {
		t.Fatal(err)
	}
}

// A removed host keeps what others built on, loses the rest wherever it arrives, and can come back.
func TestRemovedHost(t *testing.T) { everywhere(t, testRemovedHost) }

func testRemovedHost(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a, b, x := openNew(t, "a", c), openNew(t, "b", c), openNew(t, "x", c)
	o.member(a)
	o.member(b)
	gone := o.member(x)
	a.delegate(o.header)
	for _, s := range []*testStore{b, x, a, b} {
		s.pull(a, o.space)
		a.pull(s, o.space)
	}
	mustPut(t, o, x, "built", "upon")
	b.pull(x, o.space)
	mustPut(t, o, b, "b", "honest") // b has not heard of what a is about to do
	mustPut(t, o, x, "lost", "by x")
	c.ms.Add(10)
	o.remove(t, a, gone)
	mustPut(t, o, a, "a", "honest")

	a.pull(x, o.space)
	if got := a.get(o.space, "built") + a.get(o.space, "lost"); got != "(none)(none)" {
		t.Errorf("before b is heard: %q", got)
	}
	a.pull(b, o.space) // what it built on comes back
	if got := a.get(o.space, "built"); got != "upon" || a.status(o.space).Wants != 0 {
		t.Errorf("%q, want %q; wants %d values", got, "upon", a.status(o.space).Wants)
	}
	b.pull(a, o.space)
	b.pull(x, o.space)
	x.pull(a, o.space)
	for _, s := range []*testStore{a, b, x} {
		if got := s.get(o.space, "built") + "," + s.get(o.space, "lost") + "," + s.get(o.space, "a") + s.get(o.space, "b"); got != "upon,(none),honesthonest" {
			t.Errorf("%s: %q", s.name, got)
		}
		if st := s.status(o.space); st.Void != 1 || st.StateHash != a.status(o.space).StateHash {
			t.Errorf("%s: %+v", s.name, st)
		}
	}
	if err := o.put(x, "k", "v"); err == nil {
		t.Error("a removed host went on writing")
	}
	c.ms.Add(10)
	back := captest.HostOptions(o.space, x.host(o.space).String())
	back.IssuedAt = c.now()
	a.delegate(o.wallet.SignDelegation(back))
	x.pull(a, o.space)
	mustPut(t, o, x, "again", "here")
	a.pull(x, o.space)
	if got := a.get(o.space, "again") + a.get(o.space, "lost"); got != "here(none)" {
		t.Errorf("after it was admitted again: %q", got)
	}
	if kind(t) != onMemory {
		x.stop()
		x = open(t, "x", c, x.path)
	}
	if got, want := x.status(o.space), a.status(o.space); got.StateHash != want.StateHash || got.Void != want.Void {
		t.Errorf("after a restart: %+v, want %+v", got, want)
	}
}

// The host that is removed knows the truth best: what it does about it does not help it.
func TestRemovedHostLies(t *testing.T) {
	for _, tt := range []struct {
		name string
		lie  func(t *testing.T, s *testStore, o *owner, l *liar, before []tinycloud.Hash)
	}{
		{"back-dates", func(t *testing.T, s *testStore, o *owner, l *liar, before []tinycloud.Hash) {
			l.say(t, s, l.bundle(o.clock.now().Add(-time.Minute), append(before, l.last), o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar")))
		}},
		{"forks its log before the removal", func(t *testing.T, s *testStore, o *owner, l *liar, before []tinycloud.Hash) {
			fork := *l
			fork.n, fork.prev = 1, l.entries[0]
			fork.say(t, s, fork.bundle(o.clock.now().Add(-time.Minute), before, o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar")))
		}},
		{"copies honest epochs onto its branch", func(t *testing.T, s *testStore, o *owner, l *liar, before []tinycloud.Hash) {
			tok := o.invoke(t, "k", "tinycloud.kv/put")
			l.say(t, s, l.bundle(o.clock.now(), append(before, l.last), tok.Bytes, write("k", "liar")))
			for _, b := range all(t, s, o.space) { // entries of its own for what others wrote
				if b.Entry.Host == l.host() || len(b.Ops) == 0 {
					continue
				}
				mine := b
				mine.Values = nil
				mine.Entry.Host, mine.Entry.N, mine.Entry.Prev = l.host(), l.n, l.prev
				_, _ = s.Apply(t.Context(), o.space, []hostlog.Bundle{l.sign(mine)}) // it does not build on its last
			}
			event := all(t, s, o.space)[0].Events[0]
			l.say(t, s, l.bundle(o.clock.now(), []tinycloud.Hash{l.last}, event))
		}},
		{"posts the removal on its secret branch", func(t *testing.T, s *testStore, o *owner, l *liar, before []tinycloud.Hash) {
			l.say(t, s, l.bundle(o.clock.now(), append(before, l.last), o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "liar")))
			l.say(t, s, l.bundle(o.clock.now(), []tinycloud.Hash{l.last}, l.removal))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, o, l := setUp(t)
			l.welcome(t, s)
			before := s.status(o.space).Heads
			l.say(t, s, l.bundle(o.clock.now(), before, o.invoke(t, "early", "tinycloud.kv/put").Bytes, write("early", "kept")))
			mustPut(t, o, s, "k", "honest") // on top of it
			before = s.status(o.space).Heads
			o.clock.ms.Add(1)
			rev := o.revocation(t, l.delegation)
			l.removal = rev.Bytes
			if err := s.Revoke(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
			mustPut(t, o, s, "k", "after")
			tt.lie(t, s, o, l, before)
			if got := s.get(o.space, "k"); got != "after" {
				t.Errorf("k = %q", got)
			}
			if _, err := s.Get(t.Context(), o.space, "early"); err != nil {
				t.Errorf("what was built upon is gone: %v", err)
			}
			if s.status(o.space).Void == 0 {
				t.Error("the lie counts")
			}
			mustPut(t, o, s, "k", "goes on")
			if got := naive(t, all(t, s, o.space)); got["k"] != tinycloud.Sum([]byte("goes on")) || len(got) != len(state(t, s, o.space)) {
				t.Errorf("naively %v", got)
			}
		})
	}
}

// What a removed host wrote goes also when the whole history is judged again, and when a token of the key
// stands in two places.
func TestRemovedAndRejudged(t *testing.T) { everywhere(t, testRemovedAndRejudged) }

func testRemovedAndRejudged(t *testing.T) {
	c, slow := newClock(), newClock()
	o := newOwner(t, "alice", c)
	a, b, x := openNew(t, "a", c), openNew(t, "b", slow), openNew(t, "x", c)
	o.member(a)
	o.member(b)
	gone := o.member(x)
	a.delegate(o.header)
	for _, s := range []*testStore{b, x, b, a} {
		s.pull(a, o.space)
		a.pull(s, o.space)
	}
	mustPut(t, o, a, "other", "1")
	both := func(tok *capstore.Token, value string) {
		t.Helper()
		for _, s := range []*testStore{a, b} {
			if _, err := s.Write(t.Context(), tok, ops(putOp(o.space, "k", value)), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	both(o.invoke(t, "k", "tinycloud.kv/put"), "twice") // at two places
	b.pull(a, o.space)
	a.pull(b, o.space)
	slow.ms.Store(c.ms.Add(30_000) - 20_000)
	both(o.invoke(t, "k", "tinycloud.kv/put"), "one epoch") // whose earlier witness a does not know yet
	x.pull(a, o.space)
	mustPut(t, o, x, "k", "by x")
	a.pull(x, o.space)
	if got := a.get(o.space, "k"); got != "by x" {
		t.Errorf("before the removal: %q", got)
	}
	o.remove(t, b, gone)
	a.pull(b, o.space)
	b.pull(a, o.space)
	b.pull(x, o.space)
	if got := a.get(o.space, "k") + ", " + b.get(o.space, "k"); got != "one epoch, one epoch" {
		t.Errorf("after the removal: %q", got)
	}
}

// The owner removes each of two hosts at the other: both are gone, and what they had before stays.
func TestCrossedRemovals(t *testing.T) { everywhere(t, testCrossedRemovals) }

func testCrossedRemovals(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	x, y, z := openNew(t, "x", c), openNew(t, "y", c), openNew(t, "z", c)
	dx, dy := o.member(x), o.member(y)
	o.member(z)
	x.delegate(o.header)
	everyone := []*testStore{x, y, z}
	exchange := func() {
		for range 2 {
			for _, s := range everyone {
				for _, from := range everyone {
					s.pull(from, o.space)
				}
			}
		}
	}
	exchange()
	mustPut(t, o, x, "x", "before")
	mustPut(t, o, y, "y", "before")
	c.ms.Add(1)
	o.remove(t, y, dx)
	o.remove(t, x, dy)
	exchange()
	for _, s := range everyone {
		for _, k := range []string{"x", "y"} {
			if err := o.put(s, "late", "late"); s != z && err == nil {
				t.Errorf("%s still writes", s.name)
			}
			got, want := state(t, s, o.space)[k], naive(t, all(t, z, o.space))[k]
			if got != want {
				t.Errorf("%s: %s = %s, naively %s", s.name, k, got, want)
			}
		}
	}
	exchange()
	if a, b, c := x.status(o.space), y.status(o.space), z.status(o.space); a.StateHash != b.StateHash || b.StateHash != c.StateHash {
		t.Errorf("diverged: %+v %+v %+v", a, b, c)
	}
}

// Only the owner, those between it and the host, and the host itself can remove a host.
func TestWhoRemoves(t *testing.T) {
	s, o, l := setUp(t)
	l.welcome(t, s)
	mallory := captest.NewWallet("mallory")
	rev, err := capstore.ParseRevocation(mallory.SignRevocation(l.delegation))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), rev); err == nil {
		t.Error("a stranger removed a host")
	}
	other := newLiar(o)
	other.key = keys("other").SpaceKey(o.space)
	other.say(t, s, other.bundle(o.clock.now(), s.status(o.space).Heads, rev.Bytes)) // it stands in the history
	l.say(t, s, l.bundle(o.clock.now(), append(s.status(o.space).Heads, l.last), o.invoke(t, "k", "tinycloud.kv/put").Bytes, write("k", "fine")))
	if got := state(t, s, o.space)["k"]; got != tinycloud.Sum([]byte("fine")) {
		t.Error("a stranger's removal counts")
	}
}
