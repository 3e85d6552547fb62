package capstore_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Entries of the future are durable, with what follows them, and count when they are due.
func TestParked(t *testing.T) { everywhere(t, testParked) }

func testParked(t *testing.T) {
	s, o, l := setUp(t)
	other := openNew(t, "other", o.clock)
	o.hostOn(other)
	l.welcome(t, s)
	heads := s.status(o.space).Heads
	ahead := newClock()
	ahead.ms.Store(o.clock.ms.Load() + 10*time.Minute.Milliseconds())
	fast := &owner{wallet: o.wallet, space: o.space, session: o.session, proof: o.proof, clock: ahead, n: 1000}
	var future []hostlog.Bundle
	for i, key := range []string{"one", "two"} {
		parents := heads
		if i > 0 {
			parents = []tinycloud.Hash{l.last}
		}
		at := ahead.now().Add(time.Duration(i) * time.Minute)
		b := l.bundle(at, parents, fast.invoke(t, key, "tinycloud.kv/put").Bytes, write(key, key))
		future = append(future, b)
		l.n, l.prev, l.last = l.n+1, b.Entry.Digest(), b.Entry.Epoch
	}
	before := s.status(o.space)
	for range 2 {
		a, err := s.Apply(t.Context(), o.space, future)
		if err != nil || a.Held != 2 || a.Covered != 2 || a.Parked || a.Gap {
			t.Fatalf("applied %+v: %v", a, err)
		}
	}
	st := s.status(o.space)
	if st.Parked != 2 || st.Epochs != before.Epochs || st.StateHash != before.StateHash {
		t.Errorf("parked entries count: %+v", st)
	}
	tip := hostlog.Tip{Host: l.host(), N: l.n - 1, Digest: l.prev}
	if have, early, err := s.Have(t.Context(), o.space, []hostlog.Tip{tip}); err != nil || len(have) != 1 || have[0] != tip || !early {
		t.Errorf("a parked entry would be sent again: %v %v", have, err)
	}
	if err := o.put(s, "k", "meanwhile"); err != nil {
		t.Fatal(err)
	}
	if kind(t) != onMemory {
		s.stop()
		s = open(t, "honest", o.clock, s.path)
	}
	if got := s.status(o.space).Parked; got != 2 {
		t.Errorf("%d parked after a restart", got)
	}
	for i, parked := range []int64{2, 1, 0} {
		if i > 0 {
			o.clock.ms.Store(future[i-1].Entry.At - 120_000)
		}
		if _, err := s.Unpark(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := state(t, s, o.space)
		for k, key := range []string{"one", "two"} {
			if _, here := got[key]; here != (k < i) {
				t.Errorf("%d: %s: %v", i, key, here)
			}
		}
		if got := s.status(o.space).Parked; got != parked {
			t.Errorf("%d: %d parked, want %d", i, got, parked)
		}
	}
	if err := o.put(s, "k", "after"); err != nil {
		t.Error(err)
	}
	other.pull(s, o.space)
	if a, b := s.status(o.space), other.status(o.space); a.StateHash != b.StateHash {
		t.Errorf("who parked %+v\nwho came later %+v", a, b)
	}
}

// What is due is added without anybody asking.
func TestParkedTimer(t *testing.T) {
	s, o, l := setUp(t)
	l.welcome(t, s)
	b := l.bundle(o.clock.now().Add(120*time.Second+50*time.Millisecond), s.status(o.space).Heads, o.invoke(t, "soon", "tinycloud.kv/put").Bytes, write("soon", "x"))
	if a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{b}); err != nil || a.Held != 1 {
		t.Fatalf("%+v %v", a, err)
	}
	o.clock.ms.Add(60)
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.status(o.space).Parked > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it stays parked")
		}
	}
}

// A host that floods finds no more than the room there is: beyond, only its first entry is noted.
func TestParkedBound(t *testing.T) {
	s, o, l := setUp(t)
	l.welcome(t, s)
	tok := o.invoke(t, "k", "tinycloud.kv/put").Bytes
	at := o.clock.now().Add(time.Hour)
	value := make([]byte, 3<<20)
	parents := s.status(o.space).Heads
	refused := 0
	for i := range 24 {
		value[0] = byte(i)
		op := write("k", "")
		op.Value = tinycloud.Sum(value)
		b := l.bundle(at, parents, tok, op)
		b.Values = []hostlog.Value{{Hash: op.Value, Bytes: value}}
		l.n, l.prev, l.last = l.n+1, b.Entry.Digest(), b.Entry.Epoch
		parents = []tinycloud.Hash{l.last}
		a, err := s.Apply(t.Context(), o.space, []hostlog.Bundle{b})
		if err != nil {
			t.Fatal(err)
		}
		if a.Parked || a.Gap {
			refused++
		}
	}
	if st := s.status(o.space); refused != 3 || st.Parked != 22 {
		t.Errorf("%d refused, %d parked", refused, st.Parked)
	}
}

// Small entries of the future are bounded by their number.
func TestParkedNumber(t *testing.T) {
	onScene(t, func(c *scene) {
		const room, batch = 10_000, 500
		read := said{token: c.invokes(c.o.session, captest.TokenOptions{Proofs: []tinycloud.Hash{c.o.proof}}, "k")}
		at := c.o.clock.now().Add(time.Hour)
		for sent := 0; sent <= room; sent += batch {
			var bundles []hostlog.Bundle
			for range batch {
				b := c.l.epoch(at, []tinycloud.Hash{c.l.last}, read)
				bundles = append(bundles, b)
				c.l.n, c.l.prev, c.l.last = c.l.n+1, b.Entry.Digest(), b.Entry.Epoch
			}
			a, err := c.s.Apply(t.Context(), c.o.space, bundles)
			if err != nil {
				t.Fatal(err)
			}
			if full := sent == room; full != a.Parked || full == (a.Held == batch) {
				t.Fatalf("after %d: %+v", sent, a)
			}
		}
		if got := c.s.status(c.o.space).Parked; got != room+1 { // and a note of where the rest begins
			t.Errorf("%d parked", got)
		}
		if err := c.o.put(c.s, "k", "goes on"); err != nil {
			t.Error(err)
		}
	})
}
