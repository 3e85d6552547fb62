package db_test

import (
	"errors"
	"path/filepath"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// TestQuickErrors holds that what a caller's function returns stays what it is, what SQLite refuses has its class, and that a
// query that ended early is over.
func TestQuickErrors(t *testing.T) {
	ctx := t.Context()
	x, c := openWriter(t, filepath.Join(t.TempDir(), "x.db"), `CREATE TABLE facts (n INTEGER PRIMARY KEY, what TEXT);
`)
	for n := range 3 {
		if err := c.Exec(ctx, "INSERT INTO facts (n, what) VALUES (?, ?)", n, "x"); err != nil {
			t.Fatal(err)
		}
	}
	mine := errors.New("enough")
	for range 2 {
		rows := 0
		err := c.Each(ctx, func(db.Scan) error { rows++; return mine }, "SELECT n FROM facts")
		if !errors.Is(err, mine) || errors.Is(err, tinycloud.ErrUnavailable) || rows != 1 {
			t.Errorf("%v after %d rows", err, rows)
		}
	}
	var n int
	var text string
	one := func(query string, dest ...any) []error {
		_, err1 := c.One(ctx, dest, query)
		_, err2 := x.Read.One(ctx, dest, query)
		return []error{err1, err2}
	}
	for _, query := range []string{"SELECT n FROM nothing", "SELECT what FROM facts", "SELECT n, what FROM facts"} {
		for _, err := range one(query, &n) {
			if !errors.Is(err, tinycloud.ErrUnavailable) {
				t.Errorf("%s: %v", query, err)
			}
		}
	}
	for _, err := range one("SELECT n, what FROM facts WHERE n = 2", &n, &text) {
		if err != nil || n != 2 || text != "x" {
			t.Error(n, text, err)
		}
	}
	if err := c.Exec(ctx, "INSERT INTO facts (n) VALUES (1)"); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Error(err)
	}
	var left *int
	if ok, err := x.Read.One(ctx, []any{&left}, "SELECT max(n) FROM facts WHERE n > 7"); !ok || err != nil || left != nil {
		t.Error(ok, err, left)
	}
	if ok, err := x.Read.One(ctx, []any{&n}, "SELECT n FROM facts WHERE n > 7"); ok || err != nil {
		t.Error(ok, err)
	}
}
