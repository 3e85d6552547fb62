package capstore_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// since reads all changes after a cursor in pages of a size.
func since(t *testing.T, s *testStore, spaces []tinycloud.SpaceID, from capstore.Cursor, limit int) (out []capstore.Change) {
	t.Helper()
	for {
		page, next, more, err := s.ChangesSince(t.Context(), spaces, from, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > limit || (more && next.Compare(from) <= 0) {
			t.Fatalf("page of %d, from %v to %v", len(page), from, next)
		}
		out, from = append(out, page...), next
		if !more {
			return out
		}
	}
}

func equalChanges(t *testing.T, what string, got, want []capstore.Change) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b tinycloud.SpaceID) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// effect is what an event did to a key, wherever it stands.
type effect struct {
	event, key string
	removes    bool
}

// effects reads the effects of a stopped store by epoch and index, those that are valid, and how many
// changes were late.
func effects(t *testing.T, s *testStore) (all map[string]effect, valid map[effect]bool, late int) {
	t.Helper()
	s.stop()
	db, err := sql.Open("sqlite", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT p.id, o.valid, e.id, o.key, o.removes FROM epochs p JOIN ops o ON o.eid = p.eid
		JOIN events e ON e.eid = o.eid AND e.idx = o.idx ORDER BY p.eid, o.idx, o.n`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all, valid = map[string]effect{}, map[effect]bool{}
	index := map[string]int{}
	for rows.Next() {
		var epoch, event []byte
		var ok bool
		var e effect
		if err := rows.Scan(&epoch, &ok, &event, &e.key, &e.removes); err != nil {
			t.Fatal(err)
		}
		e.event = string(event)
		all[fmt.Sprintf("%x:%d", epoch, index[string(epoch)])] = e
		index[string(epoch)]++
		if ok {
			valid[e] = true
		}
	}
	if err := db.QueryRow("SELECT count(*) FROM late WHERE after >= 0").Scan(&late); err != nil {
		t.Fatal(err)
	}
	return all, valid, late
}

// told checks that each effect was told of once and each valid one at all.
func told(t *testing.T, s *testStore, changes []capstore.Change) (late int) {
	t.Helper()
	all, valid, late := effects(t, s)
	seen := map[effect]bool{}
	for _, c := range changes {
		e, ok := all[fmt.Sprintf("%x:%d", c.Epoch[:], c.Index)]
		if !ok || e.key != c.Key || e.removes != c.Delete {
			t.Errorf("%s: told of %+v, stored %+v", s.name, c, e)
		}
		if seen[e] {
			t.Errorf("%s: told twice of %+v", s.name, c)
		}
		seen[e] = true
	}
	for e := range valid {
		if !seen[e] {
			t.Errorf("%s: never told of %+v", s.name, e)
		}
	}
	return late
}

func TestChanges(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 2))
		o, stores := history(t, rng, 100)
		for _, a := range stores {
			for _, b := range stores {
				a.pull(b, o.space)
			}
		}
		bundles := all(t, stores[0], o.space)
		c := newClock()
		c.ms.Add(3_600_000)
		joiner := openNew(t, "joiner", c)
		o.hostOn(joiner)
		feed(t, rng, joiner, o.space, bundles)
		for _, s := range append(stores, joiner) {
			live := s.written()
			if len(live) < 20 {
				t.Fatalf("%d changes", len(live))
			}
			spaces := []tinycloud.SpaceID{o.space}
			for _, limit := range []int{7, 1000} {
				equalChanges(t, fmt.Sprint("in pages of ", limit), since(t, s, spaces, capstore.Cursor{}, limit), live)
			}
			again := open(t, string(s.name), s.clock, reopened(s))
			for i, c := range live {
				at, ok, err := again.CursorOf(t.Context(), o.space, c.Epoch, c.Index)
				if err != nil || !ok || at != c.Cursor {
					t.Fatalf("cursor of %+v: %v %t %v", c, at, ok, err)
				}
				if i%10 == 0 {
					equalChanges(t, fmt.Sprint("after ", i), since(t, again, spaces, at, 50), live[i+1:])
				}
			}
			told(t, again, live)
		}
	}
}

func TestLateChanges(t *testing.T) {
	s, o, l := setUp(t)
	l.welcome(t, s)
	x := &owner{wallet: o.wallet, space: o.space, session: captest.NewSession("extra"), clock: o.clock}
	x.header = o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: x.session.URI(), IssuedAt: o.clock.now(), Expires: o.clock.now().Add(time.Hour),
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put"}},
	})
	x.proof = captest.ID(x.header)
	first, second := x.invoke(t, "late", "tinycloud.kv/put"), x.invoke(t, "later", "tinycloud.kv/put")
	l.say(t, s, l.bundle(o.clock.now(), s.status(o.space).Heads, first.Bytes, write("late", "a")))
	l.say(t, s, l.bundle(o.clock.now(), s.status(o.space).Heads, second.Bytes, write("later", "a")))
	l.say(t, s, l.bundle(o.clock.now(), s.status(o.space).Heads, first.Bytes, write("late", "b")))
	if err := o.put(s, "between", "v"); err != nil {
		t.Fatal(err)
	}
	if got := s.written(); len(got) != 2 {
		t.Fatalf("before the delegation %+v", got)
	}
	s.delegate(x.header)
	if err := o.put(s, "after", "v"); err != nil {
		t.Fatal(err)
	}
	live := s.written()
	var keys []string
	for _, c := range live {
		keys = append(keys, c.Key)
	}
	if diff := cmp.Diff([]string{"k", "between", "late", "later", "after"}, keys); diff != "" {
		t.Fatal(diff)
	}
	l.say(t, s, l.bundle(o.clock.now(), s.status(o.space).Heads, first.Bytes, write("late", "c")))
	spaces := []tinycloud.SpaceID{o.space}
	for i, c := range live {
		at, ok, err := s.CursorOf(t.Context(), o.space, c.Epoch, c.Index)
		if err != nil || !ok || at != c.Cursor {
			t.Errorf("cursor of %+v: %v %t %v", c, at, ok, err)
		}
		equalChanges(t, "after "+c.Key, since(t, s, spaces, at, 1), live[i+1:])
	}
	equalChanges(t, "all", since(t, s, spaces, capstore.Cursor{}, 2), live)
	if late := told(t, s, s.written()); late != 2 {
		t.Errorf("%d late changes", late)
	}
}

// reopened stops a store and returns the path of its database.
func reopened(s *testStore) string {
	s.stop()
	return s.path
}

func TestChangesOfOtherSpaces(t *testing.T) {
	c := newClock()
	s := openNew(t, "host", c)
	a, b := newOwner(t, "a", c), newOwner(t, "b", c)
	for _, o := range []*owner{a, b} {
		o.hostOn(s)
		s.delegate(o.header)
	}
	for i := range 5 {
		for _, o := range []*owner{a, b} {
			if err := o.put(s, fmt.Sprint("k", i), "v"); err != nil {
				t.Fatal(err)
			}
		}
	}
	live := s.written()
	equalChanges(t, "both", since(t, s, []tinycloud.SpaceID{a.space, b.space, a.space}, capstore.Cursor{}, 3), live)
	var ofA []capstore.Change
	for _, c := range live {
		if c.Space == a.space {
			ofA = append(ofA, c)
		}
	}
	if len(live) != 10 || len(ofA) != 5 || ofA[0].Ability != "tinycloud.kv/put" || ofA[0].Actor != a.session.DID() {
		t.Errorf("%+v", live)
	}
	equalChanges(t, "one", since(t, s, []tinycloud.SpaceID{a.space}, capstore.Cursor{}, 2), ofA)
	equalChanges(t, "none", since(t, s, []tinycloud.SpaceID{newOwner(t, "c", c).space}, capstore.Cursor{}, 2), nil)
	end, err := s.LatestChange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equalChanges(t, "after the end", since(t, s, []tinycloud.SpaceID{a.space}, end, 2), nil)
	if err := a.put(s, "k", "v"); err != nil {
		t.Fatal(err)
	}
	equalChanges(t, "since the end", since(t, s, []tinycloud.SpaceID{a.space}, end, 2), s.written()[10:])
	for _, o := range []*owner{a, b} { // the epoch is of a's Space
		_, ok, err := s.CursorOf(t.Context(), o.space, live[0].Epoch, 0)
		if err != nil || ok != (o == a) {
			t.Errorf("cursor: %t %v", ok, err)
		}
	}
	for _, index := range []int{1, 1 << 40} {
		if _, ok, err := s.CursorOf(t.Context(), a.space, live[0].Epoch, index); err != nil || ok {
			t.Errorf("index %d: %t %v", index, ok, err)
		}
	}
}
