package capstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// limited is a store whose Spaces have a limit that may change.
func limited(t *testing.T, name string, c *clock, limit *atomic.Int64) *testStore {
	t.Helper()
	return openWith(t, name, c, newDatabase(t), func(o *capstore.Options) {
		o.Limit = func(tinycloud.SpaceID) (int64, bool) { return limit.Load(), limit.Load() >= 0 }
	})
}

func (s *testStore) room(space tinycloud.SpaceID) capstore.Room {
	s.t.Helper()
	r, err := s.Room(s.t.Context(), space)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// TestReplicatedValuesAreBounded has another host write more than this one lets a Space hold: the entries come, their
// values do until a quarter more than the limit is here, and the others once there is room.
func TestReplicatedValuesAreBounded(t *testing.T) { everywhere(t, testReplicatedValuesAreBounded) }

func testReplicatedValuesAreBounded(t *testing.T) {
	c, limit := newClock(), &atomic.Int64{}
	limit.Store(1000)
	here, there, o := limited(t, "one", c, limit), openNew(t, "two", c), newOwner(t, "alice", c)
	o.hostOn(there)
	there.delegate(o.header)
	o.hostOn(here)
	for i := range 5 {
		if err := o.put(there, fmt.Sprint(i), strings.Repeat(fmt.Sprint(i), 300)); err != nil {
			t.Fatal(err)
		}
	}
	here.pull(there, o.space)
	if a, b := here.status(o.space).StateHash, there.status(o.space).StateHash; a != b {
		t.Errorf("state %s, want %s", a, b)
	}
	wantUsage(t, here, o.space, 1200) // a fifth one would be beyond 1,250
	missing, value := "4", strings.Repeat("4", 300)
	wants := func() int {
		t.Helper()
		list, err := here.Wants(t.Context(), o.space, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	arrive := func() error {
		return here.Arrived(t.Context(), o.space, tinycloud.Sum([]byte(value)), int64(len(value)), []byte(value))
	}
	if r, err := here.Get(t.Context(), o.space, missing); err != nil || r.Size >= 0 {
		t.Errorf("the value that does not fit: %+v, %v", r, err)
	}
	if n := wants(); n != 1 { // a smaller one might fit
		t.Errorf("%d wants", n)
	}
	if err := arrive(); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("it came all the same: %v", err)
	}
	limit.Store(960)
	if r := here.room(o.space); !r.NoValues() || r.NoHistory() || r.ForValue() != 0 {
		t.Errorf("at a quarter more than the limit: %+v", r)
	}
	if n := wants(); n != 0 {
		t.Errorf("%d wants of a space that holds too much", n)
	}
	// Deletes go on, and make room.
	before := len(here.told())
	here.delegate(o.header)
	if err := o.del(here, "0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() bool { // on a server it is told after the answer
		return slices.ContainsFunc(here.told()[before:], func(c capstore.Commit) bool { return c.Wants > 0 })
	})
	if n := wants(); n != 1 {
		t.Errorf("%d wants once there is room", n)
	}
	if err := arrive(); err != nil {
		t.Fatal(err)
	}
	if got := here.get(o.space, missing); got != value {
		t.Errorf("read %q", got)
	}
	limit.Store(0)
	if n := wants(); n != 0 {
		t.Errorf("%d wants with no room at all", n)
	}
}

// stored is what of a Space's history is in the database, weighed as the count is.
func stored(t *testing.T, s *testStore, space tinycloud.SpaceID) (n int64) {
	t.Helper()
	have := []hostlog.Tip{}
	events := map[tinycloud.Hash]bool{}
	err := s.Missing(t.Context(), space, have, 0, func(b hostlog.Bundle) error {
		n += 256
		if !events[b.Entry.Epoch] {
			n += int64(len(b.Epoch))
			for _, e := range b.Events {
				n += int64(len(e))
			}
			for _, op := range b.Ops {
				n += 64 + int64(len(op))
			}
		}
		events[b.Entry.Epoch] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHistoryIsCounted has two hosts count the same history alike, after a restart and a refused write too.
func TestHistoryIsCounted(t *testing.T) { everywhere(t, testHistoryIsCounted) }

func testHistoryIsCounted(t *testing.T) {
	c := newClock()
	one, two, o := openNew(t, "one", c), openNew(t, "two", c), newOwner(t, "alice", c)
	o.hostOn(one)
	one.delegate(o.header)
	o.hostOn(two)
	two.pull(one, o.space)
	for i := range 3 {
		if err := o.put(one, fmt.Sprint("key", i), "value"); err != nil {
			t.Fatal(err)
		}
		if err := o.del(one, fmt.Sprint("key", i)); err != nil {
			t.Fatal(err)
		}
	}
	big := putOp(o.space, "k", "v")
	big.Metadata = map[string]string{"x": strings.Repeat("x", 1<<20)}
	if _, err := one.Write(t.Context(), o.invoke(t, "k", "tinycloud.kv/put"), ops(big), nil); err == nil {
		t.Fatal("written")
	}
	two.pull(one, o.space)
	one.pull(two, o.space)
	want := stored(t, one, o.space)
	if a, b := one.room(o.space).History, two.room(o.space).History; a != want || b != want {
		t.Errorf("history of %d and %d bytes, want %d", a, b, want)
	}
	if one.path == capstore.InMemory {
		return
	}
	one.stop()
	again := open(t, "one", c, one.path)
	if err := o.put(again, "z", "z"); err != nil {
		t.Fatal(err)
	}
	if got, want := again.room(o.space).History, stored(t, again, o.space); got != want {
		t.Errorf("after a restart %d bytes, want %d", got, want)
	}
}

// TestHistoryIsBounded fills a Space with what deletes leave behind, and with stored headers: beyond what is free it counts,
// and at its bound deletes, delegations and other hosts add nothing until the limit is raised.
func TestHistoryIsBounded(t *testing.T) {
	c, limit := newClock(), &atomic.Int64{}
	limit.Store(1 << 20)
	here, there, o := limited(t, "one", c, limit), openNew(t, "two", c), newOwner(t, "alice", c)
	o.hostOn(here)
	here.delegate(o.header)
	o.hostOn(there)
	there.pull(here, o.space)
	put := func(s *testStore, n int) error {
		tok := o.invoke(t, "k", "tinycloud.kv/put")
		op := putOp(o.space, "k", "v")
		op.Metadata = map[string]string{"x": fmt.Sprint(n, strings.Repeat("x", 15<<10))}
		_, err := s.Write(t.Context(), tok, ops(op), nil)
		return err
	}
	full := false
	for i := 0; !full; i++ {
		err := put(here, i)
		if full = errors.Is(err, tinycloud.ErrQuota); !full && err != nil {
			t.Fatal(err)
		}
		if i > 3000 {
			t.Fatal("stored headers are never too much")
		}
	}
	r := here.room(o.space)
	if r.Used() < r.Limit || r.History > capstore.FreeHistory+r.Limit+64<<10 || r.History < capstore.FreeHistory {
		t.Errorf("%+v, used %d", r, r.Used())
	}
	if used, err := here.Usage(t.Context(), o.space); err != nil || used != r.Used() {
		t.Errorf("usage %d, %v, want %d", used, err, r.Used())
	}
	if err := o.del(here, "k"); err != nil { // frees what it can
		t.Error(err)
	}
	there.pull(here, o.space)
	for i := range 20 {
		if err := put(there, 5000+i); err != nil {
			t.Fatal(err)
		}
	}
	apply := func() (hostlog.Applied, error) {
		t.Helper()
		theirs, err := there.Tips(t.Context(), o.space)
		if err != nil {
			t.Fatal(err)
		}
		have, _, err := here.Have(t.Context(), o.space, theirs)
		if err != nil {
			t.Fatal(err)
		}
		var bundles []hostlog.Bundle
		err = there.Missing(t.Context(), o.space, have, 0, func(b hostlog.Bundle) error { bundles = append(bundles, b); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return here.ApplyChecked(t.Context(), hostlog.CheckAll(o.space, bundles))
	}
	a, err := apply()
	if r = here.room(o.space); !errors.Is(err, tinycloud.ErrQuota) || a.New == 0 || a.New == 20 || !r.NoHistory() || r.History > r.MostHistory()+64<<10 {
		t.Errorf("of 20 entries %+v, %v; %+v of %d", a, err, r, r.MostHistory())
	}
	if err := here.Takes(t.Context(), o.space); !errors.Is(err, tinycloud.ErrQuota) {
		t.Errorf("it takes more: %v", err)
	}
	if err := o.del(here, "k"); !errors.Is(err, tinycloud.ErrQuota) {
		t.Errorf("delete: %v", err)
	}
	more, err := capstore.ParseDelegation(o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), IssuedAt: c.now(), Expires: c.now().Add(time.Hour), Caps: captest.Caps{o.space.String() + "/kv/more": {"tinycloud.kv/get"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := here.Delegate(t.Context(), more); !errors.Is(err, tinycloud.ErrQuota) {
		t.Errorf("delegation: %v", err)
	}
	limit.Store(8 << 20)
	if a, err := apply(); err != nil || a.Gap {
		t.Errorf("with a greater limit: %+v, %v", a, err)
	}
	if a, b := here.status(o.space).StateHash, there.status(o.space).StateHash; a != b {
		t.Errorf("state %s, want %s", a, b)
	}
	if err := here.Takes(t.Context(), o.space); err != nil {
		t.Error(err)
	}
}

// TestHistoryOfAnOlderDatabase takes a database back to what it was before histories were counted.
func TestHistoryOfAnOlderDatabase(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	s.delegate(newOwner(t, "bob", c).header) // of a Space that is not hosted
	o.hostOn(s)
	s.delegate(o.header)
	for i := range 3 {
		if err := o.write(s, fmt.Sprint("key", i), "12345"); err != nil {
			t.Fatal(err)
		}
	}
	want := s.room(o.space).History
	s.stop()
	db, err := sql.Open("sqlite", "file:"+s.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{
		"ALTER TABLE spaces DROP COLUMN history", "DROP TABLE unhosted", "DELETE FROM goose_db_version WHERE version_id = 21",
	} {
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			t.Fatal(change, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, "one", c, s.path)
	if got := again.room(o.space).History; got != want || got == 0 {
		t.Errorf("history of %d bytes, want %d", got, want)
	}
}
