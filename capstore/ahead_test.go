package capstore_test

import (
	"errors"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// A host whose clock was ahead waits when it is a little, and forks its log when it is far: what it had told
// its clients stays readable, and all hosts agree, before and after the left branch is due.
func TestClockFarAhead(t *testing.T) { everywhere(t, testClockFarAhead) }

func testClockFarAhead(t *testing.T) {
	c, fast := newClock(), newClock()
	fast.ms.Store(c.ms.Load())
	o := newOwner(t, "alice", c)
	a, b := openNew(t, "a", fast), openNew(t, "b", c)
	o.member(a)
	o.member(b)
	a.delegate(o.header)
	a.pull(b, o.space)
	b.pull(a, o.space)
	mustPut(t, o, a, "before", "x")
	b.pull(a, o.space)

	fast.ms.Add(8 * time.Minute.Milliseconds()) // near: it waits
	o.clock = fast
	mustPut(t, o, a, "near", "x")
	o.clock = c
	fast.ms.Store(c.ms.Load())
	if err := o.put(a, "k", "v"); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("8 minutes ahead of itself: %v", err)
	}
	c.ms.Add(8 * time.Minute.Milliseconds())
	fast.ms.Store(c.ms.Load())
	mustPut(t, o, a, "k", "v")
	b.pull(a, o.space)

	fast.ms.Add(time.Hour.Milliseconds()) // far
	long := o.invokeFor(t, 3*time.Hour, "far", "tinycloud.kv/put")
	moved := o.invokeFor(t, 3*time.Hour, "moved", "tinycloud.kv/put")
	o.clock = fast
	if _, err := a.Write(t.Context(), long, ops(putOp(o.space, "far", "kept")), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(t.Context(), moved, ops(putOp(o.space, "moved", "by a")), nil); err != nil {
		t.Fatal(err)
	}
	if err := o.del(a, "k"); err != nil { // its token is of the future too
		t.Fatal(err)
	}
	o.clock = c
	b.pull(a, o.space)
	if got := b.status(o.space).Parked; got != 3 {
		t.Errorf("%d parked at the other host", got)
	}
	fast.ms.Store(c.ms.Load())
	for range 5 {
		mustPut(t, o, b, "moved", "by b") // before a writes again what it left behind
	}
	a.pull(b, o.space)
	if err := o.put(a, "after", "v"); err != nil {
		t.Fatalf("an hour ahead of itself: %v", err)
	}
	b.pull(a, o.space)
	for _, key := range []string{"far", "after"} {
		if _, ok := state(t, b, o.space)[key]; !ok {
			t.Errorf("%s is not at the other host", key)
		}
	}
	mustPut(t, o, b, "more", "v")
	a.pull(b, o.space)
	mustPut(t, o, a, "even", "more")
	if kind(t) != onMemory {
		a.stop()
		a = open(t, "a", fast, a.path)
	}
	mustPut(t, o, a, "at", "last")
	b.pull(a, o.space)
	if st := b.status(o.space); st.Void != 0 {
		t.Errorf("%d epochs are void", st.Void)
	}
	c.ms.Add(55 * time.Minute.Milliseconds()) // within ten minutes of the left branch
	fast.ms.Store(c.ms.Load())
	mustPut(t, o, a, "no", "wait")
	c.ms.Add(time.Hour.Milliseconds())
	fast.ms.Store(c.ms.Load())
	if _, err := b.Unpark(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPut(t, o, a, "all", "due")
	b.pull(a, o.space)
	a.pull(b, o.space)
	x, y := a.status(o.space), b.status(o.space)
	if x.StateHash != y.StateHash || x.Void != y.Void || y.Parked != 0 {
		t.Errorf("diverged:\n%+v\n%+v", x, y)
	}
	if _, ok := state(t, b, o.space)["k"]; ok {
		t.Error("what was deleted in the future is there when it came")
	}
	// Its new place is the earlier one, and there it has seen what b wrote meanwhile.
	if got := a.get(o.space, "moved") + ", " + b.get(o.space, "moved"); got != "by a, by a" {
		t.Errorf("a write that was placed again: %q", got)
	}
}
