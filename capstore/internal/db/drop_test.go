package db_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// TestDropCloses drops a connection that wrote, and sees that nothing has the file open any more.
func TestDropCloses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("open files are seen in /proc")
	}
	ctx := t.Context()
	migrations := fstest.MapFS{"sqlite/00001_init.sql": &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE facts (n INTEGER PRIMARY KEY);\n")}}
	path := filepath.Join(t.TempDir(), "x.db")
	x, err := db.OpenSQLite(ctx, path, "FULL", migrations, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := x.Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.Begin(ctx), c.Exec(ctx, "INSERT INTO facts (n) VALUES (?)", 1), c.Commit(ctx)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if open(t, path) == 0 {
		t.Fatal("the file is not seen to be open")
	}
	c.Drop()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if n := open(t, path); n > 0 {
		t.Errorf("%d files are still open", n)
	}
}

// open counts the open files whose path begins with one.
func open(t *testing.T, path string) (n int) {
	t.Helper()
	const fds = "/proc/self/fd"
	all, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink(filepath.Join(fds, fd.Name())); err == nil && strings.HasPrefix(to, path) {
			n++
		}
	}
	return n
}
