package capstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// statement is an operation that runs one statement.
func statement(t *testing.T, db string, now time.Time, rules uint64, sql string) [][]byte {
	t.Helper()
	o := request.Operation{Now: now.UnixMilli(), Rules: rules, Request: request.Request{Action: request.Execute, Statements: []request.Statement{{SQL: sql}}}}
	parts, err := o.Encode(db)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

// friendly is a session that may read a database, and signs that it wants more.
func (o author) friendly(t *testing.T, s *sqlStore, db string, abilities ...string) *capstore.Token {
	t.Helper()
	friend := captest.NewSession("friend")
	header := o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: friend.URI(), Expires: o.clock.now().Add(time.Hour), IssuedAt: o.clock.now(), Nonce: "nonce0000009",
		Caps: captest.Caps{o.space.String() + "/sql/" + db: {"tinycloud.sql/read"}},
	})
	s.delegate(header)
	tok, err := capstore.ParseInvocation(friend.Invoke(captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/sql/" + db: abilities}, Proofs: []tinycloud.Hash{captest.ID(header)}, Expires: o.clock.now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// What a host that lies says is void, does nothing, or keeps waiting the database that it is about. All hosts agree.
func TestSQLLiar(t *testing.T) {
	const add = "INSERT INTO t VALUES('lie')"
	type lie struct {
		token *capstore.Token
		ops   [][]byte
	}
	for name, tt := range map[string]struct {
		lie  func(o author, s *sqlStore) lie
		want string
	}{
		"what its token lets": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), statement(s.t, "db", o.clock.now(), 1, add)}
		}, `[["true,lie"]]`},
		"with an ability that the token only asks for": {func(o author, s *sqlStore) lie {
			return lie{o.friendly(s.t, s, "db", "tinycloud.sql/read", "tinycloud.sql/write"), statement(s.t, "db", o.clock.now(), 1, add)}
		}, `[["true"]]`},
		"with an ability that lets read": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "read"), statement(s.t, "db", o.clock.now(), 1, add)}
		}, `[["true"]]`},
		"of another time": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), statement(s.t, "db", o.clock.now().Add(-121*time.Second), 1, add)}
		}, `[["true"]]`},
		"by rules that never were": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), statement(s.t, "db", o.clock.now(), 0, add)}
		}, `[["true"]]`},
		"by rules that nobody knows": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), statement(s.t, "db", o.clock.now(), 99, add)}
		}, "Written by a newer release; this host needs an upgrade"},
		"no request": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), [][]byte{[]byte("\xa2gserviceccsqlgsubjectbdb")}}
		}, ""},
		"half a request": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), statement(s.t, "db", o.clock.now(), 1, add+"-- "+strings.Repeat("x", 100_000))[:1]}
		}, `[["true"]]`},
		"two requests": {func(o author, s *sqlStore) lie {
			return lie{o.sqlToken(s.t, "db", "write"), append(statement(s.t, "db", o.clock.now(), 1, add), statement(s.t, "db", o.clock.now(), 1, add)...)}
		}, `[["true"]]`},
		"beside a key": {func(o author, s *sqlStore) lie {
			o.n++
			tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
				Caps:   captest.Caps{o.space.String() + "/sql/db": {"tinycloud.sql/write"}, o.space.String() + "/kv/k": {"tinycloud.kv/put"}},
				Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(time.Minute),
			}))
			if err != nil {
				s.t.Fatal(err)
			}
			return lie{tok, append(statement(s.t, "db", o.clock.now(), 1, add), write("k", "v").Encode())}
		}, `[["true"]]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run(onMemory, func(t *testing.T) {
				o := newAuthor(t, newClock())
				stores, _ := o.writers(t, "a", "b")
				a, b := stores[0], stores[1]
				o.run(a, "db", "CREATE TABLE t(v)")
				o.run(a, "db", "INSERT INTO t VALUES('true')")
				l := newLiar(o.owner)
				l.welcome(t, a.testStore)
				o.clock.ms.Add(10)
				x := tt.lie(o, a)
				bundle := l.raw(o.clock.now(), a.status(o.space).Heads, x.token.Bytes, x.ops...)
				if name == "no request" {
					_, err := a.Apply(t.Context(), o.space, []hostlog.Bundle{bundle})
					if !errors.Is(err, tinycloud.ErrInvalid) {
						t.Errorf("no operation at all: %v", err)
					}
					return
				}
				l.say(t, a.testStore, bundle)
				o.clock.ms.Add(10)
				b.pull(a.testStore, o.space)
				if got := o.same("db", "SELECT group_concat(v) FROM t", a, b); got != tt.want {
					t.Errorf("rows %s, want %s", got, tt.want)
				}
				o.run(a, "other", "CREATE TABLE t(v)") // nothing else stops
				if strings.HasPrefix(tt.want, "[") {
					o.run(b, "db", "INSERT INTO t VALUES('after')")
					o.exchange(a, b)
					o.same("db", "SELECT * FROM t", a, b)
				}
				a.sound()
				b.sound()
			})
		})
	}
}

// A token stands where its place is least, whoever puts another request under it.
func TestSQLAnotherBody(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newMeant(t)
		a, b := o.a, o.b
		b.pull(a.testStore, o.space)
		o.again(t, o.clock.now().Add(-25*time.Millisecond), o.heads, "before")
		if got := o.rows(a, "db", "SELECT v FROM t"); got != `[["before"]]` {
			t.Errorf("put before it: %s", got)
		}
		o.clock.ms.Add(50)
		o.again(t, o.clock.now(), a.status(o.space).Heads, "behind")
		if got := o.rows(a, "db", "SELECT v FROM t"); got != `[["before"]]` {
			t.Errorf("put behind it: %s", got)
		}
		a.sound()
		o.remove(t, b.testStore, o.liar.delegation) // where nothing of that is known
		o.exchange(a, b)
		if got := o.same("db", "SELECT v FROM t", a, b); got != `[["meant"]]` {
			t.Errorf("once the host that lied is removed: %s", got)
		}
		a.sound()
		b.sound()
	})
}

// A revocation that arrives late ends what is written from then on, and leaves what was written before it was known, as it
// does of keys. A request of several parts comes whole.
func TestSQLLateRevocation(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		o.run(a, "db", "CREATE TABLE t(v)")
		o.run(a, "db", "INSERT INTO t VALUES('"+strings.Repeat("x", 200_000)+"')")
		o.exchange(a, b)
		if got := o.same("db", "SELECT length(v) FROM t", a, b); got != "[[200000]]" {
			t.Errorf("in parts: %s", got)
		}
		c.ms.Add(10)
		o.remove(t, a.testStore, o.proof)
		o.run(b, "db", "INSERT INTO t VALUES('before it knows')")
		o.exchange(a, b)
		if x, y := a.status(o.space), b.status(o.space); x.StateHash != y.StateHash || x.Events != y.Events {
			t.Errorf("%+v\n%+v", x, y)
		}
		for _, s := range stores {
			if _, err := o.ask(s, "db", `{"action":"execute","sql":"INSERT INTO t VALUES('then')"}`, "write"); !errors.Is(err, tinycloud.ErrUnauthorized) {
				t.Errorf("%s: after it: %v", s.name, err)
			}
		}
		back := o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: o.session.URI(), Expires: c.now().Add(24 * time.Hour), IssuedAt: c.now(), Nonce: "nonce0000004",
			Caps: captest.Caps{o.space.String() + "/sql": {"tinycloud.sql/*"}},
		})
		a.delegate(back)
		o.proof = captest.ID(back)
		o.exchange(a, b)
		if got := o.same("db", "SELECT count(*) FROM t", a, b); got != "[[2]]" {
			t.Errorf("rows %s", got)
		}
		a.sound()
		b.sound()
	})
}

// Names cost nothing until somebody writes, and of many databases few are open.
func TestSQLManyDatabases(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, _ := o.writers(t, "a")
		a := stores[0]
		for i := range 200 {
			if got := o.rows(a, fmt.Sprint("read-", i), "SELECT 1"); got != "[[1]]" {
				t.Fatal(got)
			}
			_, _ = o.ask(a, fmt.Sprint("failed-", i), `{"action":"execute","sql":"INSERT INTO t VALUES(1)"}`, "write")
		}
		for i := range 80 {
			o.run(a, fmt.Sprint("db-", i), "CREATE TABLE t(v)")
		}
		rng := rand.New(rand.NewPCG(7, 8))
		for range 100 {
			db := fmt.Sprint("db-", rng.IntN(80))
			o.run(a, db, "INSERT INTO t VALUES(1)")
			if got := o.rows(a, db, "SELECT count(*) > 0 FROM t"); got != "[[1]]" {
				t.Errorf("%s: %s", db, got)
			}
		}
		if err := a.sql.Close(); err != nil {
			t.Error(err)
		}
		bases := 0
		err := filepath.WalkDir(a.dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Name() == "base.db" {
				bases++
			}
			return err
		})
		if err != nil || bases != 81 { // and that of databases that nobody wrote
			t.Errorf("%d files, %v", bases, err)
		}
		if _, err := os.Stat(a.dir); err != nil {
			t.Error(err)
		}
	})
}

// While a host is known to be of a release that knows no services, nothing is written that it could not pass on.
func TestSQLBesideAnOlderHost(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, delegations := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		tell := func(h hostlog.Hello) {
			if _, err := a.SaveHello(t.Context(), o.space, b.host(o.space), h); err != nil {
				t.Fatal(err)
			}
		}
		for name, h := range map[string]hostlog.Hello{"no rules": {}, "rules alone": {Rules: capstore.Rules}} {
			tell(h)
			if _, err := o.ask(a, "db", `{"action":"execute","sql":"CREATE TABLE t(v)"}`, "write"); !errors.Is(err, tinycloud.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
			if got := o.rows(a, "db", "SELECT count(*) FROM sqlite_schema"); got != "[[0]]" {
				t.Errorf("%s: %s", name, got)
			}
		}
		tell(b.Hello())
		o.run(a, "db", "CREATE TABLE t(v)")
		tell(hostlog.Hello{})
		o.remove(t, a.testStore, delegations[1])
		o.run(a, "db", "CREATE TABLE u(v)")
	})
}
