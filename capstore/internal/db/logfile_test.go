package db_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"
)

// TestLogIsWrittenBeforeCommitReturns copies the files of a database after each commit, as they would be found after a
// power failure, and has others read it meanwhile. Some transactions are larger than the cache, some are undone, and the
// log is cut and begun again.
func TestLogIsWrittenBeforeCommitReturns(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "x.db")
	x, c := openWriter(t, path, `CREATE TABLE facts (n INTEGER PRIMARY KEY, what BLOB NOT NULL);
CREATE INDEX facts_what ON facts (what);
`)
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	text := func() []byte {
		b := make([]byte, 200+random.IntN(3000))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	facts := map[int64][]byte{}
	check := func(from string, find func(n int64) ([]byte, error), count int64) {
		t.Helper()
		if count != int64(len(facts)) {
			t.Fatalf("%s: %d facts, not %d", from, count, len(facts))
		}
		for n, want := range facts {
			if got, err := find(n); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: fact %d: %v", from, n, err)
			}
		}
	}
	must(c.Exec(ctx, "PRAGMA cache_size = 20"))
	next := int64(0)
	for round := range 15 {
		must(c.Begin(ctx))
		made := map[int64][]byte{}
		for range 1 + random.IntN(100) {
			b := text()
			must(c.Exec(ctx, "INSERT INTO facts (n, what) VALUES (?, ?)", next, b))
			made[next], next = b, next+1
		}
		for n := range facts {
			if n%7 == int64(round%7) {
				b := text()
				must(c.Exec(ctx, "UPDATE facts SET what = ? WHERE n = ?", b, n))
				made[n] = b
			}
		}
		if round%5 == 4 {
			must(c.Rollback(ctx))
		} else {
			must(c.Commit(ctx))
			for n, b := range made {
				facts[n] = b
			}
		}
		var count int64
		_, err := x.Read.One(ctx, []any{&count}, "SELECT count(*) FROM facts")
		must(err)
		check("another connection", func(n int64) (b []byte, err error) {
			_, err = x.Read.One(ctx, []any{&b}, "SELECT what FROM facts WHERE n = ?", n)
			return b, err
		}, count)
		found := filepath.Join(dir, fmt.Sprint("found", round))
		for _, end := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + end)
			must(err, os.WriteFile(found+end, b, 0o600))
		}
		after, err := sql.Open("sqlite", found)
		must(err)
		var sound string
		must(after.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&sound), after.QueryRowContext(ctx, "SELECT count(*) FROM facts").Scan(&count))
		if sound != "ok" {
			t.Fatal(sound)
		}
		check("after a power failure", func(n int64) (b []byte, err error) {
			return b, after.QueryRowContext(ctx, "SELECT what FROM facts WHERE n = ?", n).Scan(&b)
		}, count)
		must(after.Close(), os.Remove(found))
		switch round % 10 {
		case 3:
			must(c.Exec(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"))
		case 7:
			must(c.Exec(ctx, "PRAGMA wal_checkpoint(RESTART)"))
		}
	}
}
