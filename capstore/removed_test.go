package capstore_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// reads reports how a read is admitted.
func (o *owner) reads(s *testStore) error {
	return s.Admit(s.t.Context(), o.invoke(s.t, "k", "tinycloud.kv/get"))
}

func (o *owner) standing(t *testing.T, s *testStore, want capstore.Standing) {
	t.Helper()
	if got := s.status(o.space).Standing; got != want {
		t.Errorf("stands as %q, want %q", got, want)
	}
	err := o.reads(s)
	if removed := want == capstore.StandsRemoved; errors.Is(err, tinycloud.ErrForbidden) != removed || !removed && err != nil {
		t.Errorf("as %q a read is %v", want, err)
	}
}

// A host that was removed says so to those who read, also after a restart, until it is let in again.
func TestRemovedHostRefuses(t *testing.T) { everywhere(t, testRemovedHostRefuses) }

func testRemovedHostRefuses(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a, x := openNew(t, "a", c), openNew(t, "x", c)
	o.member(a)
	gone := o.member(x)
	a.delegate(o.header)
	a.pull(x, o.space)
	x.pull(a, o.space)
	mustPut(t, o, a, "k", "v")
	x.pull(a, o.space)
	o.standing(t, x, capstore.StandsHost)
	c.ms.Add(10)
	o.remove(t, a, gone)
	x.pull(a, o.space)
	o.standing(t, x, capstore.StandsRemoved)
	o.standing(t, a, capstore.StandsHost)
	if kind(t) != onMemory {
		x.stop()
		x = open(t, "x", c, x.path)
		o.standing(t, x, capstore.StandsRemoved)
	}
	c.ms.Add(2000) // what was found out is asked again after a second
	o.member(x)
	o.standing(t, x, capstore.StandsHost)
	mustPut(t, o, x, "k", "again")

	// Another removal, told to this host itself.
	c.ms.Add(10)
	options := captest.HostOptions(o.space, x.host(o.space).String())
	options.IssuedAt = c.now()
	header := o.wallet.SignDelegation(options)
	x.delegate(header)
	o.remove(t, x, captest.ID(header))
	o.standing(t, x, capstore.StandsRemoved)
}

// A delegation whose time is over ends no reads.
func TestExpiredHostReads(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	a := openNew(t, "a", c)
	options := captest.HostOptions(o.space, a.host(o.space).String())
	options.IssuedAt, options.Expires = c.now(), c.now().Add(time.Hour)
	a.delegate(o.wallet.SignDelegation(options))
	a.delegate(o.header)
	mustPut(t, o, a, "k", "v")
	o.standing(t, a, capstore.StandsHost)
	c.ms.Add((2 * time.Hour).Milliseconds())
	o.standing(t, a, capstore.StandsExpired)
	if err := o.put(a, "k", "w"); err == nil {
		t.Error("it went on writing")
	}
}

// Releases that did not note removals wrote rows that are looked at when somebody reads.
func TestRemovalOfBefore(t *testing.T) {
	c := newClock()
	o, other := newOwner(t, "alice", c), newOwner(t, "bob", c)
	x := openNew(t, "x", c)
	gone := o.member(x)
	other.member(x)
	x.delegate(o.header)
	x.delegate(other.header)
	mustPut(t, o, x, "k", "v")
	mustPut(t, other, x, "k", "v")
	c.ms.Add(10)
	o.remove(t, x, gone)
	x.stop()
	db, err := sql.Open("sqlite", x.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE spaces SET removed = -1"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, "x", c, x.path)
	o.standing(t, x, capstore.StandsRemoved)
	other.standing(t, x, capstore.StandsHost)
}
