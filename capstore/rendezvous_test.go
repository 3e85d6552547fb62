package capstore_test

import (
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

func TestRendezvous(t *testing.T) {
	t.Run(onSQLite, testRendezvous)
	onServers(t, testRendezvous)
}

func testRendezvous(t *testing.T) {
	c, ctx := newClock(), t.Context()
	a := openNew(t, "a", c)
	owner := captest.NewWallet("owner")
	space := owner.Space("default")
	did := func(s *testStore) string {
		return string(captest.SessionOf([32]byte(s.name.SpaceKey(space).Seed())).DID())
	}
	host := func(s *testStore) string {
		o := captest.HostOptions(space, did(s))
		o.IssuedAt = c.now()
		return owner.SignDelegation(o)
	}
	a.delegate(host(a))
	get := func(renew bool) hostlog.Rendezvous {
		t.Helper()
		r, err := a.Rendezvous(ctx, space, renew)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	save := func(r hostlog.Rendezvous) {
		t.Helper()
		if err := a.SaveRendezvous(ctx, space, a.host(space), r); err != nil {
			t.Fatal(err)
		}
	}
	if r := get(false); !r.Secret.IsZero() {
		t.Errorf("a secret that nobody made: %+v", r)
	}
	if all, err := a.Rendezvouses(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	first := get(true)
	if first.Secret.IsZero() || get(true) != first || get(false) != first {
		t.Errorf("%+v is not kept", first)
	}
	// Of one generation the greater is kept, whoever made it.
	less, more := first, first
	less.Secret, more.Secret = tinycloud.Hash{1}, tinycloud.Hash{0xff, 0xff, 0xff, 0xff}
	for range 2 {
		save(more)
		save(less)
		save(first)
		save(hostlog.Rendezvous{})
		if get(true) != more {
			t.Errorf("%+v, want %+v", get(true), more)
		}
	}
	// None of a revocation that nobody knows of, or a liar could keep his for ever.
	save(hostlog.Rendezvous{Generation: 1 << 60, Secret: tinycloud.Hash{9}})
	save(hostlog.Rendezvous{Generation: -1, Secret: tinycloud.Hash{0xff, 0xff, 0xff, 0xff, 0xff}})
	if get(true) != more {
		t.Errorf("%+v, want %+v", get(true), more)
	}
	// A removed host does not know the one that comes after.
	b := openNew(t, "b", c)
	header := host(b)
	a.delegate(header)
	if get(true) != more {
		t.Error("a new host changes the secret")
	}
	tok, err := capstore.ParseRevocation(owner.SignRevocation(captest.ID(header)))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Revoke(ctx, tok); err != nil {
		t.Fatal(err)
	}
	if r := get(false); !r.Secret.IsZero() {
		t.Errorf("the secret that a removed host knows is still in use: %+v", r)
	}
	last := get(true)
	if last.Generation != 1 || last.Secret == more.Secret || last.Secret.IsZero() {
		t.Errorf("after a revocation %+v", last)
	}
	save(more)
	if get(true) != last {
		t.Error("an old secret came back")
	}
	own := hostlog.Rendezvous{Generation: 1, Secret: tinycloud.Hash{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	if err := a.SaveRendezvous(ctx, space, b.host(space), own); err != nil || get(true) != last {
		t.Errorf("a removed host's secret counts: %+v, %v", get(true), err)
	}
	path := a.path
	a.stop()
	a = open(t, "a", c, path)
	if get(false) != last {
		t.Error("forgotten by a restart")
	}
	if all, err := a.Rendezvouses(ctx); err != nil || len(all) != 1 || all[space] != last.Secret {
		t.Errorf("%v, %v", all, err)
	}
}
