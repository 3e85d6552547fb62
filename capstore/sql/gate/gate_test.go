package gate_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

func TestInspect(t *testing.T) {
	adds := gate.Statement{Kind: gate.Change, Adds: true}
	change := gate.Statement{Kind: gate.Change}
	define := gate.Statement{Kind: gate.Define}
	for sql, want := range map[string]gate.Statement{
		"SELECT 1": {}, " values(1);; -- x": {}, "WITH a AS (SELECT 1) SELECT * FROM a": {}, "with a(x) as (insert) values (1)": {},
		"insert into t values(';')": adds, "REPLACE INTO t VALUES(1)": adds, "WITH a AS (SELECT ')') INSERT INTO t SELECT 1": change,
		"UPDATE t SET a = 1 /* ; */": change, "DELETE FROM t -- ; x": change, "WITH a AS (SELECT 1) DELETE FROM t": change,
		"CREATE TABLE t(a)": define, "create unique index i on t(a)": define, "CREATE VIEW v AS SELECT 1": define, "ALTER TABLE t ADD b": define, "DROP INDEX i": define,
		"PRAGMA user_version": {Kind: gate.Pragma}, "/* c */ -- d\n pragma user_version = 5": {Kind: gate.Pragma, Sets: true}, "PRAGMA main.application_id(7)": {Kind: gate.Pragma, Sets: true},
		"PRAGMA table_info(user_version)": {Kind: gate.Pragma}, `SELECT "a;b", [c;d], ` + "`e;f`": {},
	} {
		if got, err := gate.Inspect(sql); err != nil || got != want {
			t.Errorf("%s is %+v, %v", sql, got, err)
		}
	}
	long := "VACUUM " + strings.Repeat("é", 200)
	for sql, want := range map[string]string{
		"": "Parse error: Empty SQL statement", " -- x": "Parse error: Empty SQL statement", ";;": "Parse error: Empty SQL statement", "/* SELECT 1": "Parse error: Empty SQL statement",
		"SELECT 1; SELECT 2": "Invalid statement: Exactly one SQL statement is required", "PRAGMA x; DELETE FROM t": "Invalid statement: Exactly one SQL statement is required",
		"SELEC 1": `Parse error: near "SELEC": syntax error`, "(SELECT 1)": `Parse error: near "(": syntax error`, "SELECT 1\x00; DELETE FROM t": `Parse error: unrecognized token: "\x00"`,
		"ATTACH 'a' AS b": "Permission denied: ATTACH is not allowed", "DETACH b": "Permission denied: DETACH is not allowed",
		"BEGIN": "Permission denied: Statement type not allowed: BEGIN", " COMMIT ; ": "Permission denied: Statement type not allowed: COMMIT", "SAVEPOINT a": "Permission denied: Statement type not allowed: SAVEPOINT a",
		"EXPLAIN SELECT 1": "Permission denied: Statement type not allowed: EXPLAIN SELECT 1", "VACUUM INTO 'x'": "Permission denied: Statement type not allowed: VACUUM INTO 'x'",
		"ANALYZE": "Permission denied: Statement type not allowed: ANALYZE", "REINDEX": "Permission denied: Statement type not allowed: REINDEX",
		"CREATE TEMP TABLE t(a)": "Permission denied: Statement type not allowed: CREATE TEMP TABLE t(a)", "CREATE VIRTUAL TABLE f USING fts5(x)": "Permission denied: Statement type not allowed: CREATE VIRTUAL TABLE f USING fts5(x)",
		"CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END": "Permission denied: Statement type not allowed: CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END", "DROP TRIGGER a": "Permission denied: Statement type not allowed: DROP TRIGGER a",
		"CREATE UNIQUE TABLE": "", "TRUNCATE TABLE m": "Permission denied: Statement type not allowed: TRUNCATE TABLE m", "CREATE DATABASE x": "Permission denied: Statement type not allowed: CREATE DATABASE x",
		long: "Permission denied: Statement type not allowed: " + long[:199] + "…",
	} {
		_, err := gate.Inspect(sql)
		if want == "" {
			continue
		}
		var r *tinycloud.Refusal
		if !errors.As(err, &r) || r.Text != want || errors.Is(err, tinycloud.ErrForbidden) != strings.HasPrefix(want, "Permission") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestPermit(t *testing.T) {
	hold := func(names ...string) (h gate.Held) {
		for _, n := range names {
			if !h.Hold(n) {
				t.Errorf("%s is no ability", n)
			}
		}
		return h
	}
	const (
		ok       = ""
		readOnly = "Read-only violation"
		ddl      = "Permission denied: DDL operations require admin, schema, or write ability"
		schema   = "Permission denied: Schema ability only permits DDL operations"
		pragma   = "Permission denied: PRAGMA operations require admin ability"
		export   = "Permission denied: Export requires read ability"
	)
	for _, c := range []struct {
		held                                 gate.Held
		look, change, define, pragma, export string
	}{
		{hold("read"), ok, readOnly, ddl, pragma, ok},
		{hold("tinycloud.sql/select"), ok, readOnly, ddl, pragma, ok},
		{hold("write"), ok, ok, ok, pragma, ok},
		{hold("schema"), schema, schema, ok, pragma, export},
		{hold("schema", "write"), ok, ok, ok, pragma, ok},
		{hold("schema", "read"), ok, readOnly, ok, pragma, ok},
		{hold("tinycloud.sql/admin"), ok, ok, ok, ok, ok},
		{hold("*"), ok, ok, ok, ok, ok},
	} {
		got := []string{textOf(c.held.Permit(gate.Look)), textOf(c.held.Permit(gate.Change)), textOf(c.held.Permit(gate.Define)), textOf(c.held.Permit(gate.Pragma)), textOf(c.held.PermitExport())}
		if want := []string{c.look, c.change, c.define, c.pragma, c.export}; !cmp.Equal(got, want) {
			t.Errorf("held %d: %q", c.held, got)
		}
	}
	var h gate.Held
	if h.Hold("tinycloud.sql/export") || h.Hold("tinycloud.kv/read") || h != 0 {
		t.Error("abilities that are none")
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

const caveat = `[{"x":1},{"mode":"constrained-statements","readOnly":true,"statements":[
	{"name":"one","sql":"SELECT a FROM t WHERE b = ? AND c = ?","fixedParams":[{"index":1,"value":"conv"}]},
	{"name":"free","sql":"SELECT ?, ?;"},{"name":"write","sql":"SELECT replace(a, 'x', '') FROM t"},{"name":"two","sql":"SELECT ';'; SELECT 1"},
	{"name":"blob","sql":"SELECT ?","fixedParams":[{"index":0,"value":[1]}]}]}]`

func constrained(t *testing.T, text string) *gate.Constrained {
	t.Helper()
	c, err := gate.ParseConstrained([]byte(text))
	if err != nil || c == nil {
		t.Fatalf("%s: %v, %v", text, c, err)
	}
	return c
}

func TestConstrained(t *testing.T) {
	c := constrained(t, caveat)
	wrapped := strings.TrimSuffix(strings.Replace(caveat, `{"mode"`, `{"constrained-statements":{"mode"`, 1), "]") + "}]"
	if again := constrained(t, wrapped); !cmp.Equal(c, again, cmpopts.IgnoreUnexported(gate.Constrained{})) {
		t.Errorf("wrapped: %+v", again)
	}
	call := func(name string, params ...any) *request.Request {
		return &request.Request{Action: request.ExecuteStatement, Name: name, Statements: []request.Statement{{Params: params}}}
	}
	for _, x := range []struct {
		q    *request.Request
		want string
	}{
		{&request.Request{Action: request.Query}, "sql-raw-query-blocked"},
		{&request.Request{Action: request.Execute}, "sql-raw-execute-blocked"},
		{&request.Request{Action: request.Batch}, "sql-batch-blocked"},
		{&request.Request{Action: request.Export}, "sql-export-blocked"},
		{&request.Request{Action: request.Outcome}, "sql-outcome-blocked"},
		{call("none"), "sql-statement-not-allowed"},
		{call("write"), "sql-write-blocked"},
		{call("two"), "sql-multistatement-blocked"},
		{call("blob"), "sql-non-primitive-bind"},
		{call("one", "a", "b"), "sql-fixed-param-override"},
		{call("one", nil, nil), "sql-fixed-param-override"},
		{call("one", []byte{1}), "sql-non-primitive-bind"},
		{call("one", `a"`), "sql-escape-blocked"},
		{call("one", "it's"), "sql-escape-blocked"},
		{call("one", "a;"), "sql-escape-blocked"},
		{call("one", "--"), "sql-escape-blocked"},
		{call("one", "x or 1=1"), "sql-escape-blocked"},
		{call("one", "*/"), "sql-escape-blocked"},
	} {
		if _, err := c.Resolve(x.q); !errors.Is(err, tinycloud.ErrForbidden) || err.Error() != x.want {
			t.Errorf("%s %q gives %v, not %s", x.q.Action, x.q.Name, err, x.want)
		}
	}
	for name, want := range map[string]request.Statement{
		"one":  {SQL: "SELECT a FROM t WHERE b = ? AND c = ?", Params: []any{"x", "conv"}},
		"free": {SQL: "SELECT ?, ?;", Params: []any{"x"}},
	} {
		if got, err := c.Resolve(call(name, "x")); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := c.Resolve(call("one")); err != nil || !cmp.Equal(got.Params, []any{nil, "conv"}) {
		t.Errorf("without parameters: %v, %v", got, err)
	}
}

func TestConstrainedForms(t *testing.T) {
	for _, text := range []string{
		``, `null`, `{}`, `[]`, `[{}]`, `[{"mode":"constrained-statements"}]`, `[{"mode":"constrained-statements","readOnly":1,"statements":[]}]`, `[{"mode":"x","readOnly":true,"statements":[]}]`,
		`[{"mode":"constrained-statements","readOnly":true,"statements":[{"name":"a"}]}]`, `[{"mode":"constrained-statements","readOnly":true,"statements":[{"name":"a","sql":"b","fixedParams":[{"value":1}]}]}]`,
	} {
		if c, err := gate.ParseConstrained([]byte(text)); c != nil || err != nil {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
	for _, index := range []string{`-1`, `32766`, `4611686018427387904`, `1.5`, `0},{"index":0`} {
		text := `[{"mode":"constrained-statements","readOnly":true,"statements":[{"name":"a","sql":"b","fixedParams":[{"index":` + index + `}]}]}]`
		if c, err := gate.ParseConstrained([]byte(text)); c != nil || !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("index %s: %v, %v", index, c, err)
		}
	}
}

func TestFacts(t *testing.T) {
	if f, err := gate.ParseFacts([]byte(`[1,{"x":2},{"sqlCaveats":{"tables":["t"],"readOnly":true,"other":1,"statements":[{"name":"a","sql":"SELECT 1"}]}}]`)); err != nil || !cmp.Equal(f, &gate.Facts{Tables: []string{"t"}, ReadOnly: true, Statements: []gate.Listed{{Name: "a", SQL: "SELECT 1"}}}) {
		t.Errorf("%+v, %v", f, err)
	}
	for _, text := range []string{``, `[]`, `[{}]`, `{}`} {
		if f, err := gate.ParseFacts([]byte(text)); f != nil || err != nil {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
	for _, text := range []string{`[{"sqlCaveats":1}]`, `[{"sqlCaveats":{"tables":"t"}}]`, `[{"sqlCaveats":{"statements":[{"name":"a"}]}}]`} {
		if f, err := gate.ParseFacts([]byte(text)); f != nil || !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
}

// What is taken for one statement of a kind is one to SQLite, and one that is taken for a look writes nothing.
func FuzzInspect(f *testing.F) {
	for _, sql := range []string{"SELECT 1", "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "DELETE FROM t; -- x", "SELECT 'a''b', \"c\", [d], `e` /* f */", "PRAGMA user_version=5", "SELECT $a(;)", "SELECT x'00', 1.5e3, ?1, :a"} {
		f.Add(sql)
	}
	c, err := lite.Open(":memory:", lite.Create, nil)
	if err == nil {
		err = c.Script("CREATE TABLE t(a, b, c)")
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close() })
	f.Fuzz(func(t *testing.T, sql string) {
		if n := gate.Longest(sql); n > len(sql) {
			t.Errorf("longest literal of %d bytes", n)
		}
		st, err := gate.Inspect(sql)
		if err != nil {
			var r *tinycloud.Refusal
			if !errors.As(err, &r) {
				t.Errorf("no refusal: %v", err)
			}
			return
		}
		s, err := c.Prepare(sql)
		if err != nil {
			return
		}
		defer s.Finalize()
		if st.Kind == gate.Look && !s.ReadOnly && !strings.Contains(sql, "\ufeff") {
			t.Errorf("%q is taken for a look", sql)
		}
	})
}

// Caveats are read without failing, whatever they are.
func FuzzCaveats(f *testing.F) {
	f.Add(caveat)
	f.Add(`[{"sqlCaveats":{"tables":["t"],"statements":[{"name":"a","sql":"SELECT 1"}]}}]`)
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := gate.ParseConstrained([]byte(text)); err == nil && c != nil {
			for _, s := range c.Statements {
				_, _ = c.Resolve(&request.Request{Action: request.ExecuteStatement, Name: s.Name, Statements: []request.Statement{{Params: []any{"x"}}}})
			}
		}
		_, _ = gate.ParseFacts([]byte(text))
	})
}
