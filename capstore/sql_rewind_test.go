package capstore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// Two hosts give one number to two schemas. Whoever has read by one of them reads by the other once they have met.
func TestSQLSchemasOfOneNumber(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		o.run(a, "db", "CREATE TABLE x(k)")
		c.ms.Add(5)
		o.exchange(a, b)
		o.run(b, "db", "CREATE TABLE t(b, a)")
		c.ms.Add(5)
		o.run(a, "db", "CREATE TABLE t(a, b)")
		o.run(a, "db", "INSERT INTO t VALUES('first', 'second')")
		if got := o.rows(a, "db", "SELECT b FROM t"); got != `[["second"]]` {
			t.Errorf("before: %s", got)
		}
		o.exchange(a, b)
		if got := o.same("db", "SELECT b FROM t", a, b); got != `[["first"]]` {
			t.Errorf("by the schema of the other: %s", got)
		}
		c.ms.Add(5)
		o.run(a, "db", "INSERT INTO t(a, b) VALUES('a', 'b')")
		o.exchange(a, b)
		if got := o.same("db", "SELECT a, b FROM t ORDER BY rowid", a, b); got != `[["second","first"],["a","b"]]` {
			t.Errorf("afterwards: %s", got)
		}
		a.sound()
		b.sound()
	})
}

// Clients read a database that goes back again and again under them, for another host writes before what is there: every answer is
// of a state that was.
func TestSQLReadsWhileItGoesBack(t *testing.T) {
	t.Run(onMemory, func(t *testing.T) {
		c := newClock()
		o := newAuthor(t, c)
		stores, _ := o.writers(t, "a", "b")
		a, b := stores[0], stores[1]
		o.run(a, "db", "CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB, half TEXT)")
		c.ms.Add(5)
		o.exchange(a, b)
		const insert = "INSERT INTO t(pad, half) VALUES(zeroblob(1500), 'one'), (zeroblob(1500), 'other')"
		tokens := make(chan *capstore.Token, 600)
		for range cap(tokens) {
			tokens <- o.sqlToken(t, "db", "read")
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		answers := 0
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case tok := <-tokens:
					w, err := o.use(a, tok, "db", `{"action":"query","sql":"SELECT count(*) % 2, sum(half = 'one') = sum(half = 'other') OR count(*) = 0 FROM t CROSS JOIN json_each('[1,2,3,4,5,6,7,8,9,10]') x CROSS JOIN json_each('[1,2,3,4,5,6,7,8,9,10]') y CROSS JOIN json_each('[1,2,3]') z"}`)
					if err == nil && !strings.Contains(w.Body.String(), `"rows":[[0,1]]`) {
						err = errors.New(w.Body.String())
					}
					if err != nil {
						t.Error(err)
						return
					}
					answers++
				default:
					return
				}
			}
		})
		for range 30 {
			o.run(b, "db", insert) // before what a writes, which a does not know yet
			c.ms.Add(2)
			o.run(a, "db", insert)
			o.rows(a, "db", "SELECT count(*) FROM t")
			c.ms.Add(2)
			a.pull(b.testStore, o.space)
		}
		close(stop)
		wg.Wait()
		o.exchange(a, b)
		if got := o.same("db", "SELECT count(*), max(id) FROM t", a, b); got != "[[120,120]]" || answers == 0 {
			t.Errorf("rows %s, %d answers", got, answers)
		}
		a.sound()
		b.sound()
	})
}
