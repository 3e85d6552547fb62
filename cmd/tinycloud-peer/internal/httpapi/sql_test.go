package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// databases is an owner with a session that may do all with the databases of its Space.
type databases struct{ *owner }

func newDatabases(t *testing.T) databases {
	t.Helper()
	svc := sql.New(sql.Options{Dir: t.TempDir()})
	n := newNode(t, func(co *capstore.Options, ao *httpapi.Options) {
		co.Services, ao.Services = servicetest.Services(svc), []service.HTTP{svc}
	})
	t.Cleanup(func() {
		n.server.Close()
		check(t, svc.Close())
	})
	o := n.owner("databases")
	space := o.space.String()
	o.proof = o.delegate(o.session, captest.Caps{space + "/sql": {"tinycloud.sql/*"}, space + "/kv": kvAbilities})
	return databases{o}
}

// ask sends a request with abilities on a database, "/read" for one.
func (o databases) ask(path, abilities, body string) answer {
	o.n.t.Helper()
	var pairs []string
	for a := range strings.FieldsSeq(abilities) {
		pairs = append(pairs, "sql/"+path, "tinycloud.sql/"+a)
	}
	return o.send(o.token(pairs...), body)
}

func (o databases) send(token, body string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request(http.MethodPost, "/invoke", token, map[string]string{"Content-Type": "application/json"}, strings.NewReader(body)))
}

const notes = "xyz.app/notes"

// fill makes the table of the examples.
func (o databases) fill(t *testing.T) {
	t.Helper()
	for _, tt := range []struct{ abilities, body, want string }{
		{"schema", `{"action":"execute","sql":"CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, v REAL, b BLOB)","params":[]}`, `{"changes":0,"lastInsertRowId":null}`},
		{"write", `{"action":"execute","sql":"INSERT INTO t (name, v, b) VALUES (?, ?, ?)","params":["alice",1.5,[0,1,254,255]]}`, `{"changes":1,"lastInsertRowId":1}`},
		{"write", `{"action":"execute","sql":"INSERT INTO t (name, v, b) VALUES (?, ?, ?)","params":["bob",2,[]]}`, `{"changes":1,"lastInsertRowId":2}`},
		{"write", `{"action":"execute","sql":"INSERT INTO t (name, v, b) VALUES (?, ?, ?)","params":["carol",true,null]}`, `{"changes":1,"lastInsertRowId":3}`},
	} {
		got := o.ask(notes, tt.abilities, tt.body)
		got.want(t, tt.body, 200, tt.want)
		if got.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(got.header.Get(sql.EpochHeader), "bafy") {
			t.Errorf("header %v", got.header)
		}
	}
}

// The examples that clients were made by.
func TestSQLExamples(t *testing.T) {
	o := newDatabases(t)
	o.ask(notes, "read", `{"action":"export"}`).want(t, "export before any write", 404, "Database not found")
	o.ask(notes, "read", `{"action":"query","sql":"SELECT * FROM t"}`).want(t, "query before any write", 400, "SQLite error: no such table: t")
	o.fill(t)
	unauthorised := "Unauthorized Action: " + o.space.String() + "/sql/" + notes + " / tinycloud.sql/admin"
	rows := `{"columns":["id","name","v","b"],"rowCount":3,"rows":[[1,"alice",1.5,[0,1,254,255]],[2,"bob",2.0,[]],[3,"carol",1.0,null]]}`
	for _, tt := range []struct {
		abilities, body string
		status          int
		want            string
	}{
		{"read", `{"action":"query","sql":"SELECT * FROM t ORDER BY id","params":[]}`, 200, rows},
		{"select", `{"action":"query","sql":"SELECT * FROM t ORDER BY id"}`, 200, rows},
		{"write", `{"action":"query","sql":"SELECT * FROM t ORDER BY id"}`, 200, rows},
		{"read", `{"action":"query","sql":"SELECT 1 UNION SELECT 2","params":[],"maxRows":1}`, 413, "Response too large: 43 bytes"},
		{"read", `{"action":"query","sql":"SELECT 1","params":[],"maxBytes":5}`, 413, "Response too large: 40 bytes"},
		{"read", `{"action":"query","sql":"SELECT 1","maxRows":1001}`, 400, "Invalid statement: maxRows must be between 1 and 1000"},
		{"read", `{"action":"execute","sql":"DELETE FROM t"}`, 403, "Read-only violation"},
		{"read", `{"action":"execute","sql":"CREATE TABLE q (a)"}`, 403, "Permission denied: DDL operations require admin, schema, or write ability"},
		{"schema", `{"action":"execute","sql":"INSERT INTO t (name) VALUES ('x')"}`, 403, "Permission denied: Schema ability only permits DDL operations"},
		{"write", `{"action":"query","sql":"PRAGMA table_info(t)"}`, 401, unauthorised},
		{"write admin", `{"action":"query","sql":"PRAGMA user_version"}`, 200, `{"columns":["user_version"],"rowCount":1,"rows":[[0]]}`},
		{"read", `{"action":"query","sql":"SELECT * FROM nope"}`, 400, "SQLite error: no such table: nope"},
		{"write", `{"action":"execute","sql":"INSERT INTO t (name) VALUES ('bob')"}`, 400, "SQLite error: UNIQUE constraint failed: t.name"},
		{"read", `{"action":"execute","sql":"SELECT * FROM t"}`, 400, "SQLite error: Execute returned results - did you mean to call query?"},
		{"read", `{"action":"query","sql":"SELECT 1; SELECT 2"}`, 400, "Invalid statement: Exactly one SQL statement is required"},
		{"read", `{"action":"query","sql":"SELECT ?","params":[]}`, 400, "SQLite error: Wrong number of parameters passed to query. Got 0, needed 1"},
		{"read", `{"action":"executeStatement","name":"x"}`, 400, "Invalid statement: No caveats found"},
		{"read", `{"action":"execute_statement","name":"x"}`, 400, "Invalid statement: No caveats found"},
		{"export", `{"action":"query","sql":"SELECT 1"}`, 401, "No supported sql capabilities found"},
		{"schema", `{"action":"export"}`, 403, "Permission denied: Export requires read ability"},
		{"read", `{"action":"query","sql":"SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"}`, 200, `{"columns":["type","name","tbl_name"],"rowCount":1,"rows":[["table","t","t"]]}`},
		{"read", `{"action":"query","sql":"` + strings.Repeat("x", 1_000_000) + `"}`, 413, ""},
		{"read", `{"action":"query"`, 400, ""},
		{"write", `{"action":"batch","statements":[{"sql":"INSERT INTO t(name) VALUES('dave')"},{"sql":"INSERT INTO t(name) VALUES('bob')"}]}`, 400, "SQLite error: UNIQUE constraint failed: t.name"},
		{"write", `{"action":"execute","sql":"INSERT INTO t(name) VALUES('dave')","schema":["CREATE INDEX i ON nope(a)"]}`, 400, ""},
		{"write", `{"action":"batch","statements":[]}`, 200, `{"results":[]}`},
		{"read", `{"action":"query","sql":"SELECT * FROM t ORDER BY id"}`, 200, rows}, // nothing of what failed is there
	} {
		got := o.ask(notes, tt.abilities, tt.body)
		if got.status != tt.status || tt.want != "" && got.body != tt.want {
			t.Errorf("%s %.80s: %d %q, want %d %q", tt.abilities, tt.body, got.status, got.body, tt.status, tt.want)
		}
	}
	export := o.ask(notes, "read", `{"action":"export"}`)
	if export.status != 200 || export.header.Get("Content-Type") != "application/x-sqlite3" || !strings.HasPrefix(export.body, "SQLite format 3\x00") {
		t.Errorf("export: %d %v %.20q", export.status, export.header, export.body)
	}
	token := o.token("sql/"+notes, "tinycloud.sql/read")
	o.send(token, `{"action":"query","sql":"SELECT 1"}`).want(t, "once", 200, `{"columns":["1"],"rowCount":1,"rows":[[1]]}`)
	o.send(token, `{"action":"query","sql":"SELECT 1"}`).want(t, "twice", 409, "duplicate invocation")
	if info := o.n.do(o.n.request(http.MethodGet, "/info", "", nil, nil)); !strings.Contains(info.body, `"sql"`) {
		t.Error(info.body)
	}
}

// One token with two abilities on one path makes tables and writes to them, as migrations do.
func TestSQLMigration(t *testing.T) {
	o := newDatabases(t)
	migration := `{"action":"batch","statements":[
 {"sql":"CREATE TABLE IF NOT EXISTS __tinycloud_sql_migrations (\n  key TEXT PRIMARY KEY,\n  namespace TEXT NOT NULL,\n  id TEXT NOT NULL,\n  applied_at TEXT NOT NULL,\n  statement_count INTEGER NOT NULL\n)"},
 {"sql":"INSERT OR REPLACE INTO __tinycloud_sql_migrations (key, namespace, id, applied_at, statement_count) VALUES (?, ?, ?, ?, ?)",
  "params":["tinycloud.sql.migrations:000_metadata","tinycloud.sql.migrations","000_metadata","2026-08-21T00:00:00.000Z",1]}]}`
	o.ask(notes, "schema write", migration).want(t, "migration", 200, `{"results":[{"changes":0,"lastInsertRowId":null},{"changes":1,"lastInsertRowId":1}]}`)
	o.ask(notes, "read", `{"action":"query","sql":"SELECT id FROM __tinycloud_sql_migrations WHERE namespace = ? ORDER BY applied_at, id","params":["none"]}`).
		want(t, "none", 200, `{"columns":["id"],"rowCount":0,"rows":[]}`)
	// The same schema again makes no event: a page that is not changed is no write.
	schema := `{"action":"execute","sql":"CREATE INDEX IF NOT EXISTS i ON spaces(type)","schema":["CREATE TABLE IF NOT EXISTS spaces (id TEXT PRIMARY KEY, type TEXT)"]}`
	first, second := o.ask("account", "schema write", schema), o.ask("account", "schema write", schema)
	first.want(t, "bootstrap", 200, `{"changes":0,"lastInsertRowId":null}`)
	second.want(t, "bootstrap again", 200, `{"changes":0,"lastInsertRowId":null}`)
	if first.header.Get(sql.EpochHeader) == "" || second.header.Get(sql.EpochHeader) != "" {
		t.Errorf("epochs %q, %q", first.header.Get(sql.EpochHeader), second.header.Get(sql.EpochHeader))
	}
	// Without a path it is the database "default"; the whole path counts.
	o.ask("default", "write", `{"action":"execute","sql":"CREATE TABLE d(x)"}`).want(t, "default", 200, `{"changes":0,"lastInsertRowId":null}`)
	bare := o.session.Invoke(captest.TokenOptions{Caps: captest.Caps{o.space.String() + "/sql": {"tinycloud.sql/write"}}, Proofs: []tinycloud.Hash{o.proof}})
	o.send(bare, `{"action":"execute","sql":"INSERT INTO d VALUES(1)"}`).want(t, "without a path", 200, `{"changes":1,"lastInsertRowId":1}`)
	o.ask("a/default", "read", `{"action":"query","sql":"SELECT * FROM d"}`).want(t, "another path", 400, "SQLite error: no such table: d")
	o.ask("default", "read", `{"action":"query","sql":"SELECT * FROM d"}`).want(t, "the same", 200, `{"columns":["x"],"rowCount":1,"rows":[[1]]}`)
	o.send(o.token("sql/a", "tinycloud.sql/read", "sql/b", "tinycloud.sql/read"), `{"action":"query","sql":"SELECT 1"}`).
		want(t, "two paths", 400, "Ambiguous sql capabilities span multiple database paths")
}

// The index that SDKs keep of an account: made at each sign-in, filled beside the keys that it is of, and asked by joins. Signing in
// again changes nothing, and makes nothing of it.
func TestSQLAccountIndex(t *testing.T) {
	o := newDatabases(t)
	const db = "account"
	bootstrap := `{"action":"batch","statements":[
		{"sql":"CREATE TABLE IF NOT EXISTS __tinycloud_sql_migrations (key TEXT PRIMARY KEY, namespace TEXT NOT NULL, id TEXT NOT NULL, applied_at TEXT NOT NULL, statement_count INTEGER NOT NULL)"},
		{"sql":"CREATE TABLE IF NOT EXISTS spaces (space_id TEXT PRIMARY KEY, name TEXT NOT NULL, owner_did TEXT NOT NULL, type TEXT, updated_at TEXT DEFAULT CURRENT_TIMESTAMP)"},
		{"sql":"CREATE TABLE IF NOT EXISTS applications (app_id TEXT PRIMARY KEY, manifest TEXT NOT NULL CHECK (json_valid(manifest)), space_id TEXT REFERENCES spaces(space_id) ON DELETE CASCADE)"},
		{"sql":"CREATE INDEX IF NOT EXISTS idx_spaces_owner ON spaces(owner_did)"},
		{"sql":"INSERT INTO __tinycloud_sql_migrations (key, namespace, id, applied_at, statement_count) VALUES (?, ?, ?, ?, ?) ON CONFLICT(key) DO NOTHING","params":["account:001","account","001","2026-11-29T00:00:00.000Z",4]}]}`
	first := o.ask(db, "schema write", bootstrap)
	first.want(t, "bootstrap", 200, `{"results":[`+strings.Repeat(`{"changes":0,"lastInsertRowId":null},`, 4)+`{"changes":1,"lastInsertRowId":1}]}`)
	spaces := `{"action":"execute","sql":"INSERT OR REPLACE INTO spaces (space_id, name, owner_did, type) VALUES (?, ?, ?, ?), (?, ?, ?, ?)","params":["s1","default","did:x","owned","s2","public","did:x",null]}`
	o.ask(db, "write", spaces).want(t, "spaces", 200, `{"changes":2,"lastInsertRowId":2}`)
	app := `{"action":"execute","sql":"INSERT INTO applications VALUES(?, ?, ?) ON CONFLICT(app_id) DO UPDATE SET manifest = excluded.manifest","params":["xyz.app","{\"name\":\"App\",\"prefix\":\"xyz.app/\"}","s1"]}`
	o.ask(db, "write", app).want(t, "an application", 200, `{"changes":1,"lastInsertRowId":1}`)
	o.ask(db, "write", `{"action":"execute","sql":"INSERT INTO applications VALUES('bad', 'no JSON', 's1')"}`).want(t, "a manifest that is none", 400, "SQLite error: CHECK constraint failed: json_valid(manifest)")
	o.ask(db, "write", `{"action":"execute","sql":"INSERT INTO applications VALUES('bad', '{}', 'nowhere')"}`).want(t, "of no space", 400, "SQLite error: FOREIGN KEY constraint failed")
	again := o.ask(db, "schema write", bootstrap)
	again.want(t, "signing in again", 200, `{"results":[`+strings.Repeat(`{"changes":0,"lastInsertRowId":null},`, 4)+`{"changes":0,"lastInsertRowId":0}]}`)
	if first.header.Get(sql.EpochHeader) == "" || again.header.Get(sql.EpochHeader) != "" {
		t.Errorf("epochs %q, %q", first.header.Get(sql.EpochHeader), again.header.Get(sql.EpochHeader))
	}
	o.ask(db, "read", `{"action":"query","sql":"SELECT s.name, json_extract(a.manifest, '$.prefix') AS prefix FROM spaces s LEFT JOIN applications a USING (space_id) WHERE s.owner_did = ? ORDER BY s.name","params":["did:x"],"maxRows":1000}`).
		want(t, "the index", 200, `{"columns":["name","prefix"],"rowCount":2,"rows":[["default","xyz.app/"],["public",null]]}`)
	o.ask(db, "write", `{"action":"execute","sql":"DELETE FROM spaces WHERE space_id = 's1'"}`).want(t, "a space goes", 200, `{"changes":1,"lastInsertRowId":null}`)
	o.ask(db, "read", `{"action":"query","sql":"SELECT count(*) AS n FROM applications"}`).want(t, "with its applications", 200, `{"columns":["n"],"rowCount":1,"rows":[[0]]}`)
	o.ask("secrets", "read", `{"action":"query","sql":"SELECT 1 FROM __tinycloud_sql_migrations"}`).want(t, "before a migration", 400, "SQLite error: no such table: __tinycloud_sql_migrations")
}

// What a delegation lists is all that may be asked under it.
func TestSQLConstrained(t *testing.T) {
	o := newDatabases(t)
	const db = "xyz.tinycloud.listen/conversations"
	o.ask(db, "write", `{"action":"batch","statements":[{"sql":"CREATE TABLE conversation(id TEXT PRIMARY KEY, title TEXT)"},{"sql":"INSERT INTO conversation VALUES('conv_1','Weekly')"}]}`).
		want(t, "table", 200, `{"results":[{"changes":0,"lastInsertRowId":null},{"changes":1,"lastInsertRowId":1}]}`)
	caveat := `[{"mode":"constrained-statements","readOnly":true,"statements":[{"name":"conversation_by_id","sql":"SELECT id, title FROM conversation WHERE id = ?","fixedParams":[{"index":0,"value":"conv_1"}]}]}]`
	friend := captest.NewSession("friend")
	proof := o.share(friend, "sql/"+db, "tinycloud.sql/read", caveat)
	ask := func(list, body string) answer {
		return o.send(friend.Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/sql/" + db: {"tinycloud.sql/read"}}, Caveats: list, Proofs: []hash{proof}, Expires: time.Now().Add(time.Minute),
		}), body)
	}
	for _, tt := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"action":"executeStatement","name":"conversation_by_id","params":[]}`, 200, `{"columns":["id","title"],"rowCount":1,"rows":[["conv_1","Weekly"]]}`},
		{`{"action":"executeStatement","name":"conversation_by_id","params":["conv_2"]}`, 403, "sql-fixed-param-override"},
		{`{"action":"executeStatement","name":"other"}`, 403, "sql-statement-not-allowed"},
		{`{"action":"query","sql":"SELECT 1"}`, 403, "sql-raw-query-blocked"},
		{`{"action":"export"}`, 403, "sql-export-blocked"},
		{`{"action":"outcome","epoch":"` + tinycloud.Sum(nil).EpochID() + `"}`, 403, "sql-outcome-blocked"},
	} {
		ask(caveat, tt.body).want(t, tt.body, tt.status, tt.want)
	}
	ask(`[{}]`, `{"action":"query","sql":"SELECT 1"}`).want(t, "without the caveat", 401, "invocation-caveats-not-subset-of-chain: containment-caveat-required")
}

// Who holds a list of statements may pass on fewer of them, with more parameters fixed, and ask under such a list himself.
func TestSQLConstrainedFurther(t *testing.T) {
	o := newDatabases(t)
	o.ask("db", "write", `{"action":"batch","statements":[{"sql":"CREATE TABLE t(a, b)"},{"sql":"INSERT INTO t VALUES(1, 'x'), (2, 'y')"}]}`).want(t, "table", 200,
		`{"results":[{"changes":0,"lastInsertRowId":null},{"changes":2,"lastInsertRowId":2}]}`)
	list := func(statements ...string) string {
		return `[{"mode":"constrained-statements","readOnly":true,"statements":[` + strings.Join(statements, ",") + `]}]`
	}
	const (
		all    = `{"name":"all","sql":"SELECT a FROM t"}`
		one    = `{"name":"one","sql":"SELECT a FROM t WHERE a = ? AND b = ?"}`
		fixed  = `{"name":"one","sql":"SELECT a FROM t WHERE a = ? AND b = ?","fixedParams":[{"index":1,"value":"y"}]}`
		other  = `{"name":"one","sql":"SELECT a FROM t WHERE a = ? AND b = ?","fixedParams":[{"index":1,"value":"x"}]}`
		writes = `{"name":"all","sql":"DELETE FROM t"}`
		huge   = `{"name":"one","sql":"SELECT ?","fixedParams":[{"index":4611686018427387904,"value":1}]}`
	)
	friend, far := captest.NewSession("friend"), captest.NewSession("far")
	proof := o.share(friend, "sql/db", "tinycloud.sql/read", list(all, one))
	options := func(caveats string, proof hash) captest.TokenOptions {
		return captest.TokenOptions{Caps: captest.Caps{o.space.String() + "/sql/db": {"tinycloud.sql/read"}}, Caveats: caveats, Proofs: []hash{proof}, Expires: time.Now().Add(time.Minute)}
	}
	const subset, chain = "child-caveats-not-subset-of-parent: ", "invocation-caveats-not-subset-of-chain: "
	for caveats, code := range map[string]string{
		`[{}]`: "containment-caveat-required", list(all, one, `{"name":"more","sql":"SELECT 1"}`): "containment-sql-statement-added", list(writes): "containment-sql-statement-added",
		strings.Replace(list(all), "true", "false", 1): "sql-non-readonly-not-permitted",
	} {
		o.n.post("/delegate", friend.Delegate(far.DID(), options(caveats, proof))).want(t, "child with "+caveats, 401, subset+code)
		o.send(friend.Invoke(options(caveats, proof)), `{"action":"executeStatement","name":"all"}`).want(t, "invocation with "+caveats, 401, chain+code)
	}
	child := friend.Delegate(far.DID(), options(list(fixed), proof))
	if got := o.n.post("/delegate", child); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	under := captest.ID(child)
	for _, tt := range []struct {
		caveats, body string
		status        int
		want          string
	}{
		{list(fixed), `{"action":"executeStatement","name":"one","params":[2]}`, 200, `{"columns":["a"],"rowCount":1,"rows":[[2]]}`},
		{list(fixed), `{"action":"executeStatement","name":"one","params":[2,"x"]}`, 403, "sql-fixed-param-override"},
		{list(fixed), `{"action":"executeStatement","name":"all"}`, 403, "sql-statement-not-allowed"},
		{list(one), `{"action":"executeStatement","name":"one","params":[1,"x"]}`, 401, chain + "containment-sql-fixed-param-dropped"},
		{list(other), `{"action":"executeStatement","name":"one","params":[1]}`, 401, chain + "containment-sql-fixed-param-mismatch"},
		{list(all), `{"action":"executeStatement","name":"all"}`, 401, chain + "containment-sql-statement-added"},
		{list(), `{"action":"executeStatement","name":"one"}`, 403, "sql-statement-not-allowed"},
	} {
		o.send(far.Invoke(options(tt.caveats, under)), tt.body).want(t, tt.caveats+" "+tt.body, tt.status, tt.want)
	}
	// The narrowing of an invocation binds it, and statements that write are for nobody.
	o.send(friend.Invoke(options(list(fixed), proof)), `{"action":"executeStatement","name":"all"}`).want(t, "narrowed by the invocation", 403, "sql-statement-not-allowed")
	write := o.share(far, "sql/db", "tinycloud.sql/write", list(writes))
	asks := options(list(writes), write)
	asks.Caps = captest.Caps{o.space.String() + "/sql/db": {"tinycloud.sql/write"}}
	o.send(far.Invoke(asks), `{"action":"executeStatement","name":"all"}`).want(t, "a statement that writes", 403, "sql-write-blocked")
	o.send(far.Invoke(asks), `{"action":"execute","sql":"DELETE FROM t"}`).want(t, "a write", 403, "sql-raw-execute-blocked")
	o.ask("db", "read", `{"action":"query","sql":"SELECT count(*) FROM t"}`).want(t, "rows", 200, `{"columns":["count(*)"],"rowCount":1,"rows":[[2]]}`)
	o.n.post("/delegate", o.session.Delegate(far.DID(), captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/sql/db": {"tinycloud.sql/read"}}, Caveats: list(huge), Proofs: o.proofs(), Expires: time.Now().Add(time.Minute),
	})).want(t, "a huge index", 400, "constrained-statements: fixedParams: index 4611686018427387904")
}

// Clients that write at once all succeed, and what they wrote is there.
func TestSQLWritersAtOnce(t *testing.T) {
	o := newDatabases(t)
	o.ask("db", "write", `{"action":"execute","sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, n)"}`).want(t, "table", 200, `{"changes":0,"lastInsertRowId":null}`)
	o.ask("db", "write", `{"action":"execute","sql":"INSERT INTO t VALUES(1, 0)"}`).want(t, "row", 200, `{"changes":1,"lastInsertRowId":1}`)
	const clients, each = 16, 5
	var tokens [clients][each]string
	for i := range tokens {
		for k := range each {
			tokens[i][k] = o.token("sql/db", "tinycloud.sql/write")
		}
	}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for k := range each {
				if got := o.send(tokens[i][k], `{"action":"execute","sql":"UPDATE t SET n = n + 1"}`); got.status != 200 {
					t.Errorf("%d %s", got.status, got.body)
				}
				o.n.do(o.n.request(http.MethodGet, "/info", "", nil, nil))
			}
		})
	}
	wg.Wait()
	got := o.ask("db", "read", `{"action":"query","sql":"SELECT n FROM t"}`)
	var rows struct{ Rows [][]int }
	if err := json.Unmarshal([]byte(got.body), &rows); err != nil || len(rows.Rows) != 1 || rows.Rows[0][0] != clients*each {
		t.Errorf("%s, want %d", got.body, clients*each)
	}
}

// A public Space may be read by anyone as far as it is keys: its databases need a token like any other's.
func TestSQLInPublicSpace(t *testing.T) {
	o := newDatabases(t)
	o.owner = o.n.public("public sql")
	o.proof = o.delegate(o.session, captest.Caps{o.space.String() + "/sql": {"tinycloud.sql/write"}})
	o.ask("db", "write", `{"action":"execute","sql":"CREATE TABLE t(v)"}`).want(t, "write", 200, `{"changes":0,"lastInsertRowId":null}`)
	o.ask("db", "write", `{"action":"query","sql":"SELECT * FROM t"}`).want(t, "read", 200, `{"columns":["v"],"rowCount":0,"rows":[]}`)
	for _, path := range []string{"/sql/db", "/sql", "/kv/sql/db"} {
		if got := o.read(http.MethodGet, path, nil); got.status != 404 {
			t.Errorf("%s without a token: %d %s", path, got.status, got.body)
		}
	}
	stranger := captest.NewSession("stranger")
	o.send(stranger.Invoke(captest.TokenOptions{Caps: captest.Caps{o.space.String() + "/sql/db": {"tinycloud.sql/read"}}, Expires: time.Now().Add(time.Minute)}),
		`{"action":"query","sql":"SELECT * FROM t"}`).want(t, "a stranger", 401, "Cannot find parent delegation")
}

// Delegations and capabilities know the abilities of SQL: select is read, admin has schema, * has all, and no more.
func TestSQLAbilities(t *testing.T) {
	o := newDatabases(t)
	o.ask("db", "write", `{"action":"execute","sql":"CREATE TABLE t(v)"}`).want(t, "table", 200, `{"changes":0,"lastInsertRowId":null}`)
	const (
		read   = `{"action":"query","sql":"SELECT count(*) FROM t"}`
		schema = `{"action":"execute","sql":"CREATE INDEX IF NOT EXISTS i ON t(v)"}`
		write  = `{"action":"execute","sql":"INSERT INTO t VALUES(1)"}`
		admin  = `{"action":"query","sql":"PRAGMA user_version"}`
	)
	for _, tt := range []struct {
		holds, asks, body string
		status            int
	}{
		{"read", "read", read, 200},
		{"read", "select", read, 200},
		{"select", "read", read, 200},
		{"read", "write", read, 401},
		{"read", "schema", schema, 401},
		{"write", "write", write, 200},
		{"write", "read", read, 401},
		{"write", "schema", schema, 401},
		{"write", "admin", admin, 401},
		{"admin", "schema", schema, 200},
		{"admin", "admin", admin, 200},
		{"admin", "admin", write, 200},
		{"admin", "write", write, 401},
		{"schema", "admin", admin, 401},
		{"*", "read", read, 200},
		{"*", "write", write, 200},
		{"*", "admin", admin, 200},
		{"*", "*", admin, 200},
		{"admin", "*", admin, 401},
		{"export", "export", `{"action":"export"}`, 401},
	} {
		friend, far := captest.NewSession("friend of "+tt.holds), captest.NewSession("far")
		proof := o.share(friend, "sql/db", "tinycloud.sql/"+tt.holds, `[{}]`)
		options := captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/sql/db": {"tinycloud.sql/" + tt.asks}}, Proofs: []hash{proof}, Expires: time.Now().Add(time.Minute),
			Nonce: tt.holds + tt.asks + tt.body,
		}
		if got := o.send(friend.Invoke(options), tt.body); got.status != tt.status {
			t.Errorf("%s under %s: %d %s, want %d", tt.asks, tt.holds, got.status, got.body, tt.status)
		}
		passes := 200
		if tt.status == 401 && tt.asks != "export" {
			passes = 401
		}
		if got := o.n.post("/delegate", friend.Delegate(far.DID(), options)); got.status != passes {
			t.Errorf("passing %s on under %s: %d %s, want %d", tt.asks, tt.holds, got.status, got.body, passes)
		}
	}
	o.proof = o.delegate(o.session, captest.Caps{o.space.String() + "/sql": {"tinycloud.sql/*"}, o.space.String() + "/capabilities/all": {"tinycloud.capabilities/read"}})
	got := o.n.do(o.n.request(http.MethodPost, "/invoke", o.token("capabilities/all", "tinycloud.capabilities/read"), nil, nil))
	for _, want := range []string{`"ability":"tinycloud.sql/select"`, `"ability":"tinycloud.sql/*"`, o.space.String() + "/sql/db"} {
		if got.status != 200 || !strings.Contains(got.body, want) {
			t.Errorf("capabilities: %d, no %s in %.500s", got.status, want, got.body)
		}
	}
}
