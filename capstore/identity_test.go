package capstore_test

import (
	"errors"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// as opens a database as a node with a DID.
func as(did string) func(*capstore.Options) {
	return func(o *capstore.Options) { o.Identity.Node = did }
}

// notOurs opens a database as a node whose data they are not, and returns whose they are.
func notOurs(t *testing.T, name, did, database string) *capstore.OtherNodeError {
	t.Helper()
	o := capstore.Options{Services: servicetest.Services(), Database: database, Keys: keys(name), Identity: capstore.Identity{Node: did}}
	s, err := capstore.Open(t.Context(), o)
	if err == nil {
		t.Fatal(s.Close(), "opened")
	}
	var other *capstore.OtherNodeError
	if !errors.As(err, &other) {
		t.Fatal(err)
	}
	return other
}

func find(t *testing.T, database string) capstore.Owner {
	t.Helper()
	o, err := capstore.FindOwner(t.Context(), database, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The data of a node are opened with its secret alone, until another takes them over.
func TestIdentity(t *testing.T) {
	test := func(t *testing.T) {
		c, database := newClock(), newDatabase(t)
		if o := find(t, database); !o.None() {
			t.Errorf("no data yet, but %v", o)
		}
		// What older releases wrote names no node, and is known by its Spaces.
		a, o := open(t, "one", c, database), newOwner(t, "alice", c)
		o.hostOn(a)
		a.delegate(o.header)
		if err := o.put(a, "k", "v"); err != nil {
			t.Fatal(err)
		}
		a.stop()
		if x := find(t, database); x.Node != "" || x.None() || x.Space != o.space {
			t.Errorf("found %+v", x)
		}
		if e := notOurs(t, "two", "did:key:two", database); e.Owner.Space != o.space || e.Owner.Host == "" || e.Host == "" || e.Owner.Host == e.Host {
			t.Errorf("%+v", e)
		}
		openWith(t, "one", c, database, as("did:key:one")).stop()
		if x := find(t, database); x.Node != "did:key:one" {
			t.Errorf("found %+v", x)
		}
		if e := notOurs(t, "two", "did:key:two", database); e.Owner.Node != "did:key:one" || e.Node != "did:key:two" {
			t.Errorf("%+v", e)
		}
		a = openWith(t, "one", c, database, as("did:key:one"))
		if got := a.get(o.space, "k"); got != "v" {
			t.Errorf("%q", got)
		}
		a.stop()

		b := openWith(t, "two", c, database, func(o *capstore.Options) { o.Identity = capstore.Identity{Node: "did:key:two", New: true} })
		if err := o.put(b, "k", "w"); err == nil {
			t.Error("the other node writes without a delegation")
		}
		o.hostOn(b)
		if err := o.put(b, "k", "w"); err != nil || b.get(o.space, "k") != "w" {
			t.Errorf("%q, %v", b.get(o.space, "k"), err)
		}
		b.stop()
		b = openWith(t, "two", c, database, as("did:key:two"))
		if got, ok := b.SpaceOf(b.host(o.space)); !ok || got != o.space {
			t.Errorf("its key is that of %v", got)
		}
		b.stop()
		if e := notOurs(t, "one", "did:key:one", database); e.Owner.Node != "did:key:two" {
			t.Errorf("%+v", e)
		}
	}
	t.Run(onSQLite, test)
	onServers(t, test)
}

// Nothing that is there yet rests on the secret of a file without Spaces; a server's database may be in use.
func TestIdentityOfNoSpaces(t *testing.T) {
	c := newClock()
	t.Run(onSQLite, func(t *testing.T) {
		database := newDatabase(t)
		openWith(t, "one", c, database, as("did:key:one")).stop()
		openWith(t, "two", c, database, as("did:key:two")).stop()
		if x := find(t, database); x.Node != "did:key:two" {
			t.Errorf("found %+v", x)
		}
	})
	onServers(t, func(t *testing.T) {
		database := newDatabase(t)
		a := openWith(t, "one", c, database, as("did:key:one"))
		notOurs(t, "two", "did:key:two", database)
		openWith(t, "one", c, database, as("did:key:one")).stop() // another process of the same node
		o := newOwner(t, "alice", c)
		o.hostOn(a)
	})
}
