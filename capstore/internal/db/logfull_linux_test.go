package db_test

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFullLog has no room for what a transaction writes: the commit fails, nothing of it is there, and the next one is as
// durable as any.
func TestFullLog(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "x.db")
	x, c := openWriter(t, path, `CREATE TABLE facts (n INTEGER PRIMARY KEY, what BLOB NOT NULL);
`)
	add := func(n, bytesEach int) error {
		if err := c.Begin(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := c.Exec(ctx, "INSERT INTO facts (n, what) VALUES (?, ?)", 100*n+i, bytes.Repeat([]byte{byte(n)}, bytesEach)); err != nil {
				return err
			}
		}
		return c.Commit(ctx)
	}
	count := func() (n int) {
		if _, err := x.Read.One(ctx, []any{&n}, "SELECT count(*) FROM facts"); err != nil {
			t.Error(err)
		}
		return n
	}
	if err := add(0, 100); err != nil {
		t.Fatal(err)
	}
	log, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	for n, room := range []uint64{0, 100, 5000, 200_000} {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(log.Size()) + room, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		err := add(1+n, 4000)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			t.Fatalf("with room for %d bytes there was room", room)
		}
		_ = c.Rollback(ctx) // SQLite may have done so
		if got := count(); got != 100 {
			t.Fatalf("%d facts after a commit that failed", got)
		}
	}
	if err := add(9, 4000); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 200 {
		t.Fatalf("%d facts, not 200", got)
	}
}
