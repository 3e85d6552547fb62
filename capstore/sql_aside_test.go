package capstore_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// reading is called before and after a database reads the log.
type reading struct {
	service.Store
	before, after func()
}

func (r reading) Log(ctx context.Context, space tinycloud.SpaceID, name, about string, f func(service.Log) error) error {
	r.before()
	defer r.after()
	return r.Store.Log(ctx, space, name, about, f)
}

// A replay that takes long is done aside: what was answered stays there to be read meanwhile, writes go on, and what comes in
// the end is what everybody has. So it is if the history becomes another while it is replayed.
func TestSQLReplaysAside(t *testing.T) {
	for name, more := range map[string]bool{"once": false, "and again": true} {
		t.Run(name, func(t *testing.T) {
			t.Run(onMemory, func(t *testing.T) { testSQLReplaysAside(t, more) })
		})
	}
}

func testSQLReplaysAside(t *testing.T, more bool) {
	c := newClock()
	o := newAuthor(t, c)
	stores, _ := o.writers(t, "a", "b", "early")
	a, b, early := stores[0], stores[1], stores[2]
	a.sql = sql.New(sql.Options{Dir: t.TempDir(), Wait: time.Millisecond})
	t.Cleanup(func() { _ = a.sql.Close() })
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { a.sql.Follow(ctx, a.Store) })
	o.run(a, "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
	c.ms.Add(5)
	o.exchange(stores...)
	o.run(early, "db", "INSERT INTO t(v) VALUES('earliest')")
	c.ms.Add(5)
	o.run(b, "db", "INSERT INTO t(v) VALUES('early'), ('twice')")
	const written = 60
	for i := range written {
		c.ms.Add(5)
		o.run(a, "db", fmt.Sprintf("INSERT INTO t(v) VALUES('a %d')", i))
	}
	const count = "SELECT count(*) FROM t"
	if got := o.rows(a, "db", count); got != fmt.Sprintf("[[%d]]", written) {
		t.Fatalf("a has %s", got)
	}
	a.pull(b.testStore, o.space)

	var looks atomic.Int64
	began, goOn := make(chan struct{}), make(chan struct{})
	store := reading{a.Store, func() {
		if looks.Add(1) == 2 { // the first was a request's
			close(began)
			<-goOn
		}
	}, func() {
		if more && looks.Load() == 4 { // by which it is there
			a.pull(early.testStore, o.space)
		}
	}}
	ask := func(body, ability string) string {
		out, _, err := o.send(t.Context(), a.sql, store, o.sqlToken(t, "db", ability), body)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	old := fmt.Sprintf(`{"columns":["count(*)"],"rowCount":1,"rows":[[%d]]}`, written)
	if got := ask(query(count), "read"); got != old {
		t.Fatalf("when it begins: %s", got)
	}
	<-began
	ask(execute("INSERT INTO t(v) VALUES('beside')"), "write")
	ask(execute("INSERT INTO t(v) VALUES('twice')"), "write") // it is not there yet, and is when all is here
	if got, want := ask(query(count), "read"), fmt.Sprintf(`{"columns":["count(*)"],"rowCount":1,"rows":[[%d]]}`, written+2); got != want {
		t.Fatalf("while it runs: %s, want %s", got, want)
	}
	close(goOn)
	want := written + 3
	if more {
		want++
	}
	for begin := time.Now(); ask(query(count), "read") != fmt.Sprintf(`{"columns":["count(*)"],"rowCount":1,"rows":[[%d]]}`, want); {
		if got := ask(query("SELECT count(*) FROM t WHERE v = 'beside'"), "read"); got != `{"columns":["count(*)"],"rowCount":1,"rows":[[1]]}` {
			t.Fatalf("what was answered is gone: %s", got)
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("it doesn't end: %s", ask(query(count), "read"))
		}
	}
	o.exchange(a, b, early)
	for o.rows(a, "db", count) != o.rows(b, "db", count) && t.Context().Err() == nil { // the last comes aside too
	}
	o.same("db", "SELECT * FROM t ORDER BY id", a, b, early)
	a.sound()
}

// An open database keeps up with what comes, without a request.
func TestSQLKeepsUp(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		o := newAuthor(t, newClock())
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		o.run(a, "db", "CREATE TABLE t(v)")
		o.exchange(a, b)
		ctx, cancel := context.WithCancel(t.Context())
		looked, ended := make(chan struct{}, 100), make(chan struct{})
		go func() {
			defer close(ended)
			a.sql.Follow(ctx, reading{a.Store, func() { looked <- struct{}{} }, func() {}})
		}()
		for i := range 3 {
			o.clock.ms.Add(5)
			o.run(b, "db", fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
			a.pull(b.testStore, o.space)
			for again := true; again; { // it may have begun to listen only now
				a.sql.Changed(o.space)
				select {
				case <-looked:
					again = false
				case <-time.After(10 * time.Millisecond):
				}
			}
			asked := reading{a.Store, func() { t.Error("the query had to look for what came") }, func() {}}
			got, _, err := o.send(t.Context(), a.sql, asked, o.sqlToken(t, "db", "read"), query("SELECT count(*) FROM t"))
			if want := fmt.Sprintf(`{"columns":["count(*)"],"rowCount":1,"rows":[[%d]]}`, i+1); err != nil || got != want {
				t.Errorf("%s %v, want %s", got, err, want)
			}
			for len(looked) > 0 {
				<-looked
			}
		}
		cancel()
		<-ended
	})
}
