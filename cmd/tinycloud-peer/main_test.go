package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// TestMain lets the test binary be the program itself, under its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tinycloud-peer": func() { setClock(); setServices(); main() }})
}

// clockOff sets by how much the clock of a node that a test runs is off, as a duration; negative is behind.
const clockOff = "TEST_CLOCK_OFF="

// setClock sets the clock of this process as the test that started it wants it.
func setClock() {
	off, err := time.ParseDuration(os.Getenv(strings.TrimSuffix(clockOff, "=")))
	if err == nil {
		clock = func() time.Time { return time.Now().Add(off) }
	}
}

// withCounter has a node that a test runs serve a counter beside key-value.
const withCounter = "TEST_COUNTER="

// withoutDatabases has a node that a test runs serve key-value alone, as releases with other services do.
const withoutDatabases = "TEST_WITHOUT_SQL="

func setServices() {
	withoutSQL = os.Getenv(strings.TrimSuffix(withoutDatabases, "=")) != ""
	if os.Getenv(strings.TrimSuffix(withCounter, "=")) != "" {
		services = append(services, servicetest.Counter{Form: 1})
	}
}

// TestScripts run the program as a user does. Each has a directory of its own and no settings.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			// No tinycloud.toml is found above the directory.
			e.Setenv("TINYCLOUD_CONFIG_FILE", filepath.Join(e.WorkDir, "empty.toml"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			return os.WriteFile(filepath.Join(e.WorkDir, "empty.toml"), nil, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "wallet": wallet, "sign": sign},
	})
}
