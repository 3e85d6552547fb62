package db_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// TestGather keeps inserts back on SQLite: what is asked sees them, and what is refused of them lets nothing be committed.
func TestGather(t *testing.T) {
	ctx := t.Context()
	_, c := openWriter(t, filepath.Join(t.TempDir(), "x.db"), `CREATE TABLE facts (n INTEGER PRIMARY KEY, what TEXT NOT NULL);
CREATE TABLE kept (n INTEGER PRIMARY KEY, what TEXT NOT NULL);
`)
	fact, kept := db.Insert{Into: "facts", Columns: "n what"}, db.Insert{Into: "kept", Columns: "n what", Key: "n", Replace: true}
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	add := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			_, err1 := c.Insert(ctx, fact, n, fmt.Sprint(n))
			_, err2 := c.Insert(ctx, kept, n%10, fmt.Sprint(n))
			must(err1, err2)
		}
	}
	count := func() (facts, some int) {
		t.Helper()
		_, err1 := c.One(ctx, []any{&facts}, "SELECT count(*) FROM facts")
		_, err2 := c.One(ctx, []any{&some}, "SELECT count(*) FROM kept WHERE what >= ?", "90")
		must(err1, err2)
		return facts, some
	}
	must(c.Begin(ctx), c.Gather(ctx, true))
	add(0, 100)
	if facts, some := count(); facts != 100 || some != 10 {
		t.Fatal(facts, some)
	}
	add(100, 137)
	must(c.Gather(ctx, false), c.Commit(ctx))
	if facts, _ := count(); facts != 137 {
		t.Fatal(facts)
	}
	must(c.Begin(ctx), c.Gather(ctx, true))
	add(136, 150) // the first is there
	if err := c.Gather(ctx, false); err == nil {
		t.Fatal("a row that is there was added")
	}
	if err := c.Commit(ctx); err == nil {
		t.Fatal("committed without what was kept back")
	}
	must(c.Rollback(ctx), c.Begin(ctx), c.Commit(ctx))
	if facts, _ := count(); facts != 137 {
		t.Fatal(facts)
	}
}

// TestBulk holds that pages get from SQLite's log to the file beside the one who writes, that the log has a bound, and that
// all is there afterwards.
func TestBulk(t *testing.T) {
	ctx := t.Context()
	migrations := fstest.MapFS{"sqlite/00001_init.sql": &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE facts (n INTEGER PRIMARY KEY, what BLOB NOT NULL);\nCREATE TABLE more (what INTEGER);\n")}}
	path := filepath.Join(t.TempDir(), "x.db")
	open := func() (*db.DB, *db.Conn) {
		x, err := db.OpenSQLite(ctx, path, "OFF", migrations, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		c, err := x.Writer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return x, c
	}
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	const rows, size, each = 300, 128 << 10, 20
	x, c := open()
	must(c.Bulk(ctx, true))
	largest := int64(0)
	for n := range rows {
		if n%each == 0 {
			must(c.Begin(ctx), c.Gather(ctx, true))
		}
		_, err := c.Insert(ctx, db.Insert{Into: "facts", Columns: "n what"}, n, make([]byte, size))
		must(err)
		if n%each == each-1 {
			must(c.Gather(ctx, false), c.Commit(ctx))
			if n/each%8 == 7 {
				db.AwaitCheckpoint(c)
			}
			info, err := os.Stat(path + "-wal")
			must(err)
			largest = max(largest, info.Size())
		}
	}
	if largest >= rows*size*3/4 || largest < 12<<20 {
		t.Errorf("the log had %d bytes, of %d that were written", largest, rows*size)
	}
	must(c.Begin(ctx), c.Gather(ctx, true))
	for range rows {
		_, err := c.Insert(ctx, db.Insert{Into: "more", Columns: "what"}, make([]byte, size))
		must(err)
	}
	must(c.Gather(ctx, false), c.Commit(ctx))
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() < rows*size {
		t.Fatalf("the log has %d bytes after one of %d, %v", info.Size(), rows*size, err)
	}
	must(c.Bulk(ctx, false))
	for range 2 { // SQLite's log begins anew, and is cut
		_, err := c.Insert(ctx, db.Insert{Into: "more", Columns: "what"}, 1)
		must(err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() > 34<<20 {
		t.Errorf("the log has %d bytes in the end, %v", info.Size(), err)
	}
	must(c.Close(), x.Close())
	x, c = open()
	var n, bytes int
	_, err := c.One(ctx, []any{&n, &bytes}, "SELECT count(*), sum(length(what)) FROM facts")
	must(err, c.Close(), x.Close())
	if n != rows || bytes != rows*size {
		t.Errorf("%d rows of %d bytes are there", n, bytes)
	}
}

// openWriter opens a file with some tables, and a connection that writes. Both are closed with the test.
func openWriter(t *testing.T, path, tables string) (*db.DB, *db.Conn) {
	t.Helper()
	migrations := fstest.MapFS{"sqlite/00001_init.sql": &fstest.MapFile{Data: []byte("-- +goose Up\n" + tables)}}
	x, err := db.OpenSQLite(t.Context(), path, "FULL", migrations, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	c, err := x.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return x, c
}
