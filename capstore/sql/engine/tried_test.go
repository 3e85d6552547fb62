package engine_test

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// Requests that are tried one on top of the other come to what they come to one by one, whichever of them fail, change nothing,
// take the transaction with them or are taken back, and however many of them count in the end.
func TestTriedTogether(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	together, apart := newHost(t, engine.Options{}), newHost(t, engine.Options{})
	begin := operation(1, stmt("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, n DEFAULT 0)"))
	together.follow([]engine.Op{begin}, 0)
	apart.follow([]engine.Op{begin}, 0)
	statements := []string{
		"INSERT INTO t(b) VALUES(%d)", "INSERT OR ROLLBACK INTO t(b) VALUES(%d)", "INSERT OR IGNORE INTO t(b) VALUES(%d)", "DELETE FROM t WHERE b = %d",
		"UPDATE t SET n = n + 1 WHERE b < %d", "CREATE TABLE IF NOT EXISTS x%d(a)", "DROP TABLE IF EXISTS x%d", "CREATE TABLE x%d(a)", "INSERT INTO t(b) SELECT b + %d FROM t LIMIT 40",
	}
	for i := uint64(10); i < 2000; {
		var stack []engine.Op
		var results []engine.Result
		for range 1 + rng.Intn(12) {
			i++
			op := operation(i, stmt(fmt.Sprintf(statements[rng.Intn(len(statements))], rng.Intn(30))))
			res := together.try(op)
			switch {
			case res.Err != nil || !res.Changed:
			case rng.Intn(8) == 0:
				if err := together.Untry(); err != nil {
					t.Fatal(err)
				}
			default:
				stack, results = append(stack, op), append(results, res)
			}
		}
		n := len(stack)
		if rng.Intn(3) == 0 && n > 0 {
			n = rng.Intn(n)
		}
		for k := range stack[:n] {
			together.Take(&stack[k])
			res := apart.try(stack[k])
			if fmt.Sprint(res) != fmt.Sprint(results[k]) {
				t.Fatalf("%s: %+v together, %+v apart", stack[k].Request.Statements[0].SQL, results[k], res)
			}
			apart.Take(&stack[k])
			if err := apart.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := together.Commit(); err != nil {
			t.Fatal(err)
		}
		a, err := together.Hash(t.Context())
		b, err2 := apart.Hash(t.Context())
		pos, digest := together.Position()
		pos2, digest2 := apart.Position()
		if err != nil || err2 != nil || a != b || pos != pos2 || digest != digest2 {
			t.Fatalf("%v %v: %v at %d together, %v at %d apart", err, err2, a, pos, b, pos2)
		}
	}
}

// A request whose time has ended, and that takes the transaction with it, does not stop what is made anew of those before it.
func TestMadeAnewWhenTimeHasEnded(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(a UNIQUE)"))}, 0)
	long := operation(2, stmt("WITH ten AS (SELECT value AS i FROM json_each('[0,1,2,3,4,5,6,7,8,9]')) INSERT INTO t SELECT a.i*100 + b.i*10 + c.i FROM ten a, ten b, ten c"))
	if res := h.try(long); res.Err != nil {
		t.Fatal(res.Err)
	}
	h.Interrupt()
	if res := h.try(operation(3, stmt("INSERT OR ROLLBACK INTO t VALUES(5)"))); res.Err == nil || res.Err.Error() != "SQLite error: UNIQUE constraint failed: t.a" {
		t.Errorf("the second: %v", res.Err)
	}
	h.Take(&long)
	if err := h.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := h.query("SELECT count(*) FROM t"); got != "[[1000]]" {
		t.Errorf("rows %s", got)
	}
}
