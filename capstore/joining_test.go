package capstore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

const somewhere = "/ip4/192.0.2.1/tcp/1"

// openNamed opens a store beside which other nodes are named.
func openNamed(t *testing.T, name string, c *clock, path string, timeout time.Duration) *testStore {
	t.Helper()
	return openWith(t, name, c, path, func(o *capstore.Options) {
		o.Named, o.JoinTimeout = func() bool { return true }, timeout
	})
}

// is fails unless an error is of a class, nil for none.
func is(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: %v, want %v", what, err, class)
	}
}

// offer posts a delegation that may be refused.
func (s *testStore) offer(header string) error {
	s.t.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err == nil {
		_, err = s.Delegate(s.t.Context(), tok)
	}
	return err
}

// While nodes are named a Space is joining from its host delegation on: nothing of it is answered and nothing written.
func TestJoiningBegins(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s := openNamed(t, "one", c, newDatabase(t), time.Hour)
		capstore.SetPatience(s.Store, 100*time.Millisecond)
		o := newOwner(t, "alice", c)
		s.delegate(o.header) // stored, but of no Space here
		header := o.signHost(s.host(o.space))
		if d := s.delegate(header); !slices.Equal(d.Activated, []tinycloud.SpaceID{o.space}) {
			t.Errorf("activated %v", d.Activated)
		}
		is(t, "present", s.Present(t.Context(), o.space), tinycloud.ErrUnavailable)
		is(t, "put", o.put(s, "k", "v"), tinycloud.ErrUnavailable)
		tok, op := o.invoke(t, "k", "tinycloud.kv/put"), putOp(o.space, "k", "v")
		_, err := s.Write(t.Context(), tok, ops(op), nil)
		is(t, "a put that nobody admitted", err, tinycloud.ErrUnavailable)
		is(t, "its check", s.Check(t.Context(), tok, ops(op), nil), tinycloud.ErrUnavailable)
		is(t, "a session's delegation", s.offer(o.header), tinycloud.ErrUnavailable)
		is(t, "another host's", s.offer(o.signHost(newLiar(o).host())), tinycloud.ErrUnavailable)
		is(t, "the host's own again", s.offer(header), nil)
		c.ms.Add(1000)
		is(t, "a later one of its own", s.offer(o.signHost(s.host(o.space))), nil)
		if st := s.status(o.space); st.State != capstore.StateJoining || st.Opens.IsZero() {
			t.Errorf("state %s, opens %s", st.State, st.Opens)
		}
		if got := s.JoiningSpaces(); !s.AnyJoining() || !slices.Equal(got, []tinycloud.SpaceID{o.space}) {
			t.Errorf("joining: %v", got)
		}
		session, _ := capstore.ParseDelegation(o.header)
		own, _ := capstore.ParseDelegation(header)
		if len(s.Obstacles(session)) != 1 || len(s.Obstacles(own)) != 0 {
			t.Errorf("obstacles %v, %v", s.Obstacles(session), s.Obstacles(own))
		}
		if did, err := s.EndJoin(t.Context(), o.space, hostlog.EndedByTime, nil); did || err != nil {
			t.Errorf("opens before its time: %v, %v", did, err)
		}
		if did, err := s.EndJoin(t.Context(), o.space, hostlog.EndedByNone, nil); !did || err != nil {
			t.Errorf("does not open when there is none: %v, %v", did, err)
		}
		is(t, "present", s.AwaitPresent(t.Context(), o.space), nil)
		mustPut(t, o, s, "k", "v") // with what was stored before the Space was
		if st := s.status(o.space); st.State != capstore.StateHosted || !st.Opens.IsZero() || s.AnyJoining() {
			t.Errorf("state %s, opens %s", st.State, st.Opens)
		}
		eventually(t, 10*time.Second, func() bool { // it is told behind the transaction
			return slices.ContainsFunc(s.told(), func(c capstore.Commit) bool { return c.Opened && c.Space == o.space })
		})
		// It holds a write now, and does not begin again.
		c.ms.Add(1000)
		o.hostOn(s)
		is(t, "present after a renewal", s.Present(t.Context(), o.space), nil)
		if err := s.AddJoin(t.Context(), o.space, []string{somewhere}, false); err != nil {
			t.Fatal(err)
		}
		is(t, "present after a join", s.Present(t.Context(), o.space), nil)
	})
}

// Nothing is joining while nobody is named, and a write does not come in between the admission of a put and its commit.
func TestJoinBetweenAdmissionAndCommit(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s := open(t, "one", c, newDatabase(t))
		o := newOwner(t, "alice", c)
		o.hostOn(s)
		s.delegate(o.header)
		tok := o.invoke(t, "k", "tinycloud.kv/put")
		is(t, "admission", s.Admit(t.Context(), tok), nil)
		if err := s.AddJoin(t.Context(), o.space, []string{somewhere}, false); err != nil {
			t.Fatal(err)
		}
		_, err := s.Write(t.Context(), tok, ops(putOp(o.space, "k", "v")), nil)
		is(t, "write", err, tinycloud.ErrUnavailable)
		if err := s.AddJoin(t.Context(), o.space, nil, true); err != nil {
			t.Fatal(err)
		}
		_, err = s.Write(t.Context(), tok, ops(putOp(o.space, "k", "v")), nil)
		is(t, "write, once the operator says that there is nothing", err, nil)
	})
}

// A Space of which nothing of another host is here opens in time; with a part of a history it does not.
func TestJoiningEndsByTime(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		const timeout = 1500 * time.Millisecond // on a server this passes, and in it a history has to come
		c := newClock()
		path := newDatabase(t)
		s := openNamed(t, "one", c, path, timeout)
		other := openNew(t, "two", c)
		alone, partly := newOwner(t, "alice", c), newOwner(t, "bob", c)
		alone.hostOn(s)
		is(t, "alone", s.Present(t.Context(), alone.space), tinycloud.ErrUnavailable)
		c.ms.Add(timeout.Milliseconds() + 1) // servers have a clock of their own
		is(t, "alone, later", s.AwaitPresent(t.Context(), alone.space), nil)
		partly.hostOn(other)
		partly.hostOn(s)
		s.pull(other, partly.space)
		c.ms.Add(timeout.Milliseconds() + 1)
		if k := kind(t); k == onSQLite || k == onMemory { // the time has passed by the test's clock; on a server it passes meanwhile
			capstore.SetPatience(s.Store, 100*time.Millisecond)
		}
		is(t, "with a part", s.AwaitPresent(t.Context(), partly.space), tinycloud.ErrUnavailable)
		for _, why := range []hostlog.Ending{hostlog.EndedByTime, hostlog.EndedByNone} {
			if did, err := s.EndJoin(t.Context(), partly.space, why, nil); did || err != nil {
				t.Errorf("opens by %s: %v, %v", why, did, err)
			}
		}
		if st := s.status(partly.space); !st.Opens.IsZero() {
			t.Errorf("opens at %s", st.Opens)
		}
		tips, err := s.Tips(t.Context(), partly.space)
		if err != nil {
			t.Fatal(err)
		}
		if did, err := s.EndJoin(t.Context(), partly.space, hostlog.EndedByLeast, tips[:1]); did || err != nil {
			t.Errorf("opens as the least by tips of before: %v, %v", did, err)
		}
		if did, err := s.EndJoin(t.Context(), partly.space, hostlog.EndedByLeast, tips); !did || err != nil {
			t.Errorf("does not open as the least: %v, %v", did, err)
		}
		is(t, "with all", s.Present(t.Context(), partly.space), nil)
		if st := s.status(partly.space); st.State != capstore.StateSynced {
			t.Errorf("state %s", st.State)
		}
		if path != capstore.InMemory {
			s.stop()
			is(t, "opened again", openNamed(t, "one", c, path, timeout).Present(t.Context(), partly.space), nil)
		}
	})
}

// A restart changes nothing: a Space stays joining, and a file's only process has the time to ask once more.
func TestJoiningSurvivesARestart(t *testing.T) {
	c := newClock()
	path := newDatabase(t)
	s := openNamed(t, "one", c, path, time.Second)
	o := newOwner(t, "alice", c)
	o.hostOn(s)
	s.stop()
	c.ms.Add(time.Hour.Milliseconds())
	s = openNamed(t, "one", c, path, time.Second)
	is(t, "after an hour", s.Present(t.Context(), o.space), tinycloud.ErrUnavailable)
	c.ms.Add(999)
	is(t, "before its time", s.Present(t.Context(), o.space), tinycloud.ErrUnavailable)
	c.ms.Add(1)
	is(t, "in time", s.Present(t.Context(), o.space), nil)
}

// A join asked for before the Space is hosted takes effect in the transaction that makes it so, also after a restart.
func TestJoinBeforeHosting(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		path := newDatabase(t)
		s := open(t, "one", c, path)
		joins, empty, late, plain := newOwner(t, "alice", c), newOwner(t, "bob", c), newOwner(t, "carol", c), newOwner(t, "dave", c)
		remember := func(o *owner, addrs []string, nothing bool) error {
			return s.RememberJoin(t.Context(), o.space, addrs, nothing)
		}
		is(t, "late", remember(late, []string{somewhere}, false), nil)
		c.ms.Add((30*24*time.Hour + time.Minute).Milliseconds())
		is(t, "join", remember(joins, []string{somewhere + "1", somewhere}, false), nil)
		is(t, "join again", remember(joins, []string{somewhere}, false), nil)
		is(t, "empty", remember(empty, nil, true), nil)
		if path != capstore.InMemory {
			s.stop()
			s = open(t, "one", c, path)
		}
		for _, o := range []*owner{joins, empty, late, plain} {
			s.delegate(o.signHost(s.host(o.space)))
		}
		is(t, "joins", s.Present(t.Context(), joins.space), tinycloud.ErrUnavailable)
		if got, err := s.Joins(t.Context(), joins.space); err != nil || len(got) != 2 || got[0].Addr != somewhere {
			t.Errorf("joins %v, %v", got, err)
		}
		for o, state := range map[*owner]string{empty: capstore.StateSynced, late: capstore.StateHosted, plain: capstore.StateHosted} {
			is(t, state, s.Present(t.Context(), o.space), nil)
			if st := s.status(o.space); st.State != state {
				t.Errorf("state %s, want %s", st.State, state)
			}
		}
		is(t, "of one that is hosted", remember(joins, []string{somewhere}, false), tinycloud.ErrConflict)
	})
}

// Joins that are remembered are bounded, of a Space and in all, and what is too much changes nothing.
func TestRememberedJoinsAreBounded(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s := openNew(t, "one", c)
		o := newOwner(t, "alice", c)
		var addrs []string
		for i := range 33 {
			addrs = append(addrs, fmt.Sprint(somewhere, i))
		}
		is(t, "32", s.RememberJoin(t.Context(), o.space, addrs[:32], false), nil)
		is(t, "33", s.RememberJoin(t.Context(), o.space, addrs[32:], false), tinycloud.ErrTooLarge)
		is(t, "a long one", s.RememberJoin(t.Context(), o.space, []string{string(make([]byte, 1025))}, false), tinycloud.ErrInvalid)
		o.hostOn(s)
		if got, err := s.Joins(t.Context(), o.space); err != nil || len(got) != 32 {
			t.Errorf("%d joins, %v", len(got), err)
		}
	})
}

// Processes that share a database agree: each of them takes a Space for joining at once, and any opens it in time.
func TestSharedJoining(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		const timeout = 3 * time.Second
		a, b := openNamed(t, "one", c, url, timeout), openNamed(t, "one", c, url, timeout)
		o, other := newOwner(t, "alice", c), newOwner(t, "bob", c)
		o.hostOn(a)
		is(t, "at the other", b.Present(t.Context(), o.space), tinycloud.ErrUnavailable)
		_, err := b.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), ops(putOp(o.space, "k", "v")), nil)
		is(t, "a write at the other", err, tinycloud.ErrUnavailable)
		waitFor(t, func() bool { return b.AwaitPresent(t.Context(), o.space) == nil })
		is(t, "here then", a.Present(t.Context(), o.space), nil)
		b.delegate(o.header)
		mustPut(t, o, a, "k", "v")
		other.hostOn(b)
		is(t, "another one", a.Present(t.Context(), other.space), tinycloud.ErrUnavailable)
		if err := b.Synced(t.Context(), other.space); err != nil {
			t.Fatal(err)
		}
		is(t, "ended at the other", a.Present(t.Context(), other.space), nil)
		waitFor(t, func() bool {
			opened := map[tinycloud.SpaceID]bool{}
			for _, c := range a.told() {
				opened[c.Space] = opened[c.Space] || c.Opened
			}
			return opened[o.space] && opened[other.space]
		})
	})
}

// waitFor waits for what no call waits for.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("not in time")
		}
	}
}

// A store ends also while it opens Spaces: who does that waits for the writer, which waits for it.
func TestStoreEndsWhileSpacesOpen(t *testing.T) {
	c := newClock()
	for i := range 20 {
		s := openNamed(t, "one", c, capstore.InMemory, time.Millisecond)
		for k := range 8 {
			newOwner(t, fmt.Sprint("owner", i, k), c).hostOn(s)
		}
		c.ms.Add(2)
		s.stop()
	}
}
