package engine_test

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// scale is how often a random test runs: a few times, or as SQL_SEEDS says.
func scale(t *testing.T, few int) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("SQL_SEEDS")); err == nil {
		return n
	}
	return few
}

// operation makes an operation of statements.
func operation(id uint64, statements ...request.Statement) engine.Op {
	q := &request.Request{Action: request.Query, Statements: statements}
	if len(statements) != 1 {
		q.Action = request.Batch
	}
	return engine.Op{
		Key: tinycloud.Sum(binary.BigEndian.AppendUint64([]byte("key"), id)), Event: tinycloud.Sum(binary.BigEndian.AppendUint64(nil, id)),
		Now: 1_700_000_000_000 + int64(id*7919%1_000_000_000), Rules: engine.Newest, Request: q, Held: gate.Admin,
	}
}

func stmt(sql string, params ...any) request.Statement {
	return request.Statement{SQL: sql, Params: params}
}

// random makes an operation, which may well fail. A quiet one seldom changes the schema.
func random(r *rand.Rand, id uint64, quiet bool) engine.Op {
	n := 1
	if r.Intn(6) == 0 {
		n = 2 + r.Intn(3)
	}
	var all []request.Statement
	for len(all) < n {
		s := randomStatement(r)
		if st, err := gate.Inspect(s.SQL); err == nil && st.Kind == gate.Define && quiet && r.Intn(10) > 0 {
			continue
		}
		all = append(all, s)
	}
	op := operation(id, all...)
	if r.Intn(3) == 0 {
		op.Rules = engine.Tight
	}
	return op
}

func randomTable(r *rand.Rand) string { return fmt.Sprintf("t%d", r.Intn(6)) }

func pick(r *rand.Rand, of ...string) string { return of[r.Intn(len(of))] }

func randomStatement(r *rand.Rand) request.Statement {
	switch x := r.Intn(100); {
	case x < 10:
		return randomDefinition(r)
	case x < 55:
		return randomInsert(r)
	case x < 83:
		return randomUpdate(r)
	}
	return randomDelete(r)
}

func randomDefinition(r *rand.Rand) request.Statement {
	t := randomTable(r)
	switch r.Intn(10) {
	case 0, 1, 2, 3:
		return stmt("CREATE TABLE " + t + pick(r,
			"(id INTEGER PRIMARY KEY, a, b TEXT DEFAULT CURRENT_TIMESTAMP, c)",
			"(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b TEXT DEFAULT (datetime('now','+1 day')), c)",
			"(id INT, a, b, c)",
			"(id TEXT, a INT DEFAULT (random()), b, c UNIQUE)",
			"(id INTEGER, a NOT NULL DEFAULT 7, b, c BLOB, PRIMARY KEY(id)) WITHOUT ROWID",
			"(id INTEGER PRIMARY KEY, a INT REFERENCES "+randomTable(r)+"(id) ON DELETE CASCADE, b, c)",
			"(id INTEGER PRIMARY KEY, a INT REFERENCES "+randomTable(r)+"(id) DEFERRABLE INITIALLY DEFERRED, b, c)",
			"(id INTEGER PRIMARY KEY, a, b AS (a*2) STORED, c AS (length(b)))",
			"(id INTEGER PRIMARY KEY ON CONFLICT ROLLBACK, a, b CHECK (length(b)<100), c)",
			"(id INTEGER PRIMARY KEY, a, b, c, UNIQUE(a,b) ON CONFLICT REPLACE)"))
	case 4, 5:
		return stmt(fmt.Sprintf("CREATE INDEX i%d ON %s(%s)", r.Intn(6), t, pick(r, "a", "b,a", "c", "abs(a)", "a) WHERE (b IS NOT NULL")))
	case 6, 7:
		return stmt("ALTER TABLE " + t + " " + pick(r, "ADD COLUMN d DEFAULT 5", "DROP COLUMN d", "RENAME COLUMN c TO e", "RENAME COLUMN e TO c", "RENAME TO "+randomTable(r), "ADD COLUMN d TEXT"))
	case 8:
		return stmt(pick(r, "DROP TABLE "+t, fmt.Sprintf("DROP INDEX i%d", r.Intn(6)), "DROP VIEW v0", fmt.Sprintf("PRAGMA user_version=%d", r.Intn(9))))
	}
	return stmt(pick(r, "CREATE VIEW v0 AS SELECT a,count(*) n FROM "+t+" GROUP BY a", "CREATE TABLE IF NOT EXISTS "+t+"(x)", "CREATE TABLE "+randomTable(r)+" AS SELECT * FROM "+t))
}

func randomBlob(r *rand.Rand) []byte {
	b := make([]byte, r.Intn(200))
	switch r.Intn(40) {
	case 0:
		b = make([]byte, r.Intn(20_000))
	case 1:
		b = make([]byte, r.Intn(100_000)) // of another tier
	}
	r.Read(b)
	return b
}

func randomText(r *rand.Rand) string { return fmt.Sprintf("s%d", r.Intn(50)) }

func randomInsert(r *rand.Rand) request.Statement {
	t, k := randomTable(r), int64(r.Intn(60))
	switch r.Intn(10) {
	case 0, 1, 2, 3, 4:
		return stmt("INSERT INTO "+t+"(a,b,c) VALUES(?,?,?)", k, randomText(r), randomBlob(r))
	case 5, 6:
		return stmt(pick(r, "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "INSERT OR ROLLBACK", "REPLACE")+" INTO "+t+"(id,a,b) VALUES(?,?,?)", k, int64(r.Intn(60)), randomText(r))
	case 7:
		return stmt("INSERT INTO "+t+"(a) VALUES(?),(?),(random()),(changes()),(total_changes()),(last_insert_rowid())", k, k+1)
	case 8:
		return stmt("INSERT INTO "+t+"(a,b,c) SELECT a,b,randomblob(10) FROM "+randomTable(r)+" LIMIT ?", int64(r.Intn(10)))
	}
	return stmt(pick(r,
		"INSERT INTO "+t+"(a,b) SELECT x.a,y.b FROM "+randomTable(r)+" x JOIN "+randomTable(r)+" y ON x.a=y.a WHERE x.id>? LIMIT 20",
		"INSERT INTO "+t+"(a,b) SELECT julianday('now'),CURRENT_TIMESTAMP WHERE ?>0 ON CONFLICT DO UPDATE SET a=excluded.a",
		"INSERT INTO "+t+"(a,c) SELECT key,zeroblob(key) FROM json_each(json_array(1,2,3,?))"), k)
}

func randomUpdate(r *rand.Rand) request.Statement {
	t, k := randomTable(r), int64(r.Intn(60))
	switch r.Intn(10) {
	case 0, 1, 2, 3, 4, 5:
		return stmt("UPDATE "+t+" SET a=?,b=? WHERE id=?", int64(r.Intn(60)), randomText(r), k)
	case 6, 7:
		return stmt("UPDATE "+t+" SET a=a+1, b=strftime('%s','now') WHERE a BETWEEN ? AND ?", k, k+3)
	case 8:
		return stmt("UPDATE OR IGNORE "+t+" SET id=id+1 WHERE id>=?", k)
	}
	return stmt(pick(r, "UPDATE "+t+" SET id=9223372036854775807 WHERE id=?", "UPDATE "+t+" SET b=group_concat(c) OVER () WHERE id=?", "UPDATE "+t+" SET b=upper(b)||hex(c) WHERE id=?"), k)
}

func randomDelete(r *rand.Rand) request.Statement {
	t, k := randomTable(r), int64(r.Intn(60))
	switch r.Intn(14) {
	case 0:
		return stmt("DELETE FROM " + t)
	case 1, 2, 3:
		return stmt("DELETE FROM "+t+" WHERE id IN (SELECT id FROM "+randomTable(r)+" WHERE a<? LIMIT 5)", k)
	}
	return stmt("DELETE FROM "+t+" WHERE id=?", k)
}
