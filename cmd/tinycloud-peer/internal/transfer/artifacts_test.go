package transfer_test

import (
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/reference"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/transfer"
)

// artifact saves a database as the reference does: a checkpoint, and what its log has beyond that if delta is set.
func (o *old) artifact(service, name string, delta bool, statements ...string) {
	o.t.Helper()
	path := filepath.Join(o.t.TempDir(), "running.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=wal_autocheckpoint(0)")
	must(o.t, err)
	run := func(statement string) {
		_, err := db.ExecContext(o.t.Context(), statement)
		must(o.t, err)
	}
	run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	run("INSERT INTO t(id, v) VALUES(40, 'checkpoint')")
	run("PRAGMA wal_checkpoint(TRUNCATE)")
	for _, s := range statements {
		run(s)
	}
	payload, err := os.ReadFile(path)
	must(o.t, err)
	var log []byte
	var logHash any
	if delta {
		log, err = os.ReadFile(path + "-wal")
		must(o.t, err)
		logHash = cid(log)
	}
	must(o.t, db.Close())
	o.exec("INSERT INTO database_artifact VALUES (?,?,?,7,?,?,?,?,?,?)", service, o.space.String(), name, "content", payload, len(payload)+len(log), cid(payload), log, logHash)
}

func cid(b []byte) string { return tinycloud.Sum(b).EventID() }

// SQL databases of the reference become files that SQLite opens, with what its log had, and are named with the paths by which
// they were used. What is damaged is left out and told of.
func TestReferenceDatabases(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		o, where := newFileOld(t)
		testReferenceDatabases(t, o, func() (*reference.DB, error) { return reference.Open(t.Context(), where, nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		db, where := newServer(t)
		testReferenceDatabases(t, newOld(t, db, true), func() (*reference.DB, error) { return reference.Open(t.Context(), where, nil) })
	})
}

func testReferenceDatabases(t *testing.T, o *old, open func() (*reference.DB, error)) {
	bytesOf := map[bool]string{false: "blob", true: "bytea"}[o.dollar]
	o.exec(strings.ReplaceAll(`CREATE TABLE database_artifact (service varchar(99) NOT NULL, space varchar(999) NOT NULL, name varchar(999) NOT NULL, revision bigint NOT NULL,
		content_hash varchar(99) NOT NULL, payload BYTES NOT NULL, size_bytes bigint NOT NULL, checkpoint_content_hash varchar(99) NOT NULL, delta_payload BYTES, delta_content_hash varchar(99),
		PRIMARY KEY (service, space, name))`, "BYTES", bytesOf))
	o.exec(strings.ReplaceAll(`CREATE TABLE invoked_abilities (invocation BYTES NOT NULL, resource varchar(999) NOT NULL, ability varchar(99) NOT NULL)`, "BYTES", bytesOf))
	for i, path := range []string{"/sql/xyz.app/conversations", "/sql/abc.app/conversations", "/kv/x/conversations", "/sql/plain", "0/sql/y/plain"} {
		o.exec("INSERT INTO invoked_abilities VALUES (?,?,?)", []byte{byte(i)}, o.space.String()+path, "tinycloud.sql/write")
	}
	data := settings(t, "")
	did := "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
	o.host(did)
	o.artifact("sql", "conversations", true, "INSERT INTO t(v) VALUES('log')", "CREATE INDEX i ON t(v)")
	o.artifact("sql", "plain", false)
	o.artifact("sql", "../a b", false)
	o.artifact("sql", "damaged", false)
	o.exec("UPDATE database_artifact SET checkpoint_content_hash = ? WHERE name = 'damaged'", cid([]byte("other")))
	o.artifact("sql", "none", false)
	o.exec("UPDATE database_artifact SET checkpoint_content_hash = ?, payload = ? WHERE name = 'none'", cid([]byte("nothing")), []byte("nothing"))
	o.artifact("sql", "large cell", true, "INSERT INTO t VALUES(41, zeroblob(1048577))")
	o.artifact("duckdb", "conversations", false)

	files := t.TempDir()
	with(t, data, func(d *node.Data) {
		for range 2 { // it may be repeated
			from, err := open()
			must(t, err)
			x := &transfer.TakeOver{From: from, Blocks: reference.Dir(o.blocks), To: d, Log: io.Discard, Files: files}
			out, err := x.Run(t.Context())
			must(t, err)
			must(t, from.Close())
			checkReferenceDatabases(t, files, out, x)
		}
	})
}

func checkReferenceDatabases(t *testing.T, files string, out []transfer.Outcome, x *transfer.TakeOver) {
	t.Helper()
	type found struct {
		Name, Rows string
		Paths      []string
		Tables     int
	}
	var got []found
	for _, d := range out[0].Databases {
		if rel, err := filepath.Rel(files, d.File); err != nil || strings.Count(rel, "/") != 1 || strings.HasPrefix(rel, "..") {
			t.Errorf("%q is in %s", d.Name, d.File)
		}
		if _, err := os.Stat(d.File + "-wal"); err == nil {
			t.Errorf("%s has a log beside it", d.File)
		}
		db, err := sql.Open("sqlite", "file:"+strings.ReplaceAll(d.File, "%", "%25")+"?mode=ro")
		must(t, err)
		f := found{Name: d.Name, Paths: d.Paths, Tables: d.Tables}
		must(t, db.QueryRowContext(t.Context(), "SELECT group_concat(id || ' ' || CASE typeof(v) WHEN 'text' THEN v ELSE length(v) END, ', ') FROM t").Scan(&f.Rows))
		must(t, db.Close())
		got = append(got, f)
	}
	slices.SortFunc(got, func(a, b found) int { return strings.Compare(a.Name, b.Name) })
	want := []found{
		{"../a b", "40 checkpoint", nil, 1},
		{"conversations", "40 checkpoint, 41 log", []string{"abc.app/conversations", "xyz.app/conversations"}, 1},
		{"large cell", "40 checkpoint, 41 1048577", nil, 1},
		{"plain", "40 checkpoint", []string{"plain"}, 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if x.Odd.Count(transfer.FoundNoSQLite) != 1 || x.Odd.Count(transfer.FoundCell) != 1 || x.Odd.Len() != 4 {
		x.Odd.Print(t.Output())
		t.Error("odd")
	}
}
