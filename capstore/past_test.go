package capstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// A value that was overwritten is current again when the newer write turns out to have a lower place: its
// token was posted to another host too, which had not heard of the value.
func TestPastValue(t *testing.T) { everywhere(t, testPastValue) }

func testPastValue(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a, b := openNew(t, "a", c), openNew(t, "b", c)
	o.member(a)
	o.member(b)
	a.delegate(o.header)
	b.pull(a, o.space)
	a.pull(b, o.space)
	for range 3 {
		mustPut(t, o, a, "k", "before")
	}
	tok := o.invoke(t, "k", "tinycloud.kv/put")
	for _, s := range []*testStore{a, b} {
		if _, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, "k", "newer")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.get(o.space, "k"); got != "newer" {
		t.Errorf("%q", got)
	}
	wantUsage(t, a, o.space, 5)
	a.pull(b, o.space)
	b.pull(a, o.space)
	for _, s := range []*testStore{a, b} {
		if got := s.get(o.space, "k"); got != "before" || s.status(o.space).Wants != 0 {
			t.Errorf("%q, want %q; wants %d values", got, "before", s.status(o.space).Wants)
		}
		wantUsage(t, s, o.space, 6)
		wantHeld(t, s, o.space, "newer", true)
	}
	mustPut(t, o, a, "k", "newer") // the same value, counted again
	wantUsage(t, a, o.space, 5)
	wantHeld(t, a, o.space, "before", true)

	c.ms.Add((25 * time.Hour).Milliseconds())
	if err := a.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, a, o.space, "before", false)
	wantHeld(t, a, o.space, "newer", true)
	wantUsage(t, a, o.space, 5)
}

func wantHeld(t *testing.T, s *testStore, space tinycloud.SpaceID, value string, want bool) {
	t.Helper()
	if held, err := s.Held(t.Context(), space, tinycloud.Sum([]byte(value))); held != want || err != nil {
		t.Errorf("%q is here: %t %v, want %t", value, held, err, want)
	}
}

// Past values have bounds, in a Space of several hosts; one that is hosted alone has none.
func TestPastBounds(t *testing.T) { everywhere(t, testPastBounds) }

func testPastBounds(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a, b := openNew(t, "a", c), openNew(t, "b", c)
	o.member(a)
	a.delegate(o.header)
	write := func(value string, size int64) {
		t.Helper()
		op := kv.Op{Space: o.space, Key: "k", Value: tinycloud.Sum([]byte(value)), Size: size}
		if _, err := a.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), []kv.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		wantUsage(t, a, o.space, size)
	}
	write("alone", 1000)
	write("first", 40<<20)
	wantHeld(t, a, o.space, "alone", false)
	a.delegate(o.signHost(b.host(o.space)))
	write("second", 100<<20)
	wantHeld(t, a, o.space, "first", true)
	write("third", 100<<20) // past may be as much as is current
	wantHeld(t, a, o.space, "first", false)
	wantHeld(t, a, o.space, "second", true)
	if err := o.del(a, "k"); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, a, o.space, 0)
	wantHeld(t, a, o.space, "second", false)
	wantHeld(t, a, o.space, "third", false)
}

// Past values are no more than a Space may hold, also beside a host of older rules.
func TestPastWithinTheLimit(t *testing.T) { everywhere(t, testPastWithinTheLimit) }

func testPastWithinTheLimit(t *testing.T) {
	c, limit := newClock(), &atomic.Int64{}
	limit.Store(1 << 20)
	o := newOwner(t, "alice", c)
	a, b := limited(t, "a", c, limit), openNew(t, "b", c)
	o.member(a)
	a.delegate(o.header)
	a.delegate(o.signHost(b.host(o.space)))
	const size = 300 << 10
	n := 0
	write := func(held, gone int) {
		t.Helper()
		c.ms.Add(1) // the oldest go
		op := kv.Op{Space: o.space, Key: "k", Value: tinycloud.Sum([]byte(fmt.Sprint(n))), Size: size}
		if _, err := a.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), []kv.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		n++
		wantUsage(t, a, o.space, size)
		for i := range n {
			if i < gone || i >= n-1-held {
				wantHeld(t, a, o.space, fmt.Sprint(i), i >= gone)
			}
		}
	}
	for range 4 {
		write(n, 0)
	}
	write(3, 1)
	write(3, 2)
	if _, err := a.SaveHello(t.Context(), o.space, b.host(o.space), hostlog.Hello{}); err != nil {
		t.Fatal(err)
	}
	write(3, 3)
	limit.Store(600 << 10)
	write(2, 5)
	limit.Store(-1) // none
	for range 3 {
		write(2, 5)
	}
}

// A node that keeps the values of the history keeps as many as the Space may hold; all where that has no limit.
func TestKeptHistoryIsWithinTheLimit(t *testing.T) {
	c, limit := newClock(), &atomic.Int64{}
	limit.Store(-1)
	a := openWith(t, "a", c, newDatabase(t), func(o *capstore.Options) {
		o.Policy = capstore.All
		o.Limit = func(tinycloud.SpaceID) (int64, bool) { return limit.Load(), limit.Load() >= 0 }
	})
	o := newOwner(t, "alice", c)
	o.member(a)
	a.delegate(o.header)
	const size = 40 << 20
	n := 0
	write := func(gone int) {
		t.Helper()
		c.ms.Add(1) // the oldest go
		op := kv.Op{Space: o.space, Key: "k", Value: tinycloud.Sum([]byte(fmt.Sprint(n))), Size: size}
		if _, err := a.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), []kv.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		n++
		for i := range n {
			wantHeld(t, a, o.space, fmt.Sprint(i), i >= gone)
		}
	}
	for range 6 {
		write(0)
	}
	limit.Store(5 * size)
	write(1)
	write(2)
	limit.Store(2 * size)
	write(6)
}
