package capstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// A file that the first version made is brought up to date with what is in it.
func TestUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "caps.db")
	first, err := os.ReadFile("migrations/sqlite/00001_init.sql")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, fstest.MapFS{"00001_init.sql": {Data: first}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := newClock()
	o := newOwner(t, "alice", c)
	host := (&testStore{name: "one"}).host(o.space)
	want := map[string]string{"k": "1", "k/\x00": "2"}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("INSERT INTO spaces (sid, space, host, state, created) VALUES (7, ?, ?, 'hosted', 0)", o.space.String(), host[:])
	for key, value := range want {
		op := putOp(o.space, key, value)
		exec("INSERT INTO vals (sid, hash, size, inline) VALUES (7, ?, ?, ?)", op.Value[:], op.Size, op.Inline)
		exec(`INSERT INTO kv (sid, key, live, seq, epoch, idx, value, meta, f_seq, f_epoch, f_idx)
			VALUES (7, ?, 1, 1, zeroblob(32), 0, ?, '{}', -1, zeroblob(32), 0)`, key, op.Value[:])
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, "one", c, path)
	for key, value := range want {
		if got := s.get(o.space, key); got != value {
			t.Errorf("%q = %q", key, got)
		}
	}
	keys, _, err := s.List(t.Context(), o.space, "", "", 0)
	if err != nil || len(keys) != 2 || keys[0] != "k" {
		t.Errorf("keys %q, %v", keys, err)
	}
	if n, err := s.Usage(t.Context(), o.space); n != 2 || err != nil {
		t.Errorf("usage %d, %v", n, err)
	}
	o.hostOn(s)
	s.delegate(o.header)
	if err := o.put(s, "k", "new"); err != nil || s.get(o.space, "k") != "new" {
		t.Error(s.get(o.space, "k"), err)
	}
}

// What is asked at every write is answered by an index that has all of it, not by a walk through the Space's keys.
func TestWhoHoldsAValueIsIndexed(t *testing.T) {
	s := open(t, "one", newClock(), filepath.Join(t.TempDir(), "caps.db"))
	db, err := sql.Open("sqlite", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+capstore.HoldsValue(s.Store), 1, []byte("hash"), 1, []byte("hash"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		if plan += step + "; "; strings.Contains(step, "SCAN") && !strings.Contains(step, "CONSTANT ROW") {
			t.Errorf("it walks: %q", step)
		}
	}
	if err := rows.Err(); err != nil || !strings.Contains(plan, "kv_value (sid=? AND value=?)") {
		t.Errorf("%q, %v", plan, err)
	}
}
