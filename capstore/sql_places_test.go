package capstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// meant is a write at the first of two hosts, whose token a host that lies has too.
type meant struct {
	author
	a, b  *sqlStore
	liar  *liar
	more  []*liar          // further hosts, that were let in before
	heads []tinycloud.Hash // of the history before the write
	token *capstore.Token
}

func newMeant(t *testing.T, more ...string) *meant {
	t.Helper()
	o := newAuthor(t, newClock())
	stores, _ := o.writers(t, "a", "b")
	m := &meant{author: o, a: stores[0], b: stores[1], liar: newLiar(o.owner)}
	o.run(m.a, "db", "CREATE TABLE t(v)")
	o.exchange(m.a, m.b)
	m.liar.welcome(t, m.a.testStore)
	for _, name := range more {
		l := newLiar(o.owner)
		l.key = keys(name).SpaceKey(o.space)
		l.welcome(t, m.a.testStore)
		m.more = append(m.more, l)
	}
	m.b.pull(m.a.testStore, o.space)
	m.heads = m.a.status(o.space).Heads
	o.clock.ms.Add(50)
	m.token = m.sqlToken(t, "db", "write")
	if _, err := m.use(m.a, m.token, "db", `{"action":"execute","sql":"INSERT INTO t VALUES('meant')"}`); err != nil {
		t.Fatal(err)
	}
	return m
}

// again has the host that lies put the token at a place of the first host's history, with the insertion of another text.
func (m *meant) again(t *testing.T, at time.Time, parents []tinycloud.Hash, text string) hostlog.Bundle {
	t.Helper()
	b := m.liar.raw(at, parents, m.token.Bytes, statement(t, "db", at, 1, "INSERT INTO t VALUES('"+text+"')")...)
	m.liar.say(t, m.a.testStore, b)
	return b
}

// A token that a host put again with another request counts where the hosts say it that are left, also when others built on
// the lie: on every host, whichever of lie and removal came first.
func TestSQLAnotherBodyOfARemovedHost(t *testing.T) {
	for name, first := range map[string]int{"where it was built on": 0, "where nothing of it was known": 1} {
		t.Run(name, func(t *testing.T) {
			t.Run(onMemory, func(t *testing.T) {
				o := newMeant(t)
				a, b, l := o.a, o.b, o.liar
				o.again(t, o.clock.now().Add(-25*time.Millisecond), o.heads, "before")
				o.clock.ms.Add(50)
				o.run(a, "db", "INSERT INTO t VALUES('built on it')")
				if got := o.rows(a, "db", "SELECT group_concat(v) FROM t"); got != `[["before,built on it"]]` {
					t.Fatalf("before the removal: %s", got)
				}
				o.clock.ms.Add(50)
				o.remove(t, []*sqlStore{a, b}[first].testStore, l.delegation)
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
		o := newMeant(t, "other")
		a, b, l, m := o.a, o.b, o.liar, o.more[0]
		at := o.clock.now().Add(-25 * time.Millisecond)
		lie := o.again(t, at, o.heads, "lie")
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
