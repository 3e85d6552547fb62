package capstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// twins are two processes of one host.
func (o author) twins(t *testing.T) (a, b *sqlStore) {
	t.Helper()
	url := newDatabase(t)
	a, b = openSQL(t, "one", o.clock, url, t.TempDir()), openSQL(t, "one", o.clock, url, t.TempDir())
	o.member(a.testStore)
	a.delegate(o.header)
	return a, b
}

// send2 is send with a token of its own, and fails the test.
func (o author) send2(t *testing.T, s *sqlStore, store service.Store, path, body, ability string) string {
	t.Helper()
	out, _, err := o.send(t.Context(), s.sql, store, o.sqlToken(t, path, ability), body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Two processes of one host have a database each of their own, and answer as one.
func TestSQLProcesses(t *testing.T) {
	onServers(t, func(t *testing.T) {
		o := newAuthor(t, newClock())
		a, b := o.twins(t)
		for _, scene := range []struct {
			name string
			run  func(*testing.T, string, *sqlStore, *sqlStore)
		}{
			{"in-turn", o.inTurn},
			{"see-what-is-durable", o.seeWhatIsDurable},
			{"do-nothing", o.doNothing},
			{"race", o.raceEachOther},
			{"aside", o.replayAside},
		} {
			t.Run(scene.name, func(t *testing.T) { scene.run(t, scene.name, a, b) })
		}
		a.sound()
		b.sound()
	})
}

// Each process has at once what the other was answered, builds on it, and knows what became of it.
func (o author) inTurn(t *testing.T, db string, a, b *sqlStore) {
	o.run(a, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
	for i := range 20 {
		s, other := a, b
		if i%2 == 1 {
			s, other = b, a
		}
		epoch := o.run(s, db, fmt.Sprintf("INSERT INTO t(v) SELECT count(*) || ' of %s' FROM t", []string{"a", "b"}[i%2]))
		if got, want := o.rows(other, db, "SELECT count(*), max(id) FROM t"), fmt.Sprintf("[[%d,%d]]", i+1, i+1); got != want {
			t.Fatalf("%d: %s, want %s", i, got, want)
		}
		w, err := o.ask(other, db, `{"action":"outcome","epoch":"`+epoch+`"}`, "read")
		if err != nil || !strings.HasPrefix(w.Body.String(), `{"applied":true,`) {
			t.Errorf("outcome of %s: %v %v", epoch, w, err)
		}
	}
	o.same(db, "SELECT * FROM t ORDER BY id", a, b)
}

// What another process was seen to answer with is seen here too, even if this process made it durable and has answered nobody.
func (o author) seeWhatIsDurable(t *testing.T, db string, a, b *sqlStore) {
	o.run(a, db, "CREATE TABLE t(v)")
	o.rows(a, db, "SELECT * FROM t")
	durable, goOn := make(chan struct{}), make(chan struct{})
	store := between{Store: a.Store, perform: func(ctx context.Context, all []service.Request) []error {
		defer func() { <-goOn }()
		defer close(durable)
		return a.PerformAll(ctx, all)
	}}
	tok := o.sqlToken(t, db, "write")
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := o.send(t.Context(), a.sql, store, tok, execute("INSERT INTO t VALUES(1)")); err != nil {
			t.Error(err)
		}
	})
	<-durable
	const count = "SELECT count(*) FROM t"
	if got := o.rows(b, db, count); got != "[[1]]" {
		t.Errorf("b has %s", got)
	}
	answer := make(chan string, 1)
	tok = o.sqlToken(t, db, "read")
	wg.Go(func() {
		out, _, err := o.send(t.Context(), a.sql, a.Store, tok, query(count))
		if err != nil {
			t.Error(err)
		}
		answer <- out
	})
	select {
	case out := <-answer:
		answer <- out
	case <-time.After(200 * time.Millisecond): // it waits, as it should
	}
	close(goOn)
	if out := <-answer; !strings.Contains(out, "[[1]]") {
		t.Errorf("then a has %s", out)
	}
	wg.Wait()
}

// A request that does nothing is answered by what was there when it came: another process may have written since the one that
// answers looked.
func (o author) doNothing(t *testing.T, db string, a, b *sqlStore) {
	o.run(a, db, "CREATE TABLE t(v)")
	o.run(a, db, "INSERT INTO t VALUES(1)")
	o.run(b, db, "UPDATE t SET v = 1 WHERE v = 2")
	asked := 0
	late := lateStore{a.Store, func() {
		if asked++; asked == 2 { // the first time is when the request comes
			o.run(b, db, "UPDATE t SET v = 2")
		}
	}}
	if got := o.send2(t, a, late, db, execute("UPDATE t SET v = 3 WHERE v = 2"), "write"); !strings.Contains(got, `"changes":1`) {
		t.Errorf("%s, though the other had written", got)
	}
	if got := o.rows(a, db, "SELECT v FROM t"); got != "[[3]]" {
		t.Errorf("a has %s", got)
	}
}

// lateStore is a store on which something happens after a database has followed it, before requests run: then it asks for the
// time.
type lateStore struct {
	service.Store
	happen func()
}

func (l lateStore) Now() time.Time {
	l.happen()
	return l.Store.Now()
}

// holding is a store whose log may be held.
type holding struct {
	service.Store
	looks atomic.Int64
	log   func()
}

func (h *holding) Log(ctx context.Context, space tinycloud.SpaceID, name, about string, f func(service.Log) error) error {
	h.log()
	return h.Store.Log(ctx, space, name, about, f)
}

// However often another process comes in between, a write is answered by what it did where it stands.
func (o author) raceEachOther(t *testing.T, db string, a, b *sqlStore) {
	o.run(a, db, "CREATE TABLE t(v)")
	o.run(a, db, "INSERT INTO t VALUES(0)")
	tries := 0
	store := between{Store: a.Store, perform: func(ctx context.Context, all []service.Request) []error {
		switch tries++; {
		case tries < 5:
			o.run(b, db, "UPDATE t SET v = v + 2")
		case tries == 5:
			o.run(b, db, "UPDATE t SET v = 1")
		}
		return a.PerformAll(ctx, all)
	}}
	if got := o.send2(t, a, store, db, execute("UPDATE t SET v = v + 10 WHERE v % 2 = 0"), "write"); !strings.Contains(got, `"changes":0`) {
		t.Errorf("%s of a row that another had changed, after %d tries", got, tries)
	}
	if got := o.rows(b, db, "SELECT v FROM t"); got != "[[1]]" {
		t.Errorf("b has %s", got)
	}
}

// While the writes of another host are replayed aside, those of another process of this host are not: they were answered.
func (o author) replayAside(t *testing.T, db string, a, b *sqlStore) {
	x := *a
	a = &x
	a.sql = sql.New(sql.Options{Dir: t.TempDir(), Wait: time.Millisecond})
	t.Cleanup(func() { _ = a.sql.Close() })
	early := openSQL(t, "early", o.clock, newDatabase(t), t.TempDir())
	o.member(early.testStore)
	pull := func() {
		early.pull(a.testStore, o.space)
		a.pull(early.testStore, o.space)
	}
	pull()
	pull()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	goOn := make(chan struct{})
	defer close(goOn)
	began := make(chan struct{})
	wg.Go(func() { a.sql.Follow(ctx, a.Store) })
	o.run(a, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	o.clock.ms.Add(5)
	pull()
	o.run(early, db, "INSERT INTO t(v) VALUES('early')")
	for i := range 60 {
		o.clock.ms.Add(5)
		o.run(a, db, fmt.Sprintf("INSERT INTO t(v) VALUES('a %d')", i))
	}
	const count = "SELECT count(*) FROM t"
	held := &holding{Store: a.Store}
	held.log = func() {
		if held.looks.Add(1) == 2 { // the first is a request's, this the replay's
			close(began)
			<-goOn
		}
	}
	if got := o.send2(t, a, held, db, query(count), "read"); !strings.Contains(got, "[[60]]") {
		t.Fatalf("a has %s", got)
	}
	a.pull(early.testStore, o.space)
	if got := o.send2(t, a, held, db, query(count), "read"); !strings.Contains(got, "[[60]]") {
		t.Fatalf("a has %s: it is not replayed aside", got)
	}
	<-began
	o.send2(t, a, held, db, execute("INSERT INTO t(v) VALUES('beside')"), "write")
	if got := o.send2(t, a, held, db, query(count), "read"); !strings.Contains(got, "[[61]]") {
		t.Errorf("a has %s beside the replay", got)
	}
	o.run(b, db, "INSERT INTO t(v) VALUES('of b')")
	if got := o.send2(t, a, held, db, query(count), "read"); !strings.Contains(got, "[[63]]") {
		t.Errorf("a has %s, without what b wrote", got)
	}
}
