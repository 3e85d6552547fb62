package testservers

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"
)

// A server that is paused stands still although a child of it has ended: it can't wait for that one.
func TestPausedBesideWhatHasEnded(t *testing.T) {
	cmd := exec.Command("sh", "-c", "true & exec sleep 600") // who has the child then never waits for it
	tether(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()         //nolint:errcheck // it was killed
	defer cmd.Process.Kill() //nolint:errcheck // it is there until it was waited for
	pid := cmd.Process.Pid
	ended := func(int) bool { below := children(pid); return len(below) == 1 && exited(below[0]) }
	if err := await(ended, []int{pid}); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	if err := errors.Join(p.signal(syscall.SIGSTOP), p.signal(syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
}
