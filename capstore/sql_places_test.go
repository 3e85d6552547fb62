package capstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// A token that a host put again with another request counts where the hosts say it that are left, also when others built on
// the lie: on every host, whichever of lie and removal came first.
func TestSQLAnotherBodyOfARemovedHost(t *testing.T) {
	for name, first := range map[string]int{"where it was built on": 0, "where nothing of it was known": 1} {
		t.Run(name, func(t *testing.T) {
			t.Run(onMemory, func(t *testing.T) {
				o := newAuthor(t, newClock())
				stores, _ := o.writers(t, "a", "b")
				a, b := stores[0], stores[1]
				o.run(a, "db", "CREATE TABLE t(v)")
				o.exchange(a, b)
				l := newLiar(o.owner)
				l.welcome(t, a.testStore)
				b.pull(a.testStore, o.space)
				heads := a.status(o.space).Heads
				o.clock.ms.Add(50)
				tok := o.sqlToken(t, "db", "write")
				if _, err := o.use(a, tok, "db", `{"action":"execute","sql":"INSERT INTO t VALUES('meant')"}`); err != nil {
					t.Fatal(err)
				}
				put := func(at time.Time, parents []tinycloud.Hash, text string) {
					l.say(t, a.testStore, l.raw(at, parents, tok.Bytes, statement(t, "db", at, 1, "INSERT INTO t VALUES('"+text+"')")...))
				}
				put(o.clock.now().Add(-25*time.Millisecond), heads, "before")
				o.clock.ms.Add(50)
				o.run(a, "db", "INSERT INTO t VALUES('built on it')")
				if got := o.rows(a, "db", "SELECT group_concat(v) FROM t"); got != `[["before,built on it"]]` {
					t.Fatalf("before the removal: %s", got)
				}
				o.clock.ms.Add(50)
				o.remove(t, stores[first].testStore, l.delegation)
				o.exchange(a, b)
				const want = `[["meant,built on it"]]`
				if got := o.same("db", "SELECT group_concat(v) FROM t", a, b); got != want {
					t.Errorf("after the removal: %s", got)
				}
				a.sound()
				b.sound()
				rng := rand.New(rand.NewPCG(3, uint64(first)))
				for i := range 4 {
					x := openSQL(t, fmt.Sprint("x", i), o.clock, newDatabase(t), t.TempDir())
					o.member(x.testStore)
					feed(t, rng, x.testStore, o.space, all(t, a.testStore, o.space))
					x.redate()
					if got := o.rows(x, "db", "SELECT group_concat(v) FROM t"); got != want {
						t.Errorf("x%d has %s", i, got)
					}
					x.sound()
				}
			})
		})
	}
}

// A host that was not removed may say that the lie stands: then it counts, until that one is removed too.
func TestSQLAnotherBodyIsWitnessed(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		o.run(a, "db", "CREATE TABLE t(v)")
		l, m := newLiar(o.owner), newLiar(o.owner)
		m.key = keys("other").SpaceKey(o.space)
		l.welcome(t, a.testStore)
		m.welcome(t, a.testStore)
		heads := a.status(o.space).Heads
		o.clock.ms.Add(50)
		tok := o.sqlToken(t, "db", "write")
		if _, err := o.use(a, tok, "db", `{"action":"execute","sql":"INSERT INTO t VALUES('meant')"}`); err != nil {
			t.Fatal(err)
		}
		at := o.clock.now().Add(-25 * time.Millisecond)
		lie := l.raw(at, heads, tok.Bytes, statement(t, "db", at, 1, "INSERT INTO t VALUES('lie')")...)
		l.say(t, a.testStore, lie)
		o.clock.ms.Add(50)
		o.run(a, "db", "INSERT INTO t VALUES('built on it')")
		o.exchange(a, b)
		check := func(when, want string) {
			t.Helper()
			o.exchange(a, b)
			a.redate()
			b.redate()
			if got := o.same("db", "SELECT group_concat(v) FROM t", a, b); got != want {
				t.Errorf("%s: %s", when, got)
			}
			a.sound()
			b.sound()
		}
		check("at first", `[["lie,built on it"]]`)
		o.remove(t, a.testStore, l.delegation)
		check("once it is removed", `[["meant,built on it"]]`)
		o.clock.ms.Add(50)
		m.say(t, a.testStore, m.witness(lie, at))
		check("with a further entry", `[["lie,built on it"]]`)
		list, err := b.sql.Databases(t.Context(), b.Store, o.space, false, 10)
		if err != nil || len(list) != 1 || len(list[0].Doubled) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		if places := list[0].Doubled[0].Places; len(places) != 2 || len(places[0].Hosts) != 2 || !places[0].Counts || len(places[1].Hosts) != 1 || places[1].Hosts[0] != a.host(o.space).String() {
			t.Errorf("shown as %+v", places)
		}
		o.clock.ms.Add(50)
		o.remove(t, b.testStore, m.delegation)
		check("once both are removed", `[["meant,built on it"]]`)
	})
}
