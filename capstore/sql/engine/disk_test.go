//go:build unix

package engine_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// A disk that takes no more is no verdict: the database says so, and once there is room goes on from the last commit.
func TestFullDisk(t *testing.T) {
	h := newHost(t, engine.Options{Group: 1})
	log := []engine.Op{operation(1, stmt("CREATE TABLE t(a)")), operation(2, stmt("INSERT INTO t VALUES(zeroblob(40000))"))}
	h.follow(log, 0)
	late := []engine.Op{operation(3, stmt("INSERT INTO t VALUES(zeroblob(900000))"))}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	full := before
	full.Cur = 150_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	verdicts := 0
	err := h.Apply(t.Context(), late, func(*engine.Op, engine.Result) { verdicts++ }, nil)
	_, again := h.Try(t.Context(), &late[0])
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, engine.ErrBroken) || !errors.Is(again, engine.ErrBroken) || errors.Is(err, engine.ErrLost) {
		t.Errorf("a full disk: %v; then %v", err, again)
	}
	h.reopen()
	if pos, digest := h.Position(); pos != 2 || digest != digestOf(log) {
		t.Errorf("at %d after it", pos)
	}
	log = append(log, late...)
	h.follow(log, len(log))
	if got := h.query("SELECT sum(length(a)) FROM t"); got != "[[940000]]" {
		t.Errorf("content %s", got)
	}
}
