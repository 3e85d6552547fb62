package db_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// TestGather keeps inserts back on SQLite: what is asked sees them, and what is refused of them lets nothing be committed.
func TestGather(t *testing.T) {
	ctx := t.Context()
	migrations := fstest.MapFS{"sqlite/00001_init.sql": &fstest.MapFile{Data: []byte(`-- +goose Up
CREATE TABLE facts (n INTEGER PRIMARY KEY, what TEXT NOT NULL);
CREATE TABLE kept (n INTEGER PRIMARY KEY, what TEXT NOT NULL);
`)}}
	x, err := db.OpenSQLite(ctx, filepath.Join(t.TempDir(), "x.db"), "FULL", migrations, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	c, err := x.Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
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
