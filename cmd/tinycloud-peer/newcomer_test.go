package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestNewcomer does what README.md says, line by line, with this program.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("tinycloud-peer")
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), shipRoot+"/scripts/newcomer", program)
	run.WaitDelay = 10 * time.Second
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	if !strings.Contains(string(out), "ms  host a Space on both") {
		t.Errorf("%s", out)
	}
}
