package capstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// sqlStore is a store with databases.
type sqlStore struct {
	*testStore
	sql *sql.Service
	dir string
}

func openSQL(t *testing.T, name string, c *clock, path, dir string) *sqlStore {
	t.Helper()
	s := &sqlStore{sql: sql.New(sql.Options{Dir: dir}), dir: dir}
	s.testStore = openWith(t, name, c, path, func(o *capstore.Options) { o.Services = servicetest.Services(s.sql) })
	t.Cleanup(func() {
		if err := s.sql.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *sqlStore) reopen() *sqlStore {
	s.t.Helper()
	if err := s.sql.Close(); err != nil {
		s.t.Error(err)
	}
	s.stop()
	return openSQL(s.t, string(s.name), s.clock, s.path, s.dir)
}

// author is an owner whose session may do all with databases.
type author struct{ *owner }

func newAuthor(t *testing.T, c *clock) author {
	o := newOwner(t, "alice", c)
	o.header = o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: c.now().Add(24 * time.Hour), IssuedAt: c.now(), Nonce: "nonce0000003",
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"}, o.space.String() + "/sql": {"tinycloud.sql/*"}},
	})
	o.proof = captest.ID(o.header)
	return author{o}
}

func (o author) sqlToken(t *testing.T, path string, abilities ...string) *capstore.Token {
	t.Helper()
	o.n++
	for i, a := range abilities {
		abilities[i] = "tinycloud.sql/" + a
	}
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/sql/" + path: abilities},
		Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(time.Minute), Nonce: fmt.Sprint("sql ", o.n),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// ask has a store carry a request out.
func (o author) ask(s *sqlStore, path, body string, abilities ...string) (*httptest.ResponseRecorder, error) {
	s.t.Helper()
	return o.use(s, o.sqlToken(s.t, path, abilities...), path, body)
}

func (o author) use(s *sqlStore, tok *capstore.Token, path, body string) (*httptest.ResponseRecorder, error) {
	s.t.Helper()
	if err := s.Admit(s.t.Context(), tok); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, "/invoke", strings.NewReader(body))
	return w, s.sql.Invoke(w, r, service.Call{Store: s.Store, Token: tok, Space: o.space, Path: path, Ability: tok.Caps[0].Ability})
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// run executes a statement and returns the epoch that it made.
func (o author) run(s *sqlStore, path, statement string) string {
	s.t.Helper()
	w, err := o.ask(s, path, `{"action":"execute","sql":`+quoted(statement)+`}`, "write")
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.name, statement, err)
	}
	return w.Header().Get(sql.EpochHeader)
}

func (o author) rows(s *sqlStore, path, query string) string {
	s.t.Helper()
	w, err := o.ask(s, path, `{"action":"query","sql":`+quoted(query)+`}`, "read")
	if err != nil {
		return err.Error()
	}
	_, rows, _ := strings.Cut(w.Body.String(), `"rows":`)
	return strings.TrimSuffix(rows, "}")
}

// writers are hosts of a Space that know each other.
func (o author) writers(t *testing.T, names ...string) (stores []*sqlStore, delegations []tinycloud.Hash) {
	for _, name := range names {
		s := openSQL(t, name, o.clock, newDatabase(t), t.TempDir())
		delegations = append(delegations, o.member(s.testStore))
		stores = append(stores, s)
	}
	stores[0].delegate(o.header)
	o.exchange(stores...)
	return stores, delegations
}

func (o author) exchange(stores ...*sqlStore) {
	for range 2 {
		for _, s := range stores {
			for _, from := range stores {
				if s != from {
					s.pull(from.testStore, o.space)
				}
			}
		}
	}
}

// same holds that stores have the same rows and state.
func (o author) same(path, query string, stores ...*sqlStore) string {
	first := stores[0]
	first.t.Helper()
	want, hash := o.rows(first, path, query), first.status(o.space).StateHash
	for _, s := range stores[1:] {
		if got := o.rows(s, path, query); got != want || s.status(o.space).StateHash != hash {
			s.t.Errorf("%s has %s\n%s has %s; equal hashes: %v", first.name, want, s.name, got, s.status(o.space).StateHash == hash)
		}
	}
	return want
}

// Two hosts write the same table apart, and have the same rows, row ids and verdicts once they have met.
func TestSQLMerges(t *testing.T) { everywhere(t, testSQLMerges) }

func testSQLMerges(t *testing.T) {
	c := newClock()
	o := newAuthor(t, c)
	stores, _ := o.writers(t, "a", "b")
	a, b := stores[0], stores[1]
	const db = "xyz.app/notes"
	o.run(a, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER)")
	c.ms.Add(5)
	o.exchange(a, b)
	if got := o.rows(b, db, "SELECT count(*) FROM t"); got != "[[0]]" {
		t.Fatalf("b has %s", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var taken string
	for i := range 60 {
		c.ms.Add(rng.Int64N(3))
		s := stores[rng.IntN(2)]
		o.run(s, db, fmt.Sprintf("INSERT INTO t(name, n) VALUES('%s %d', 0)", s.name, i))
		o.run(s, db, "UPDATE t SET n = n + 1 WHERE id = 1")
		if i == 30 { // both take the same name: the later one did nothing after all
			o.run(a, db, "INSERT INTO t(name) VALUES('unique')")
			c.ms.Add(5)
			taken = o.run(b, db, "INSERT INTO t(name) VALUES('unique')")
		}
		if rng.IntN(10) == 0 {
			o.exchange(a, b)
			o.same(db, "SELECT * FROM t ORDER BY id", a, b)
		}
	}
	o.exchange(a, b)
	all := o.same(db, "SELECT * FROM t ORDER BY id", a, b)
	if got := o.same(db, "SELECT count(*), max(n), sum(name = 'unique') FROM t", a, b); got != "[[61,60,1]]" {
		t.Errorf("merged: %s", got)
	}
	for _, s := range stores {
		w, err := o.ask(s, db, `{"action":"outcome","epoch":"`+taken+`"}`, "read")
		if want := `{"applied":false,"error":"SQLite error: UNIQUE constraint failed: t.name","hosts":2,"of":2}`; err != nil || w.Body.String() != want {
			t.Errorf("%s: outcome %v %v", s.name, w, err)
		}
		s.sound()
	}
	// Files that are not here any more are made anew, as are those of a host that has just come.
	if err := a.sql.Close(); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(a.dir); err != nil {
		t.Error(err)
	}
	fresh := sql.New(sql.Options{Dir: a.dir, Open: 1})
	t.Cleanup(func() {
		if err := fresh.Close(); err != nil {
			t.Error(err)
		}
	})
	a.sql = fresh
	if got := o.rows(a, db, "SELECT * FROM t ORDER BY id"); got != all {
		t.Errorf("made anew: %s, want %s", got, all)
	}
	w, err := o.ask(a, db, `{"action":"outcome","epoch":"`+taken+`"}`, "read")
	if err != nil || !strings.Contains(w.Body.String(), `"applied":false`) {
		t.Errorf("outcome after that: %v %v", w, err)
	}
}

// Any order of arrival comes to the same rows.
func TestSQLConverges(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a", "b")
		rng := rand.New(rand.NewPCG(5, 6))
		o.run(stores[0], "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, at DEFAULT CURRENT_TIMESTAMP, r DEFAULT (random()))")
		o.exchange(stores...)
		for i := range 40 {
			c.ms.Add(rng.Int64N(2000))
			s := stores[rng.IntN(2)]
			o.run(s, "db", fmt.Sprintf("INSERT OR REPLACE INTO t(v) VALUES(%d)", rng.IntN(20)+i%2*100))
			if rng.IntN(6) == 0 {
				o.exchange(stores...)
			}
		}
		o.exchange(stores...)
		want := o.same("db", "SELECT * FROM t ORDER BY id", stores...)
		for i := range 4 {
			x := openSQL(t, fmt.Sprint("x", i), c, newDatabase(t), t.TempDir())
			o.member(x.testStore)
			bundles := all(t, stores[0].testStore, o.space)
			feed(t, rng, x.testStore, o.space, bundles[:len(bundles)/2])
			o.rows(x, "db", "SELECT count(*) FROM t") // what is here by then
			feed(t, rng, x.testStore, o.space, bundles)
			x.redate()
			if got := o.rows(x, "db", "SELECT * FROM t ORDER BY id"); got != want {
				t.Errorf("x%d has %s\nwant %s", i, got, want)
			}
			x.sound()
		}
	})
}

// What a removed host wrote goes, wherever it was executed, and what others built on stays.
func TestSQLRemovedHost(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, delegations := o.writers(t, "a", "b", "x")
		a, b, x := stores[0], stores[1], stores[2]
		o.run(a, "db", "CREATE TABLE t(v)")
		c.ms.Add(5)
		o.exchange(stores...)
		o.run(x, "db", "INSERT INTO t VALUES('built on')")
		c.ms.Add(5)
		b.pull(x.testStore, o.space)
		o.run(b, "db", "INSERT INTO t VALUES('by b')")
		c.ms.Add(5)
		o.run(x, "db", "INSERT INTO t VALUES('lost')")
		a.pull(b.testStore, o.space)
		c.ms.Add(5)
		o.run(a, "db", "INSERT INTO t VALUES('by a')")
		b.pull(x.testStore, o.space)
		if got := o.rows(b, "db", "SELECT group_concat(v) FROM t"); got != `[["built on,by b,lost"]]` {
			t.Errorf("before: %s", got)
		}
		c.ms.Add(5)
		o.remove(t, a.testStore, delegations[2])
		o.exchange(a, b)
		if got := o.same("db", "SELECT group_concat(v) FROM t", a, b); got != `[["built on,by b,by a"]]` {
			t.Errorf("after the removal: %s", got)
		}
		a.sound()
		b.sound()
	})
}

// A database comes back from its files after a restart, and from the history where they are gone or damaged.
func TestSQLRestart(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := newAuthor(t, c)
	s := openSQL(t, "a", c, filepath.Join(t.TempDir(), "caps.db"), t.TempDir())
	o.member(s.testStore)
	s.delegate(o.header)
	o.run(s, "db", "CREATE TABLE t(v)")
	for i := range 30 {
		c.ms.Add(1)
		o.run(s, "db", fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
	}
	const sum = "SELECT count(*), sum(v) FROM t"
	for _, damage := range []func(path string) error{
		func(string) error { return nil },
		os.Remove,
		func(path string) error { return os.Truncate(path, 100) },
		func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 9000)), 0o600) },
	} {
		s.sql.Close() //nolint:errcheck // again below
		err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			return damage(path)
		})
		if err != nil {
			t.Fatal(err)
		}
		s = s.reopen()
		if got := o.rows(s, "db", sum); got != "[[30,435]]" {
			t.Errorf("after a restart: %s", got)
		}
	}
	c.ms.Add(1)
	o.run(s, "db", "INSERT INTO t VALUES(5)")
	if got := o.rows(s, "db", sum); got != "[[31,440]]" {
		t.Errorf("and one more: %s", got)
	}
	s.sound()
}

// A token counts once, whatever came of its request.
func TestSQLTokens(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a")
		a := stores[0]
		for _, body := range []string{
			`{"action":"execute","sql":"CREATE TABLE t(v)"}`, `{"action":"execute","sql":"CREATE TABLE IF NOT EXISTS t(v)"}`,
			`{"action":"query","sql":"SELECT 1"}`, `{"action":"execute","sql":"CREATE TABLE t(v)"}`,
		} {
			tok := o.sqlToken(t, "db", "write")
			_, _ = o.use(a, tok, "db", body)
			if _, err := o.use(a, tok, "db", body); !errors.Is(err, tinycloud.ErrConflict) {
				t.Errorf("%s: the second time %v", body, err)
			}
		}
	})
}

// Files that are behind the history, as after a kill, or of another history, as after a backup was restored, come to it.
func TestSQLFilesOfAnotherTime(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := newAuthor(t, c)
	dir := t.TempDir()
	database, files := filepath.Join(dir, "caps.db"), filepath.Join(dir, "sql")
	s := openSQL(t, "a", c, database, files)
	o.member(s.testStore)
	s.delegate(o.header)
	add := func(from, to int) {
		for i := from; i < to; i++ {
			c.ms.Add(1)
			o.run(s, "db", fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		}
	}
	o.run(s, "db", "CREATE TABLE t(v)")
	add(0, 5)
	if err := os.CopyFS(filepath.Join(dir, "running"), os.DirFS(files)); err != nil { // no file was closed
		t.Fatal(err)
	}
	add(5, 10)
	if err := s.sql.Close(); err != nil {
		t.Error(err)
	}
	s.stop()
	if err := errors.Join(os.CopyFS(filepath.Join(dir, "later"), os.DirFS(files)), os.RemoveAll(files), os.Rename(filepath.Join(dir, "running"), files)); err != nil {
		t.Fatal(err)
	}
	s = openSQL(t, "a", c, database, files)
	if got := o.rows(s, "db", "SELECT count(*), sum(v) FROM t"); got != "[[10,45]]" {
		t.Errorf("from files that were behind: %s", got)
	}
	s.sound()

	// Another history, with files of the one before.
	other := openSQL(t, "b", c, filepath.Join(dir, "other.db"), filepath.Join(dir, "later"))
	o.member(other.testStore)
	other.delegate(o.header)
	if got := o.rows(other, "db", "SELECT count(*) FROM t"); got != "SQLite error: no such table: t" {
		t.Errorf("before anything was written: %s", got)
	}
	c.ms.Add(1)
	o.run(other, "db", "CREATE TABLE t(v)")
	o.run(other, "db", "INSERT INTO t VALUES(7)")
	if got := o.rows(other, "db", "SELECT count(*), sum(v) FROM t"); got != "[[1,7]]" {
		t.Errorf("from files of another history: %s", got)
	}
}
