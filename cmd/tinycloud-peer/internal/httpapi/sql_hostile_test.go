package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// one is a request with one statement.
func one(action, statement string, params ...any) string {
	b, err := json.Marshal(map[string]any{"action": action, "sql": statement, "params": append([]any{}, params...)})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// several is a request with several.
func several(statements ...string) string {
	list := make([]map[string]string, len(statements))
	for i, s := range statements {
		list[i] = map[string]string{"sql": s}
	}
	b, err := json.Marshal(map[string]any{"action": "batch", "statements": list})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// rows are those of a query's answer, or what it says instead.
func (o databases) rows(query string) string {
	o.n.t.Helper()
	got := o.ask(notes, "read", one("query", query))
	if _, rows, ok := strings.Cut(got.body, `"rows":`); ok {
		return strings.TrimSuffix(rows, "}")
	}
	return got.body
}

// A kind of statement that nobody may run is refused by its text, in whichever action it comes, and runs nothing.
func TestSQLRefusedKinds(t *testing.T) {
	o := newDatabases(t)
	o.fill(t)
	before := o.rows("SELECT * FROM sqlite_schema, t")
	const no = "Permission denied: Statement type not allowed: "
	for statement, want := range map[string]string{
		"ATTACH 'x' AS y": "Permission denied: ATTACH is not allowed", "DETACH main": "Permission denied: DETACH is not allowed",
		"BEGIN": no, "BEGIN IMMEDIATE": no, "COMMIT": no, "END": no, "ROLLBACK": no, "SAVEPOINT a": no, "RELEASE a": no,
		"VACUUM": no, "VACUUM INTO 'x'": no, "ANALYZE": no, "REINDEX": no, "EXPLAIN SELECT 1": no, "EXPLAIN QUERY PLAN SELECT 1": no,
		"CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t; END": no, "DROP TRIGGER r": no, "CREATE VIRTUAL TABLE f USING fts5(x)": no,
		"CREATE TEMP TABLE x(a)": no, "CREATE TEMPORARY VIEW x AS SELECT 1": no, "TRUNCATE TABLE t": no, "MERGE INTO t": no, "SET a = 1": no,
		"SHOW TABLES": no, "CREATE DATABASE x": no, "GRANT ALL ON t": no, "USE x": no,
		"SELEC 1": `Parse error: near "SELEC": syntax error`, "": "Parse error: Empty SQL statement", ";": "Parse error: Empty SQL statement", "-- nothing": "Parse error: Empty SQL statement",
		"DELETE FROM t; DELETE FROM t": "Invalid statement: Exactly one SQL statement is required", "SELECT 1\x00": `Parse error: unrecognized token: "\x00"`,
	} {
		status := 400
		if want == no {
			want += statement
		}
		if strings.HasPrefix(want, "Permission") {
			status = 403
		}
		for name, body := range map[string]string{
			"query": one("query", statement), "execute": one("execute", statement), "batch": several("DELETE FROM t", statement),
			"schema": `{"action":"execute","sql":"DELETE FROM t","schema":[` + strings.TrimSuffix(strings.SplitAfter(one("", statement), `"sql":`)[1], "}") + `]}`,
		} {
			if got := o.ask(notes, "write admin", body); got.status != status || got.body != want {
				t.Errorf("%s: %q: %d %q, want %d %q", name, statement, got.status, got.body, status, want)
			}
		}
	}
	if got := o.rows("SELECT * FROM sqlite_schema, t"); got != before {
		t.Errorf("after all that %s", got)
	}
}

// What is wrong with a body is said by the name of the member.
func TestSQLBadBodies(t *testing.T) {
	o := newDatabases(t)
	o.fill(t)
	for body, want := range map[string]string{
		`{"action":"query","sql":"SELECT 1"`: "request body is not JSON", ``: "the request body is empty", `null`: "invalid type: null, expected an object with the member `action`",
		`[{"action":"query"}]`: "invalid type: sequence", `{"action":"query","sql":"SELECT 1"}}`: "not JSON", "{\"action\":\"query\",\"sql\":\"\xff\"}": "not UTF-8",
		`{}`: "missing field `action`", `{"action":"drop"}`: "action: unknown variant `drop`", `{"action":7}`: "action: invalid type",
		`{"action":"query"}`: "missing field `sql`", `{"action":"query","sql":["SELECT 1"]}`: "sql: invalid type: sequence", `{"action":"batch","statements":{}}`: "statements: invalid type: map",
		`{"action":"query","action":"export","sql":"SELECT 1"}`:                                          "duplicate field `action`",
		`{"action":"query","sql":"SELECT 1","sql":"SELECT 2"}`:                                           "duplicate field `sql`",
		`{"action":"query","sql":"SELECT 1","unknown":1,"unknown":2}`:                                    "duplicate field `unknown`",
		`{"action":"batch","statements":[{"sql":"DELETE FROM t"},{"sql":"a","sql":"b"}]}`:                "statements[1]: duplicate field `sql`",
		`{"action":"query","sql":"SELECT ?","params":[{"a":1}]}`:                                         "params[0]: invalid type: map",
		`{"action":"query","sql":"SELECT ?, ?","params":[1,{"1":1}]}`:                                    "params[1]: invalid type: map",
		`{"action":"query","sql":"SELECT ?","params":[[[1]]]}`:                                           "params[0]: invalid type: sequence",
		`{"action":"query","sql":"SELECT ?","params":[[1,2,-1]]}`:                                        "params[0]: invalid value: integer `-1`",
		`{"action":"query","sql":"SELECT ?","params":[18446744073709551615]}`:                            "params[0]: SQLite integers must fit in signed 64 bits",
		`{"action":"query","sql":"SELECT ?","params":"x"}`:                                               "params: invalid type: string",
		`{"action":"execute","sql":"DELETE FROM t","schema":"x"}`:                                        "schema: invalid type: string",
		`{"action":"query","sql":"SELECT 1","maxRows":"5"}`:                                              "maxRows: invalid type: string",
		`{"action":"outcome","epoch":"bafy"}`:                                                            "epoch: ",
		`{"action":"query","sql":"SELECT ?, ?","params":[1]}`:                                            "SQLite error: Wrong number of parameters passed to query. Got 1, needed 2",
		`{"action":"query","sql":"SELECT ?","params":[1,2]}`:                                             "SQLite error: Wrong number of parameters passed to query. Got 2, needed 1",
		`{"action":"execute","sql":"DELETE FROM t WHERE id = ?7","params":[1]}`:                          "SQLite error: Wrong number of parameters passed to query. Got 1, needed 7",
		`{"action":"batch","statements":[{"sql":"DELETE FROM t"},{"sql":"DELETE FROM t WHERE id = ?"}]}`: "SQLite error: Wrong number of parameters passed to query. Got 0, needed 1",
	} {
		if got := o.ask(notes, "write", body); got.status != 400 || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %q, want %q", body, got.status, got.body, want)
		}
	}
	long := `{"action":"execute","sql":"DELETE FROM t -- ` + strings.Repeat("x", 1_000_000) + `"}`
	o.ask(notes, "write", long).want(t, "a long body", 413, "Request body of more than 1000000 bytes")
	if got := o.rows("SELECT count(*) FROM t"); got != "[[3]]" {
		t.Errorf("rows %s", got)
	}
}

// A body that ends before it said it would does nothing, and the client may send it again.
func TestSQLCutShort(t *testing.T) {
	o := newDatabases(t)
	o.fill(t)
	token, body := o.token("sql/"+notes, "tinycloud.sql/write"), one("execute", "DELETE FROM t WHERE id = 1")
	c, r := o.n.dial()
	_, err := fmt.Fprintf(c, "POST /invoke HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body)+1, body)
	check(t, err)
	check(t, c.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 400 {
		t.Errorf("cut short: %d %s %v", resp.StatusCode, b, err)
	}
	if got := o.rows("SELECT count(*) FROM t"); got != "[[3]]" {
		t.Errorf("rows %s", got)
	}
	o.send(token, body).want(t, "sent again", 200, `{"changes":1,"lastInsertRowId":null}`)
}

// What statements do that want more than their share, or what no other host would see: they are refused, and nothing of their
// request is there.
func TestSQLHostileWrites(t *testing.T) {
	o := newDatabases(t)
	o.fill(t)
	for _, statement := range []string{
		"CREATE TABLE parent(id INTEGER PRIMARY KEY)", "CREATE TABLE child(p INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)",
		"CREATE TABLE many(a)", "INSERT INTO many SELECT 1 FROM json_each('[" + strings.TrimSuffix(strings.Repeat("1,", 400), ",") + "]')",
		"CREATE TABLE last(id INTEGER PRIMARY KEY)", "CREATE TABLE large(id INTEGER PRIMARY KEY, v)", "CREATE TABLE x(a)",
	} {
		o.ask(notes, "write", one("execute", statement)).wantStatus(t, statement, 200)
	}
	const before = "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM x), (SELECT count(*) FROM last), (SELECT count(*) FROM child)"
	want := o.rows(before)
	for name, tt := range map[string]struct{ body, want string }{
		"a cross join":                {several("INSERT INTO x VALUES(1)", "INSERT INTO x SELECT a.a FROM many a, many b, many c"), "SQLite error: interrupted…"}, // by its steps, or by the clock of a slow machine
		"a LIKE bomb":                 {one("execute", "INSERT INTO x SELECT ? LIKE ?", strings.Repeat("a", 100_000), strings.Repeat("%a", 200)), "SQLite error: LIKE or GLOB pattern too complex"},
		"many bytes in functions":     {one("execute", "INSERT INTO x SELECT length(replace(?, 'a', a)) FROM many", strings.Repeat("a", 200_000)), "SQLite error: interrupted: the request takes too many bytes in functions"},
		"many bytes in rows":          {several(slices.Repeat([]string{"INSERT OR REPLACE INTO large VALUES(1, zeroblob(900000))"}, 20)...), "SQLite error: interrupted: the request takes too many bytes of rows"},
		"many pages":                  {one("execute", "INSERT INTO x SELECT zeroblob(100000) FROM many"), "SQLite error: database or disk is full"},
		"a value that is too long":    {one("execute", "INSERT INTO x VALUES(zeroblob(1048577))"), "SQLite error: string or blob too big"},
		"OR ROLLBACK":                 {several("INSERT INTO x VALUES(1)", "INSERT OR ROLLBACK INTO t(name) VALUES('bob')"), "SQLite error: UNIQUE constraint failed: t.name"},
		"a deferred foreign key":      {several("INSERT INTO x VALUES(1)", "INSERT INTO child VALUES(5)"), "SQLite error: FOREIGN KEY constraint failed"},
		"the greatest row id":         {several("INSERT INTO x VALUES(1)", "INSERT INTO last VALUES(9223372036854775807)"), "SQLite error: database or disk is full: the greatest rowid is in use"},
		"rows in a batch":             {several("INSERT INTO x VALUES(1)", "SELECT * FROM t"), "SQLite error: Execute returned results - did you mean to call query?"},
		"a table of a pragma":         {one("execute", "INSERT INTO x SELECT file FROM pragma_database_list"), ""},
		"another":                     {one("execute", "INSERT INTO x SELECT name FROM pragma_table_info('t')"), ""},
		"pages of the file":           {one("execute", "INSERT INTO x SELECT data FROM sqlite_dbpage"), ""},
		"statistics of the file":      {one("execute", "INSERT INTO x SELECT name FROM dbstat"), ""},
		"the engine's version":        {one("execute", "INSERT INTO x SELECT sqlite_version()"), ""},
		"the machine's local time":    {one("execute", "INSERT INTO x SELECT datetime('now', 'localtime')"), ""},
		"recursion without an end":    {one("execute", "INSERT INTO x WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n"), ""},
		"the schema itself":           {one("execute", "UPDATE sqlite_schema SET sql = 'x'"), ""},
		"a pragma that is not set":    {several("INSERT INTO x VALUES(1)", "PRAGMA journal_mode = DELETE"), ""},
		"an extension":                {one("execute", "INSERT INTO x SELECT load_extension('x')"), ""},
		"a request without its quote": {one("execute", "INSERT INTO x VALUES('"), ""},
	} {
		got := o.ask(notes, "write admin", tt.body)
		begins, more := strings.CutSuffix(tt.want, "…")
		if got.status < 400 || got.status > 403 || tt.want != "" && got.body != tt.want && !(more && strings.HasPrefix(got.body, begins)) || got.header.Get(sql.EpochHeader) != "" {
			t.Errorf("%s: %d %q, want %q", name, got.status, got.body, tt.want)
		}
		if rows := o.rows(before); rows != want {
			t.Errorf("%s: rows %s, want %s", name, rows, want)
		}
	}
	o.ask(notes, "write", one("execute", "INSERT INTO last VALUES(1)")).want(t, "afterwards", 200, `{"changes":1,"lastInsertRowId":1}`)
}

// A read is bounded in its answer and by its client's patience, and may look at what writes may not.
func TestSQLHostileReads(t *testing.T) {
	o := newDatabases(t)
	o.fill(t)
	many := "json_each('[" + strings.TrimSuffix(strings.Repeat("1,", 200), ",") + "]')"
	for name, tt := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"a long answer":     {one("query", "SELECT hex(zeroblob(50000)) FROM "+many), 413, "Response too large: "},
		"a long value":      {one("query", "SELECT zeroblob(1048577)"), 400, "SQLite error: string or blob too big"},
		"a LIKE bomb":       {one("query", "SELECT ? LIKE ?", strings.Repeat("a", 100_000), strings.Repeat("%a", 200)), 400, "SQLite error: LIKE or GLOB pattern too complex"},
		"pages of the file": {one("query", "SELECT data FROM sqlite_dbpage"), 400, "SQLite error: "},
		"a pragma's table":  {one("query", "SELECT name FROM pragma_table_info('t')"), 200, `"rows":[["id"],["name"],["v"],["b"]]`},
		"where the file is": {one("query", "SELECT file FROM pragma_database_list"), 200, `"rows":[[""]]`},
	} {
		if got := o.ask(notes, "read", tt.body); got.status != tt.status || !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %d %.200q, want %d %q", name, got.status, got.body, tt.status, tt.want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // a client that goes
	defer cancel()
	r := o.n.request(http.MethodPost, "/invoke", o.token("sql/"+notes, "tinycloud.sql/read"), nil,
		strings.NewReader(one("query", fmt.Sprintf("SELECT count(*) FROM %s a, %s b, %s c, %s d", many, many, many, many))))
	if resp, err := http.DefaultClient.Do(r.WithContext(ctx)); err == nil {
		_ = resp.Body.Close()
		t.Errorf("an endless read: %d", resp.StatusCode)
	}
	if got := o.rows("SELECT count(*) FROM t"); got != "[[3]]" {
		t.Errorf("rows %s", got)
	}
}

// A parameter that a delegation fixes has an index that SQLite has: no other is made room for.
func TestSQLFixedParameters(t *testing.T) {
	o := newDatabases(t)
	friend := captest.NewSession("friend")
	for i, index := range []string{"-1", "32766", "4611686018427387904", "18446744073709551616", "1.5"} {
		caveat := `[{"mode":"constrained-statements","readOnly":true,"statements":[{"name":"a","sql":"SELECT ?","fixedParams":[{"index":` + index + `,"value":1}]}]}]`
		path := fmt.Sprint("sql/db", i)
		got := o.n.post("/delegate", o.session.Delegate(friend.DID(), captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/" + path: {"tinycloud.sql/read"}}, Caveats: caveat, Proofs: o.proofs(),
			Expires: time.Now().Add(30 * time.Minute).Truncate(time.Second),
		}))
		if got.status == 200 { // then whoever uses it is refused
			proof := o.share(friend, path, "tinycloud.sql/read", caveat)
			got = o.send(friend.Invoke(captest.TokenOptions{
				Caps: captest.Caps{o.space.String() + "/" + path: {"tinycloud.sql/read"}}, Caveats: caveat, Proofs: []hash{proof}, Expires: time.Now().Add(time.Minute),
			}), `{"action":"executeStatement","name":"a"}`)
		}
		if got.status < 400 || got.status > 403 || !strings.Contains(got.body, "fixedParams") {
			t.Errorf("index %s: %d %q", index, got.status, got.body)
		}
	}
}
