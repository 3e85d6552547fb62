package engine_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

func (h *host) try(op engine.Op) engine.Result {
	h.t.Helper()
	res, err := h.Try(h.t.Context(), &op)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

func (h *host) query(sql string, params ...any) string {
	h.t.Helper()
	b, err := h.ask2(sql, params...)
	if err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
	_, rows, _ := strings.Cut(string(b), `"rows":`)
	return strings.TrimSuffix(rows, "}")
}

func (h *host) ask2(sql string, params ...any) ([]byte, error) {
	q := &request.Request{Action: request.Query, Statements: []request.Statement{stmt(sql, params...)}}
	return h.Query(h.t.Context(), q, gate.Reads, nil)
}

// What is tried stays in the transaction, counts once it is taken, and is there for all once it is committed.
func TestTry(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(a UNIQUE)"))}, 0)
	a, b := operation(2, stmt("INSERT INTO t VALUES(1)")), operation(3, stmt("INSERT INTO t VALUES(1)"))
	if res := h.try(a); res.Err != nil || !res.Changed || string(res.Answer) != `{"columns":[],"rowCount":0,"rows":[]}` || len(res.Touched) != 1 || res.Touched[0] != "t" {
		t.Errorf("the first: %+v", res)
	}
	h.Take(&a)
	if res := h.try(b); res.Err == nil || res.Changed || res.Err.Error() != "SQLite error: UNIQUE constraint failed: t.a" {
		t.Errorf("one that fails: %+v", res)
	}
	if got := h.query("SELECT count(*) FROM t"); got != "[[0]]" {
		t.Errorf("before the commit others see %s", got)
	}
	if err := h.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := h.query("SELECT count(*) FROM t"); got != "[[1]]" {
		t.Errorf("after it %s", got)
	}
	c := operation(4, stmt("INSERT INTO t VALUES(2)"))
	h.try(c)
	h.Take(&c)
	if pos, _ := h.Position(); pos != 3 {
		t.Errorf("at %d", pos)
	}
	if err := h.Rollback(); err != nil {
		t.Fatal(err)
	}
	if pos, digest := h.Position(); pos != 2 || digest != engine.Next(engine.Next(tinycloud.Hash{}, operation(1).Key), a.Key) {
		t.Errorf("at %d after the rollback", pos)
	}
	if res := h.try(operation(5, stmt("INSERT INTO t VALUES(2)"))); res.Err != nil {
		t.Errorf("what was rolled back is there: %v", res.Err)
	}
}

// A request that changes no page is no operation, whatever its statements are; one that changes a page is one.
func TestChanged(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE)"), stmt("CREATE TABLE big(x)"), stmt("INSERT INTO t(a) VALUES(1)"))}, 0)
	for sql, want := range map[string]bool{
		"CREATE TABLE IF NOT EXISTS t(x)": false, "CREATE INDEX IF NOT EXISTS i ON t(a)": true, "DROP TABLE IF EXISTS none": false, "DELETE FROM t WHERE a = 5": false,
		"UPDATE t SET a = 2 WHERE a = 7": false, "UPDATE t SET a = 2": true, "INSERT INTO big VALUES(zeroblob(9000))": true, "PRAGMA user_version = 4": true,
		"INSERT INTO t(a) SELECT 1 WHERE 0": false, "INSERT OR IGNORE INTO big SELECT 1 WHERE 0": false, "DROP TABLE big": true, "ALTER TABLE t ADD COLUMN z": true,
	} {
		if res := h.try(operation(2, stmt(sql))); res.Err != nil || res.Changed != want {
			t.Errorf("%s: changed %v, %v", sql, res.Changed, res.Err)
		}
		if err := h.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// ON CONFLICT ROLLBACK takes the transaction with it, and not the operations in it.
func TestRollbackOfTheTransaction(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(a UNIQUE)"))}, 0)
	for i := range 5 {
		op := operation(uint64(10+i), stmt("INSERT INTO t VALUES(?)", int64(i)))
		if res := h.try(op); res.Err != nil {
			t.Fatal(res.Err)
		}
		h.Take(&op)
		if res := h.try(operation(uint64(20+i), stmt("INSERT INTO t VALUES(77)"), stmt("INSERT OR ROLLBACK INTO t VALUES(0)"))); res.Err == nil {
			t.Error("it did not fail")
		}
	}
	if err := h.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := h.query("SELECT count(*), max(a) FROM t"); got != "[[5,4]]" {
		t.Errorf("what is there: %s", got)
	}
}

// Reads run with the machine's clock and cannot write, whatever they try; no read says where the files are.
func TestQuery(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(a)"), stmt("INSERT INTO t VALUES(CAST(x'61e462' AS TEXT))"))}, 0)
	if got := h.query("SELECT file, name FROM pragma_database_list"); got != `[["","main"]]` {
		t.Errorf("the list of databases is %s", got)
	}
	if got := h.query("SELECT a, abs(unixepoch('now') - ?) < 100, strftime('%s', 'now', 'localtime') > 0 FROM t", time.Now().Unix()); got != "[[\"a\ufffdb\",1,1]]" {
		t.Errorf("row %s", got)
	}
	q := &request.Request{Action: request.Query, Statements: []request.Statement{stmt("INSERT INTO t VALUES(1)")}}
	if _, err := h.Query(t.Context(), q, gate.Admin, nil); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Errorf("a read that writes: %v", err)
	}
	for _, sql := range []string{"SELECT * FROM sqlite_dbpage", "SELECT * FROM pragma_function_list", "SELECT load_extension('x')", "SELECT sqlite_offset(a) FROM t", "SELECT ? LIKE '" + strings.Repeat("%a", 200) + "'"} {
		var params []any
		if strings.Contains(sql, "?") {
			params = []any{"x"}
		}
		if _, err := h.ask2(sql, params...); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%.60s: %v", sql, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	q.Statements[0] = stmt("SELECT count(*) FROM json_each(json_array(1,2,3,4,5,6,7,8,9)) a, json_each(a.json) b, json_each(a.json) c, json_each(a.json) d, json_each(a.json) e, json_each(a.json) f, json_each(a.json) g, json_each(a.json) h")
	if _, err := h.Query(ctx, q, gate.Reads, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a long read: %v", err)
	}
	if got := h.query("SELECT 1"); got != "[[1]]" {
		t.Errorf("and then: %s", got)
	}
}

// A writing statement reads nothing that is not the same on every host.
func TestWritesAreTheSameEverywhere(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(a)"))}, 0)
	for _, from := range []string{
		"file FROM pragma_database_list", "name FROM pragma_table_info('t')", "name FROM dbstat", "data FROM sqlite_dbpage", "sqlite_version()", "sqlite_source_id()",
		"sqlite_compileoption_used('x')", "sqlite_offset(a) FROM t", "sin(1)", "date('now', 'localtime')", "datetime(0, 'unixepoch', 'UTC')", "sql FROM sqlite_stmt", "i FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n)",
	} {
		if res := h.try(operation(2, stmt("INSERT INTO t SELECT "+from))); res.Err == nil {
			t.Errorf("%s is allowed", from)
		}
	}
	for _, from := range []string{"value FROM json_each('[1]')", "name FROM sqlite_schema", "CURRENT_TIMESTAMP"} {
		if res := h.try(operation(2, stmt("INSERT INTO t SELECT "+from))); res.Err != nil {
			t.Errorf("%s: %v", from, res.Err)
		}
	}
}

// A connection does not take one schema for another that has its number: after a rewind over a change of the schema, columns
// are those that are there.
func TestSchemaOfTheSameNumber(t *testing.T) {
	h := newHost(t, engine.Options{Group: 1})
	log := []engine.Op{operation(1, stmt("CREATE TABLE x(k)")), operation(2, stmt("CREATE TABLE t(a, b)"), stmt("INSERT INTO t VALUES('a', 'b')"))}
	h.follow(log, 0)
	if got := h.query("SELECT b FROM t"); got != `[["b"]]` {
		t.Fatal(got)
	}
	log = []engine.Op{log[0], operation(3, stmt("CREATE TABLE t(b, a)"), stmt("INSERT INTO t VALUES('b2', 'a2')"))}
	h.follow(log, 1)
	if got := h.query("SELECT b FROM t"); got != `[["b2"]]` {
		t.Errorf("column b is %s", got)
	}
}

// A read that a rewind stops runs again on a copy, and never sees half of it.
func TestReadAcrossRewind(t *testing.T) {
	h := newHost(t, engine.Options{Group: 1})
	log := []engine.Op{operation(1, stmt("CREATE TABLE t(a)"))}
	for i := range 30 {
		log = append(log, operation(uint64(2+i), stmt("INSERT INTO t VALUES(1), (1)")))
	}
	h.follow(log, 0)
	done := make(chan error)
	go func() {
		q := &request.Request{Action: request.Query, Statements: []request.Statement{stmt("SELECT count(*) % 2, count(*) > 0 FROM t a, t b, t c WHERE a.a + b.a + c.a > 0")}}
		for range 6 {
			b, err := h.Query(context.WithoutCancel(t.Context()), q, gate.Reads, nil)
			if err == nil && !strings.Contains(string(b), `"rows":[[0,1]]`) {
				err = errors.New(string(b))
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for n := uint64(100); ; n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			at := len(log) - 5
			log = append(append(append([]engine.Op{}, log[:at]...), operation(n, stmt("INSERT INTO t VALUES(1), (1)"))), log[at:len(log)-1]...)
			h.follow(log, at)
		}
	}
}

func TestExport(t *testing.T) {
	h := newHost(t, engine.Options{})
	h.follow([]engine.Op{operation(1, stmt("CREATE TABLE t(a)"), stmt("INSERT INTO t VALUES('kept'), ('a secret')"), stmt("DELETE FROM t WHERE a = 'a secret'"))}, 0)
	path := filepath.Join(t.TempDir(), "export.db")
	if err := h.Export(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(b), "a secret") {
		t.Errorf("export has what was deleted, %v", err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var got string
	if err := db.QueryRowContext(t.Context(), "SELECT group_concat(a) FROM t").Scan(&got); err != nil || got != "kept" {
		t.Errorf("export has %q, %v", got, err)
	}
	if n, err := h.Size(t.Context()); err != nil || n != 2*4096 {
		t.Errorf("size %d, %v", n, err)
	}
}

// An export that is more than a connection keeps in memory is written and read again while it is made.
func TestLongExport(t *testing.T) {
	h := newHost(t, engine.Options{FoldAt: 1000})
	log := []engine.Op{operation(1, stmt("CREATE TABLE t(a, b)"), stmt("CREATE INDEX i ON t(b, a)"))}
	for i := range 30 {
		log = append(log, operation(uint64(2+i), stmt("INSERT INTO t SELECT zeroblob(100000), hex(randomblob(500)) FROM json_each('[1,2,3]')")))
	}
	h.follow(log, 0)
	path := filepath.Join(t.TempDir(), "export.db")
	if err := h.Export(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() < 9_000_000 {
		t.Errorf("%v %v", info, err)
	}
}

// Rules that are not known run nothing.
func TestUnknownRules(t *testing.T) {
	h := newHost(t, engine.Options{})
	op := operation(1, stmt("CREATE TABLE t(a)"))
	op.Rules = engine.Newest + 1
	if _, err := h.Try(t.Context(), &op); !errors.Is(err, tinycloud.ErrUnsupported) {
		t.Error(err)
	}
}
