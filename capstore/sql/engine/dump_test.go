package engine_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite" // database driver "sqlite"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// foreign makes a SQLite file by some statements. Its log is beside it, as that of a process that was killed.
func foreign(t testing.TB, statements ...string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "running.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=wal_autocheckpoint(0)")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	copied := filepath.Join(dir, "copy.db")
	for _, end := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + end)
		if err == nil {
			err = os.WriteFile(copied+end, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return copied
}

// sent is a chunk as a client sends it, read by a host.
func sent(t testing.TB, c engine.Chunk) *request.Request {
	t.Helper()
	type statement struct {
		SQL    string `json:"sql"`
		Params []any  `json:"params"`
	}
	var all []statement
	for _, q := range c.Statements {
		s := statement{q.SQL, []any{}}
		for _, p := range q.Params {
			if f, ok := p.(float64); ok {
				text := strconv.FormatFloat(f, 'g', -1, 64)
				if !strings.ContainsAny(text, ".e") {
					text += ".0"
				}
				p = json.RawMessage(text)
			}
			s.Params = append(s.Params, p)
		}
		all = append(all, s)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"action": "batch", "statements": all}); err != nil {
		t.Fatal(err)
	}
	q, err := request.Parse(b.Bytes())
	if err != nil {
		t.Fatalf("%d bytes: %v", b.Len(), err)
	}
	return &q
}

// listing is the schema and all rows of a file, with their types.
func listing(t *testing.T, path string, tables ...string) (out []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	each := func(query string) {
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				t.Fatal(err)
			}
			out = append(out, text)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	each("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema WHERE type <> 'trigger' AND name NOT LIKE 'sqlite_auto%' ORDER BY type, name")
	for _, x := range tables {
		each(x)
	}
	return out
}

var everything = []string{
	"SELECT rowid || ' ' || quote(a) || ' ' || typeof(b) || quote(b) FROM plain ORDER BY rowid",
	"SELECT quote(k) || quote(v) FROM keyed ORDER BY k", "SELECT id || quote(of) FROM child ORDER BY id", "SELECT id || quote(name) FROM parent ORDER BY id",
	"SELECT n || quote(twice) FROM made ORDER BY n", "SELECT name || seq FROM sqlite_sequence ORDER BY name", "SELECT _rowid_ || quote(rowid) FROM odd ORDER BY _rowid_",
	"SELECT quote(s) FROM seen",
}

// What a SQLite file holds comes to the same rows, through requests as clients send them. What can't is named.
func TestDump(t *testing.T) {
	path := foreign(t,
		"CREATE TABLE child(id INTEGER PRIMARY KEY AUTOINCREMENT, of INTEGER REFERENCES parent(id))",
		"CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
		"CREATE TABLE plain(a, b)", `CREATE TABLE keyed(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID`,
		"CREATE TABLE made(n INTEGER PRIMARY KEY, twice GENERATED ALWAYS AS (n * 2) STORED)", `CREATE TABLE odd("rowid" TEXT)`,
		"INSERT INTO parent VALUES(7, 'x'), (3, NULL), (9, 'ü''\"' || char(10))", "INSERT INTO child VALUES(5, 7), (6, NULL), (100, 3)", "DELETE FROM child WHERE id = 100",
		"INSERT INTO plain(rowid, a, b) VALUES(-5, 1, 1.0), (2, 9223372036854775807, -0.0), (900, x'00ff', 9e999), (901, '', -9e999), (902, CAST(x'ff80' AS TEXT), 0.1), (903, 'a' || char(0) || 'b', 1e300)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) INSERT INTO plain SELECT i, hex(zeroblob(i)) FROM n",
		"INSERT INTO plain VALUES('large', zeroblob(1048577)), ('medium', zeroblob(600000)), ('fits', zeroblob(200000))",
		"INSERT INTO keyed VALUES('b', x'01'), ('a', NULL)", "INSERT INTO made(n) VALUES(1), (21)", "INSERT INTO odd VALUES('r')",
		"CREATE VIEW seen AS SELECT name AS s FROM parent WHERE name = 'x'", "CREATE INDEX named ON parent(name)",
		"CREATE TRIGGER never AFTER INSERT ON plain BEGIN SELECT 1; END", "PRAGMA user_version = 7",
	)
	db, err := engine.Create(filepath.Join(t.TempDir(), "db"), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	n := 0
	out, err := engine.Dump(t.Context(), path, func(c engine.Chunk) error {
		n++
		op := engine.Op{Key: tinycloud.Sum([]byte{byte(n)}), Now: time.Now().UnixMilli(), Rules: engine.Newest, Request: sent(t, c), Held: gate.Writes | gate.Reads}
		if _, err := (&request.Operation{Now: op.Now, Rules: op.Rules, Request: *op.Request}).Encode("db"); err != nil {
			t.Errorf("chunk %d: %v", n, err)
		}
		res, err := db.Try(t.Context(), &op)
		if err != nil || res.Err != nil {
			return errors.Join(err, res.Err)
		}
		db.Take(&op)
		return db.Commit()
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PRAGMA user_version = 7: who may do all has to set it", `trigger "never": there is no such thing here`,
		`table "plain", row 2405: a row of 1200115 bytes as it would be sent, of at most 900000`, `table "plain", row 2404: a cell of 1048577 bytes, of at most 1048576`,
	}
	if diff := cmp.Diff(want, out.Odd); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if out.Tables != 6 || out.Rows != 3+2+6+1501+2+2+1 || out.More != 4 {
		t.Errorf("%d tables, %d rows, %d odd", out.Tables, out.Rows, out.More)
	}
	exported := filepath.Join(t.TempDir(), "exported.db")
	if err := db.Export(t.Context(), exported); err != nil {
		t.Fatal(err)
	}
	wanted, got := listing(t, path, everything...), listing(t, exported, everything...)
	wanted = without(wanted, "2404 'large'", "2405 'medium'")
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("-file +database:\n%.4000s", diff)
	}
}

func without(list []string, prefixes ...string) (out []string) {
	for _, x := range list {
		drop := false
		for _, p := range prefixes {
			drop = drop || strings.HasPrefix(x, p)
		}
		if !drop {
			out = append(out, x)
		}
	}
	return out
}

// Long values among many rows of many columns don't take more steps than a request may: each such value lets it take fewer.
func TestDumpWithinSteps(t *testing.T) {
	columns := make([]string, 40)
	for i := range columns {
		columns[i] = "c" + strconv.Itoa(i)
	}
	path := foreign(t, "CREATE TABLE wide(id INTEGER PRIMARY KEY AUTOINCREMENT, "+strings.Join(columns, ", ")+", UNIQUE(c1), UNIQUE(c2, c3))",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO wide(c1, c2, c3) SELECT i, i, i FROM n",
		"UPDATE wide SET c4 = hex(zeroblob(20000)) WHERE id % 400 = 7", "UPDATE wide SET c5 = zeroblob(150000) WHERE id = 500")
	db, err := engine.Create(filepath.Join(t.TempDir(), "db"), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	n := uint64(0)
	out, err := engine.Dump(t.Context(), path, func(c engine.Chunk) error {
		n++
		op := engine.Op{Key: tinycloud.Sum([]byte(strconv.Itoa(int(n)))), Now: time.Now().UnixMilli(), Rules: engine.Newest, Request: sent(t, c), Held: gate.Writes | gate.Reads}
		res, err := db.Try(t.Context(), &op)
		if err != nil || res.Err != nil {
			return errors.Join(err, res.Err)
		}
		db.Take(&op)
		return db.Commit()
	})
	if err != nil || out.Rows != 900 || out.More != 0 {
		t.Errorf("%+v, %v, after %d chunks", out, err, n)
	}
}

// What is no SQLite file, or a damaged one, makes nothing and ends; an error of who takes the chunks ends it too.
func TestDumpOfNone(t *testing.T) {
	whole, err := os.ReadFile(foreign(t, "CREATE TABLE t(v)", "INSERT INTO t VALUES(zeroblob(20000))", "PRAGMA wal_checkpoint(TRUNCATE)"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	copy(damaged[4096:], bytes.Repeat([]byte{0xff}, 200))
	for name, b := range map[string][]byte{"empty": nil, "text": []byte(strings.Repeat("text", 2000)), "cut": whole[:5000], "damaged": damaged} {
		path := filepath.Join(t.TempDir(), "file.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Dump(t.Context(), path, func(engine.Chunk) error { return nil }); !errors.Is(err, engine.ErrNotSQLite) {
			t.Errorf("%s: %v", name, err)
		}
	}
	boom := errors.New("boom")
	if _, err := engine.Dump(t.Context(), foreign(t, "CREATE TABLE t(v)"), func(engine.Chunk) error { return boom }); !errors.Is(err, boom) || errors.Is(err, engine.ErrNotSQLite) {
		t.Errorf("not taken: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := engine.Dump(ctx, foreign(t, "CREATE TABLE t(v)"), func(engine.Chunk) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// Whatever bytes a file has, it is read or refused, in bounded time.
func FuzzDump(f *testing.F) {
	path := foreign(f, "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c AS (b || 'x'))", "CREATE TABLE u(k PRIMARY KEY, v REFERENCES t(a)) WITHOUT ROWID",
		"INSERT INTO t(b) VALUES('one'), (2), (x'03')", "INSERT INTO u VALUES('k', 1)", "CREATE VIEW w AS SELECT * FROM t", "CREATE INDEX i ON t(b COLLATE NOCASE)")
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		f.Fatal(err)
	}
	checkpointed := foreign(f, "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)", "INSERT INTO t(b) VALUES(zeroblob(5000))", "PRAGMA wal_checkpoint(TRUNCATE)")
	file, err := os.ReadFile(checkpointed)
	if err != nil {
		f.Fatal(err)
	}
	base, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file, []byte{})
	f.Add(base, log)
	f.Fuzz(func(t *testing.T, file, log []byte) {
		path := filepath.Join(t.TempDir(), "file.db")
		if err := errors.Join(os.WriteFile(path, file, 0o600), os.WriteFile(path+"-wal", log, 0o600)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		rows := int64(0)
		out, err := engine.Dump(ctx, path, func(c engine.Chunk) error {
			for _, q := range c.Statements {
				if len(q.SQL) > 2_000_000 {
					t.Errorf("a statement of %d bytes", len(q.SQL))
				}
			}
			rows += c.Rows
			return nil
		})
		if ctx.Err() != nil {
			t.Fatal("it takes too long")
		}
		if err == nil && out.Rows != rows || len(out.Odd) > 1000 {
			t.Errorf("%d rows of %d, %d odd", out.Rows, rows, len(out.Odd))
		}
	})
}
