package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be the program itself, under its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tinycloud-peer": main})
}

// TestScripts run the program as a user does. Each has a directory of its own and no settings.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			// No tinycloud.toml is found above the directory.
			e.Setenv("TINYCLOUD_CONFIG_FILE", filepath.Join(e.WorkDir, "empty.toml"))
			return os.WriteFile(filepath.Join(e.WorkDir, "empty.toml"), nil, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await, "wallet": wallet, "sign": sign},
	})
}
