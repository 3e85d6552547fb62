package capstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// hears has a store tell what databases of the Space change, until the test ends.
func (o author) hears(s *sqlStore) capstore.Cursor {
	s.t.Helper()
	if err := s.Listen(s.t.Context(), o.space, "sql", false); err != nil {
		s.t.Fatal(err)
	}
	at, err := s.LatestChange(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return at
}

// naming returns the names that write gives epochs of one database, each at a later time.
func (o author) naming(c *clock) (names map[string]string, write func(s *sqlStore, name, statement string)) {
	names = map[string]string{}
	return names, func(s *sqlStore, name, statement string) {
		s.t.Helper()
		c.ms.Add(5)
		names[o.run(s, "db", statement)] = name
	}
}

// heard are the paths that a store has told of since a cursor, each with its author's name for the write. What is read in small
// pages, by the cursor of each change, and by its id, is the same.
func (o author) heard(s *sqlStore, from capstore.Cursor, names map[string]string) (out []string) {
	s.t.Helper()
	all := since(s.t, s.testStore, []tinycloud.SpaceID{o.space}, from, 100)
	equalChanges(s.t, string(s.name)+" in small pages", since(s.t, s.testStore, []tinycloud.SpaceID{o.space}, from, 1), all)
	for i, c := range all {
		at, ok, err := s.CursorOf(s.t.Context(), o.space, c.Epoch, c.Index)
		if err != nil || !ok || at != c.Cursor {
			s.t.Errorf("%s: cursor of %s: %v, %v, %v; want %v", s.name, c.Key, at, ok, err, c.Cursor)
		}
		equalChanges(s.t, string(s.name)+" behind "+c.Key, since(s.t, s.testStore, []tinycloud.SpaceID{o.space}, at, 100), all[i+1:])
		if c.Service != "sql" || c.Ability != "tinycloud.sql/write" || c.Actor != o.session.DID() || c.At.IsZero() || c.Space != o.space || c.Delete {
			s.t.Errorf("%s: told of %+v", s.name, c)
		}
		out = append(out, strings.TrimSpace(names[c.Epoch.EpochID()]+" "+c.Key))
	}
	return out
}

func equalPaths(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Hooks are told which tables a write changed, once it has run with success: one of this host with itself, one of another when
// it is carried out, each once whatever comes before it later.
func TestSQLTold(t *testing.T) { everywhere(t, testSQLTold) }

func testSQLTold(t *testing.T) {
	c := newClock()
	o := newAuthor(t, c)
	stores, _ := o.writers(t, "a", "b")
	a, b := stores[0], stores[1]
	const db = "xyz.app/notes"
	names := map[string]string{}
	write := func(s *sqlStore, name, statement string) {
		c.ms.Add(5)
		names[o.run(s, db, statement)] = name
	}
	write(a, "before", "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
	o.exchange(a, b)
	from := o.hears(a)
	atB := o.hears(b)

	c.ms.Add(5)
	w, err := o.ask(a, db, `{"action":"batch","statements":[{"sql":"CREATE TABLE u(v)"},{"sql":"INSERT INTO t(v) VALUES('a')"},{"sql":"INSERT INTO u VALUES(1)"},{"sql":"CREATE INDEX i ON u(v)"}]}`, "write", "schema")
	if err != nil {
		t.Fatal(err)
	}
	names[w.Header().Get(sql.EpochHeader)] = "batch"
	equalPaths(t, "a batch", o.heard(a, from, names), "batch notes/u", "batch notes/t", "batch notes/i")
	if _, err := o.ask(a, db, execute("INSERT INTO t(v) VALUES('a')"), "write"); err == nil {
		t.Fatal("the same value twice")
	}
	if _, err := o.ask(a, db, execute("UPDATE t SET v = 'c' WHERE v = 'b'"), "write"); err != nil {
		t.Fatal(err)
	}
	equalPaths(t, "one that fails and one that changes nothing", o.heard(a, from, names), "batch notes/u", "batch notes/t", "batch notes/i")

	// b's comes in between, and takes the value that a's takes later, which fails then: both stay told, and nothing is told twice.
	write(b, "earlier", "INSERT INTO t(v) VALUES('taken')")
	write(a, "later", "INSERT INTO t(v) VALUES('taken')")
	write(a, "last", "DELETE FROM u")
	o.exchange(a, b)
	equalPaths(t, "before it is carried out", o.heard(a, from, names)[3:], "later notes/t", "last notes/u")
	if got := o.rows(a, db, "SELECT count(*) FROM t"); got != "[[2]]" {
		t.Errorf("a has %s", got)
	}
	want := []string{"later notes/t", "last notes/u", "earlier notes/t"}
	equalPaths(t, "after a replay", o.heard(a, from, names)[3:], want...)
	o.rows(b, db, "SELECT 1")
	equalPaths(t, "at b, where the later one failed", o.heard(b, atB, names), "earlier notes/t", "batch notes/u", "batch notes/t", "batch notes/i", "last notes/u")
	a.anew()
	o.rows(a, db, "SELECT 1")
	equalPaths(t, "after its files were made anew", o.heard(a, from, names)[3:], want...)
	all := since(t, a.testStore, []tinycloud.SpaceID{o.space}, from, 100)
	if got := all[len(all)-1]; got.Also != db+"/t" || got.Index != 0 || all[1].Index != 1 {
		t.Errorf("told of %+v and %+v", got, all[1])
	}
	a.sound()
	b.sound()
}

// What a removed host wrote stays told if it was carried out before, and is not told if it was not.
func TestSQLToldRemoved(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, delegations := o.writers(t, "a", "b", "x")
		a, b, x := stores[0], stores[1], stores[2]
		o.run(a, "db", "CREATE TABLE t(v)")
		o.exchange(a, b, x)
		from := o.hears(a)
		names := map[string]string{}
		for _, name := range []string{"first", "second"} {
			c.ms.Add(5)
			names[o.run(x, "db", "INSERT INTO t VALUES('"+name+"')")] = name
			a.pull(x.testStore, o.space)
			if name == "first" {
				o.rows(a, "db", "SELECT 1")
			}
		}
		c.ms.Add(5)
		o.remove(t, b.testStore, delegations[2])
		a.pull(b.testStore, o.space)
		if got := o.rows(a, "db", "SELECT count(*) FROM t"); got != "[[0]]" {
			t.Errorf("after the removal: %s", got)
		}
		equalPaths(t, "after the removal", o.heard(a, from, names), "first db/t")
		a.sound()
	})
}

// deaf is a store whose telling fails, before or after it is done.
type deaf struct {
	service.Store
	after bool
}

var errKilled = errors.New("killed")

func (d deaf) Tell(ctx context.Context, space tinycloud.SpaceID, name, about string, all []service.News) error {
	if d.after {
		if err := d.Store.Tell(ctx, space, name, about, all); err != nil {
			return err
		}
	}
	return errKilled
}

// A process that is killed before it has told, or before its files have what it told of, tells it once after all. Who listens
// is known after a restart, for a while.
func TestSQLToldOnceWhenKilled(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := newAuthor(t, c)
	stores, _ := o.writers(t, "b")
	b := stores[0]
	a := openSQL(t, "a", c, t.TempDir()+"/caps.db", t.TempDir())
	o.member(a.testStore)
	a.delegate(o.header)
	o.exchange(a, b)
	o.run(a, "db", "CREATE TABLE t(v)")
	o.exchange(a, b)
	from := o.hears(a)
	names := map[string]string{}
	var want []string
	for i, after := range []bool{false, true} {
		c.ms.Add(5)
		name := fmt.Sprint(i)
		names[o.run(b, "db", "INSERT INTO t VALUES("+name+")")] = name
		a.pull(b.testStore, o.space)
		if _, _, err := o.send(t.Context(), a.sql, deaf{a.Store, after}, o.sqlToken(t, "db", "read"), query("SELECT 1")); !errors.Is(err, errKilled) {
			t.Fatalf("query: %v", err)
		}
		if after {
			want = append(want, name+" db/t")
		}
		equalPaths(t, "killed", o.heard(a, from, names), want...)
		a = a.reopen()
		o.rows(a, "db", "SELECT 1")
		if !after {
			want = append(want, name+" db/t")
		}
		equalPaths(t, "after a restart", o.heard(a, from, names), want...)
	}

	// An hour later nobody listens any more; who does then is told what comes from then on.
	a.stop()
	c.ms.Add(time.Hour.Milliseconds() + 1)
	a = a.reopen()
	c.ms.Add(5)
	o.run(b, "db", "INSERT INTO t VALUES('unheard')")
	a.pull(b.testStore, o.space)
	o.hears(a)
	o.rows(a, "db", "SELECT 1")
	c.ms.Add(5)
	names[o.run(a, "db", "INSERT INTO t VALUES('own')")] = "own"
	equalPaths(t, "later", o.heard(a, from, names), append(want, "own db/t")...)
	if _, ok := a.Listened(o.space, "sql"); !ok {
		t.Error("nobody listens")
	}
}

// A database of a Space that somebody listens to is followed though nobody asks it anything, also if its host has just begun.
func TestSQLToldUnasked(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); wg.Wait() }()
		arrive := func() {
			a.pull(b.testStore, o.space)
			a.sql.Changed(o.space)
		}
		from := o.hears(a)
		wg.Go(func() { a.sql.Follow(ctx, a.Store) })
		for i := range 3 {
			db := fmt.Sprint("db", i)
			c.ms.Add(5)
			o.run(b, db, "CREATE TABLE t(v)")
			arrive()
			for begin := time.Now(); len(since(t, a.testStore, []tinycloud.SpaceID{o.space}, from, 10)) <= i; {
				if time.Since(begin) > 30*time.Second {
					t.Fatalf("%s is not told of", db)
				}
			}
		}
		equalPaths(t, "unasked", o.heard(a, from, nil), "db0/t", "db1/t", "db2/t")
	})
}

// Who listens for good is listened to for good; when nobody does any more, it ends an hour later.
func TestListening(t *testing.T) { everywhere(t, testListening) }

func testListening(t *testing.T) {
	c := newClock()
	o := newAuthor(t, c)
	path := newDatabase(t)
	a := openSQL(t, "a", c, path, t.TempDir())
	o.member(a.testStore)
	a.delegate(o.header)
	ctx := t.Context()
	lasting := true
	lasts := func(space tinycloud.SpaceID, name string) (bool, error) {
		return lasting && space == o.space && name == "sql", nil
	}
	hears := func(when string, want bool) {
		t.Helper()
		if _, ok := a.Listened(o.space, "sql"); ok != want || (len(a.ListenedSpaces("sql")) == 1) != want {
			t.Errorf("%s: it is listened to: %v", when, ok)
		}
	}
	hears("at first", false)
	if err := a.Listen(ctx, o.space, "sql", true); err != nil {
		t.Fatal(err)
	}
	if err := a.Listening(ctx, lasts); err != nil {
		t.Fatal(err)
	}
	if path != capstore.InMemory {
		a = a.reopen()
		c.ms.Add(48 * time.Hour.Milliseconds())
		hears("two days after a restart", true)
	} else {
		a.Unlisten(o.space, "sql", true)
	}
	lasting = false
	if err := a.Listening(ctx, lasts); err != nil {
		t.Fatal(err)
	}
	hears("when nobody does any more", true)
	c.ms.Add(time.Hour.Milliseconds() + 1)
	hears("an hour later", false)
	if err := a.Listening(ctx, lasts); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Listen(ctx, o.space, "sql", false); err != nil {
			t.Fatal(err)
		}
	}
	c.ms.Add(2 * time.Hour.Milliseconds())
	a.Unlisten(o.space, "sql", false)
	hears("by one of two streams", true)
	a.Unlisten(o.space, "sql", false)
	hears("two hours without a word of who listens", false)
	if err := a.Listen(ctx, o.space, "kv", false); err != nil { // the history tells of keys
		t.Fatal(err)
	}
	hears("of keys", false)
}

// Processes that share a database tell what any of them carried out, each once, in one order. One of them that listens tells
// what was written at another, to which nobody listens.
func TestSQLToldByProcesses(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		o := newAuthor(t, c)
		a, b := openSQL(t, "one", c, url, t.TempDir()), openSQL(t, "one", c, url, t.TempDir())
		o.member(a.testStore)
		a.delegate(o.header)
		o.run(a, "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
		from := o.hears(b)
		if _, ok := a.Listened(o.space, "sql"); ok {
			t.Error("it is listened to at the other process")
		}
		var want []string
		names := map[string]string{}
		for i := range 12 {
			c.ms.Add(5)
			s, name := []*sqlStore{a, b}[i%2], fmt.Sprint(i)
			names[o.run(s, "db", "INSERT INTO t(v) VALUES("+name+")")] = name
			if i%4 == 3 {
				o.rows(b, "db", "SELECT 1")
			}
			want = append(want, name+" db/t")
		}
		if err := o.failing(b); err == nil {
			t.Error("the same value twice")
		}
		c.ms.Add(5)
		names[o.run(a, "db", "DELETE FROM t")] = "last"
		o.rows(b, "db", "SELECT 1")
		o.rows(a, "db", "SELECT 1")
		equalPaths(t, "told", o.heard(b, from, names), append(want, "last db/t")...)
		equalPaths(t, "as the other process reads it", o.heard(a, from, names), append(want, "last db/t")...)
		for _, s := range []*sqlStore{a, b} {
			for begin := time.Now(); len(s.written()) < len(want)+1; {
				if time.Since(begin) > 20*time.Second {
					t.Fatalf("a process is told of %d", len(s.written()))
				}
			}
			equalChanges(t, "streams", s.written(), since(t, s.testStore, []tinycloud.SpaceID{o.space}, from, 100))
		}
	})
}

func (o author) failing(s *sqlStore) error {
	_, err := o.ask(s, "db", execute("INSERT INTO t(v) VALUES(1)"), "write")
	return err
}

// A write that failed when it was carried out first is told when it succeeds, behind another that came later.
func TestSQLToldWhenItSucceeds(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a", "b", "x")
		a, b, x := stores[0], stores[1], stores[2]
		o.run(a, "db", "CREATE TABLE t(v UNIQUE)")
		o.exchange(a, b, x)
		from := o.hears(a)
		names, write := o.naming(c)
		write(a, "first", "INSERT INTO t VALUES(1)")
		b.pull(a.testStore, o.space)
		write(b, "between", "DELETE FROM t")
		write(x, "again", "INSERT INTO t VALUES(1)")
		a.pull(x.testStore, o.space)
		if got := o.rows(a, "db", "SELECT count(*) FROM t"); got != "[[1]]" {
			t.Errorf("a has %s", got)
		}
		equalPaths(t, "while it fails", o.heard(a, from, names), "first db/t")
		a.pull(b.testStore, o.space)
		o.rows(a, "db", "SELECT 1")
		equalPaths(t, "when it succeeds", o.heard(a, from, names), "first db/t", "between db/t", "again db/t")
		a.sound()
	})
}

// What comes late is told when it is carried out, at once or aside.
func TestSQLToldLater(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "aside": time.Nanosecond} {
		t.Run(name, func(t *testing.T) {
			t.Run(onMemory, func(t *testing.T) { testSQLToldLater(t, wait) })
		})
	}
}

func testSQLToldLater(t *testing.T, longest time.Duration) {
	c := newClock()
	o := newAuthor(t, c)
	stores, _ := o.writers(t, "a", "b", "x")
	a, b, x := stores[0], stores[1], stores[2]
	fresh := sql.New(sql.Options{Dir: t.TempDir(), Wait: longest})
	t.Cleanup(func() { _ = fresh.Close() })
	a.sql = fresh
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { a.sql.Follow(ctx, a.Store) })
	o.run(a, "db", "CREATE TABLE t(v)")
	o.exchange(a, b, x)
	from := o.hears(a)
	names, write := o.naming(c)
	write(b, "table", "CREATE TABLE u(v)")
	x.pull(b.testStore, o.space)
	write(x, "row", "INSERT INTO u SELECT count(*) FROM t")
	write(a, "own", "ALTER TABLE t RENAME TO u") // at a, where there is no u; behind the others it fails
	write(a, "second", "CREATE TABLE IF NOT EXISTS t(v)")
	write(a, "third", "INSERT INTO t VALUES(3)")
	a.pull(b.testStore, o.space)
	a.pull(x.testStore, o.space)
	a.sql.Changed(o.space)
	for begin := time.Now(); len(o.toldOf(a, from)) < 5; {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("told of %v", o.heard(a, from, names))
		}
	}
	// The second changes nothing behind the others; that it did is told all the same.
	equalPaths(t, "told", o.heard(a, from, names), "own db/t", "second db/t", "third db/t", "table db/u", "row db/u")
	o.exchange(a, b, x)
	o.same("db", "SELECT (SELECT group_concat(v) FROM t), (SELECT group_concat(v) FROM u)", a, b, x)
}

func (o author) toldOf(s *sqlStore, from capstore.Cursor) []capstore.Change {
	return since(s.t, s.testStore, []tinycloud.SpaceID{o.space}, from, 100)
}
