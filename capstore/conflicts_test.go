package capstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// listed returns the conflicts of a Space, so many a page, and checks that pages, counts and status agree.
func (s *testStore) listed(space tinycloud.SpaceID, page int) (out []kv.Conflict) {
	s.t.Helper()
	for after, more := (kv.ConflictCursor{}), true; more; more = after != (kv.ConflictCursor{}) {
		list, next, err := s.Conflicts(s.t.Context(), space, after, page)
		if err != nil || len(list) > page || len(list) < page && next != (kv.ConflictCursor{}) {
			s.t.Fatalf("a page of %d, on to %+v, %v", len(list), next, err)
		}
		out, after = append(out, list...), next
	}
	n, err := s.ConflictCount(s.t.Context(), space)
	if st := s.status(space); err != nil || n != int64(len(out)) || st.Conflicts != n {
		s.t.Errorf("%s: %d conflicts, counted %d, in status %d, %v", s.name, len(out), n, st.Conflicts, err)
	}
	return out
}

// meet exchanges all between stores, by way of the first.
func (o *owner) meet(stores ...*testStore) {
	for _, s := range stores[1:] {
		stores[0].pull(s, o.space)
	}
	for _, s := range stores[1:] {
		s.pull(stores[0], o.space)
	}
	for _, s := range stores {
		s.redate()
		s.fetch(o.space, stores)
	}
}

// fetch takes the values that a store wants from those who have them.
func (s *testStore) fetch(space tinycloud.SpaceID, from []*testStore) {
	s.t.Helper()
	wants, err := s.Wants(s.t.Context(), space, 100)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, w := range wants {
		for _, other := range from {
			if held, _ := other.Held(s.t.Context(), space, w.Hash); !held {
				continue
			}
			b, err := other.Inline(s.t.Context(), space, w.Hash)
			if err == nil {
				err = s.Arrived(s.t.Context(), space, w.Hash, int64(len(b)), b)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// hosts opens stores that host the owner's Space together.
func (o *owner) hosts(t *testing.T, names ...string) (stores []*testStore) {
	for _, name := range names {
		s := openNew(t, name, o.clock)
		o.member(s)
		stores = append(stores, s)
	}
	stores[0].delegate(o.header)
	o.meet(stores...)
	return stores
}

// conflicting checks which values are conflicts of a key, and that they can be read.
func (s *testStore) conflicting(space tinycloud.SpaceID, key string, want ...string) {
	s.t.Helper()
	var got []string
	list, _, err := s.Conflicts(s.t.Context(), space, kv.ConflictCursor{}, 100)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range list {
		if c.Key != key {
			continue
		}
		b, err := s.Inline(s.t.Context(), space, c.Value)
		disputed, err2 := s.Disputed(s.t.Context(), space, c.Value)
		if err := errors.Join(err, err2); err != nil || !disputed || !c.Held || c.Size != int64(len(b)) {
			s.t.Errorf("%s: value of %.20s, %s: %q, held %v, of %d bytes, disputed %v, %v", s.name, key, c.Value, b, c.Held, c.Size, disputed, err)
		}
		got = append(got, string(b))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("%s: conflicts of %.20s are %q, want %q", s.name, key, got, want)
	}
}

// What hosts wrote without knowing of each other is listed, in pages, with all that is to be known of it, and its value is
// here, until somebody writes or deletes the key who has seen it, or thirty days have passed.
func TestConflicts(t *testing.T) { everywhere(t, testConflicts) }

func testConflicts(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	stores := o.hosts(t, "a", "b", "c")
	a, b, x := stores[0], stores[1], stores[2]
	keys := []string{"k1", "k2", "k3", strings.Repeat("l", 900) + "1", strings.Repeat("l", 900) + "2"} // some too long for an index
	wrote := c.now()
	for _, s := range stores {
		for _, key := range keys {
			mustPut(t, o, s, key, string(s.name)+" of "+key[len(key)-1:])
		}
		c.ms.Add(1)
	}
	met := c.now()
	o.meet(stores...)
	mustPut(t, o, a, "free", "of conflicts")
	o.meet(stores...)
	all := a.listed(o.space, 100)
	var order []string
	for _, s := range stores {
		for _, page := range []int{1, 3} {
			if got := s.listed(o.space, page); len(got) != len(all) || fmt.Sprint(keysOf(got)) != fmt.Sprint(keysOf(all)) {
				t.Errorf("%s: in pages of %d %v, want %v", s.name, page, keysOf(got), keysOf(all))
			}
		}
		for _, key := range keys {
			n := key[len(key)-1:]
			if got := s.get(o.space, key); got != "c of "+n {
				t.Errorf("%s: %.20s = %q", s.name, key, got)
			}
			s.conflicting(o.space, key, "a of "+n, "b of "+n)
		}
	}
	for _, l := range all {
		order = append(order, l.Key)
		by := 0
		if l.Value == tinycloud.Sum([]byte("b of "+l.Key[len(l.Key)-1:])) {
			by = 1
		}
		want := kv.Conflict{
			Key: l.Key, Event: l.Event, Epoch: l.Epoch, Value: l.Value, Size: 6, Actor: o.session.DID(), Early: true, Held: true,
			Metadata: map[string]string{"content-type": "text/plain"}, At: wrote.Add(time.Duration(by) * time.Millisecond).UTC(), Since: met.UTC(),
		}
		if fmt.Sprint(l) != fmt.Sprint(want) {
			t.Errorf("%+v\nwant %+v", l, want)
		}
	}
	if !slices.IsSorted(order) || len(order) != 2*len(keys) {
		t.Errorf("in this order: %.20q", order)
	}

	mustPut(t, o, a, "k1", "decided")
	if err := o.del(b, "k2"); err != nil {
		t.Fatal(err)
	}
	for i, s := range []*testStore{a, b} { // at once where it is written
		s.conflicting(o.space, keys[i])
	}
	o.meet(stores...)
	for _, s := range stores {
		s.conflicting(o.space, "k1")
		s.conflicting(o.space, "k2")
		s.conflicting(o.space, "k3", "a of 3", "b of 3")
		if k := kind(t); k == onSQLite || k == onMemory { // a server is slow to give out all
			s.whole()
		}
	}
	wantHeld(t, x, o.space, "a of 3", true)

	c.ms.Add(kv.ConflictAge.Milliseconds() - 1000)
	expire := func(s *testStore) {
		t.Helper()
		if err := s.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expire(x)
	x.conflicting(o.space, "k3", "a of 3", "b of 3")
	if got := len(x.listed(o.space, 3)); got != 2*(len(keys)-2) {
		t.Errorf("after almost thirty days %d are listed", got)
	}
	c.ms.Add(2000)
	expire(x)
	if got := x.listed(o.space, 3); len(got) != 0 {
		t.Errorf("after thirty days %+v", got)
	}
	wantHeld(t, x, o.space, "a of 3", false)
	wantHeld(t, x, o.space, "c of 3", true)
}

func keysOf(list []kv.Conflict) (keys []string) {
	for _, c := range list {
		keys = append(keys, c.Key+" "+c.Event.String())
	}
	return keys
}

// A write or delete ends the conflicts that it has seen, not the others, and takes the place of those that it saw.
func TestConflictsEndOneByOne(t *testing.T) { t.Run(onMemory, testConflictsEndOneByOne) }

func testConflictsEndOneByOne(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	stores := o.hosts(t, "a", "b", "c")
	a, b, x := stores[0], stores[1], stores[2]
	for _, key := range []string{"put", "del"} {
		mustPut(t, o, a, key, "a")
		c.ms.Add(1)
		mustPut(t, o, b, key, "b")
		c.ms.Add(1)
		mustPut(t, o, x, key, "c")
		c.ms.Add(1)
	}
	o.meet(a, b)
	a.conflicting(o.space, "put", "a")
	mustPut(t, o, a, "put", "of a and b")
	if err := o.del(a, "del"); err != nil {
		t.Fatal(err)
	}
	o.meet(stores...)
	for _, s := range stores {
		if got := s.get(o.space, "put") + ", " + s.get(o.space, "del"); got != "of a and b, c" {
			t.Errorf("%s: %s", s.name, got)
		}
		s.conflicting(o.space, "put", "c")
		s.conflicting(o.space, "del")
		s.whole()
	}
	// A deleted key may have conflicts: what the delete has not seen, and is below what it removed.
	c.ms.Add(1)
	mustPut(t, o, a, "gone", "earlier")
	c.ms.Add(1)
	mustPut(t, o, b, "gone", "later")
	if err := o.del(b, "gone"); err != nil {
		t.Fatal(err)
	}
	o.meet(stores...)
	for _, s := range stores {
		if got := s.get(o.space, "gone"); got != "(none)" {
			t.Errorf("%s: %s", s.name, got)
		}
		s.conflicting(o.space, "gone", "earlier")
	}
}

// What was written on a host that began apart never beats what was there, and is listed as early.
func TestEarlyConflicts(t *testing.T) { t.Run(onMemory, testEarlyConflicts) }

func testEarlyConflicts(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a, b := openNew(t, "a", c), openNew(t, "b", c)
	o.hostOn(a)
	a.delegate(o.header)
	mustPut(t, o, a, "first-day", "a")
	c.ms.Add((23 * time.Hour).Milliseconds())
	o.hostOn(b) // which has not heard of a
	b.delegate(o.header)
	mustPut(t, o, b, "first-day", "b")
	o.wallet = captest.NewWallet("alice")
	late := *o
	c.ms.Add((2 * time.Hour).Milliseconds())
	late.header = o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: c.now().Add(48 * time.Hour), IssuedAt: c.now(), Nonce: "nonce0000002",
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/del"}},
	})
	late.proof = captest.ID(late.header)
	a.delegate(late.header)
	b.delegate(late.header)
	mustPut(t, &late, a, "second-day", "a")
	c.ms.Add(1)
	mustPut(t, &late, b, "second-day", "b") // b's first
	mustPut(t, &late, a, "long-after", "a")
	c.ms.Add((23 * time.Hour).Milliseconds())
	mustPut(t, &late, b, "long-after", "b")
	o.meet(a, b)
	for _, s := range []*testStore{a, b} {
		for key, want := range map[string]struct {
			value, loser string
			early        bool
		}{
			"first-day":  {"a", "b", true},
			"second-day": {"a", "b", true},
			"long-after": {"b", "a", false}, // b has begun long ago, too
		} {
			if got := s.get(o.space, key); got != want.value {
				t.Errorf("%s: %s = %q, want %q", s.name, key, got, want.value)
			}
			s.conflicting(o.space, key, want.loser)
			for _, l := range s.listed(o.space, 2) {
				if l.Key == key && l.Early != want.early {
					t.Errorf("%s: %+v, want early %v", s.name, l, want.early)
				}
			}
		}
		s.whole()
	}
}

// A flood of conflicts of one key has sixteen values held, and when there is no room for these drives out its own: what
// else is in conflict stays.
func TestFloodOfConflicts(t *testing.T) {
	onRaces(t, everywhere, func(r *race) {
		const flood, size = 40, 10 << 20
		space := r.o.space
		r.writes(r.one, time.Second, "lone", "first")
		r.writes(r.two, 2*time.Second, "lone", "second")
		arrive := func(value string, size int64) {
			r.Helper()
			if err := r.s.Arrived(r.Context(), space, tinycloud.Sum([]byte(value)), size, nil); err != nil {
				r.Fatal(err)
			}
		}
		arrive("first", 1000)
		arrive("second", 1000)
		base := *r.x
		for i := range flood { // a log has its own past in mind: only forks make conflicts
			*r.x = base
			r.writes(r.x, 3*time.Second+time.Duration(i)*time.Millisecond, "flooded", fmt.Sprint("flood ", i))
		}
		count := func() (held, here int) {
			r.Helper()
			for _, c := range r.s.listed(space, 7) {
				switch {
				case c.Key == "lone":
					if !c.Held || c.Size != 1000 {
						r.Errorf("the other key's: %+v", c)
					}
				case c.Held:
					held++
				}
				if c.Key != "lone" && c.Size >= 0 {
					here++
				}
			}
			return held, here
		}
		if held, here := count(); held != kv.MaxConflicts || here != 0 {
			r.Errorf("%d are held, %d here", held, here)
		}
		r.won("flooded", "flooded", fmt.Sprint("flood ", flood-1))
		// All arrive, wanted or not.
		for i := range flood {
			arrive(fmt.Sprint("flood ", i), size)
		}
		held, here := count()
		if held != 6 || here != 6 { // of 64 MiB
			r.Errorf("%d are held, %d here, when there is no room", held, here)
		}
		wantUsage(r.T, r.s, space, int64(len("honest"))+1000+size)
		wants, err := r.s.Wants(r.Context(), space, 100)
		if err != nil || len(wants) != 0 {
			r.Errorf("still wants %d, %v", len(wants), err)
		}
		r.s.whole()
	})
}

// When conflicts of a key end there is room for others.
func TestRoomForConflicts(t *testing.T) {
	onScene(t, func(c *scene) {
		o := c.o
		c.o.clock.ms.Add(time.Minute.Milliseconds())
		base, n := *c.l, 0
		fork := func(parents ...tinycloud.Hash) tinycloud.Hash {
			c.Helper()
			*c.l, n = base, n+1
			c.o.clock.ms.Add(1)
			return c.says(c.l, parents, said{o.invoke(c.T, "k", "tinycloud.kv/put"), []dag.Op{write("k", fmt.Sprint(n))}})
		}
		var forks []tinycloud.Hash
		for range kv.MaxConflicts + 1 { // the last one is the winner
			forks = append(forks, fork())
		}
		fork(forks[:kv.MaxConflicts-1]...) // has seen all but the last two
		for range kv.MaxConflicts {
			fork()
		}
		held := 0
		list := c.s.listed(o.space, 5)
		for _, l := range list {
			if l.Held {
				held++
			}
		}
		if len(list) != kv.MaxConflicts+2 || held != kv.MaxConflicts {
			c.Errorf("%d conflicts, %d are held", len(list), held)
		}
	})
}
