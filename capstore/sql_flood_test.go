package capstore_test

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// A host whose log forks at each entry, and that writes a new database with each of the branches, takes up no more than what it
// sends. The honest ones go on, agree, and keep few databases open. SQL_FLOOD is how many branches there are.
func TestSQLFlood(t *testing.T) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("SQL_FLOOD"), "150"))
	if err != nil {
		t.Fatal(err)
	}
	o := newAuthor(t, newClock())
	stores, _ := o.writers(t, "a", "b")
	a, b := stores[0], stores[1]
	o.run(a, "db", "CREATE TABLE t(v)")
	o.exchange(a, b)
	l := newLiar(o.owner)
	l.welcome(t, a.testStore)
	heads := a.status(o.space).Heads
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, sent, slowest := memory(), 0, time.Duration(0)
	for i := range n {
		o.clock.ms.Add(1)
		fork := l.raw(o.clock.now(), heads, o.sqlToken(t, "db", "write").Bytes, statement(t, "db", o.clock.now(), 1, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))...)
		name := fmt.Sprint("flood/", i)
		other := l.raw(o.clock.now(), heads, o.sqlToken(t, name, "write").Bytes, statement(t, name, o.clock.now(), 1, "CREATE TABLE t(v)")...)
		for _, x := range []hostlog.Bundle{fork, other} { // none becomes the liar's last: all have one number
			sent += len(x.Epoch) + len(x.Events[0]) + len(x.Ops[0]) + len(x.Entry.Encode()) + len(x.Sig)
			if _, err := a.Apply(t.Context(), o.space, []hostlog.Bundle{x}); err != nil {
				t.Fatal(err)
			}
		}
		if i%(n/10) == 0 {
			begin := time.Now()
			o.run(a, "db", "INSERT INTO t VALUES('honest')")
			slowest = max(slowest, time.Since(begin))
		}
	}
	grown := int64(memory() - before)
	o.exchange(a, b)
	if got := o.same("db", "SELECT sum(v = 'honest') FROM t", a, b); got != "[[10]]" {
		t.Errorf("of ten honest writes there are %s", got)
	}
	list, err := a.sql.Databases(t.Context(), a.Store, o.space, false, 3*n)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d branches: %d KiB sent, %d databases; live memory %+d KiB; slowest write %s", 2*n, sent>>10, len(list), grown>>10, slowest)
	if most := int64(sent)*2 + 4<<20; grown > most {
		t.Errorf("memory grew by %d bytes, more than %d", grown, most)
	}
	a.sound()
	b.sound()
}
