package node_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// TestModes starts a node twice: others can open none of its files, also when a file was theirs to open before.
func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	cfg := settings(t)
	dir := cfg.Storage.Datadir
	verify := func() {
		t.Helper()
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %s", path, info.Mode())
			}
			if d.Name() == ".index" {
				return fs.SkipDir // nobody else gets in there
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	n, stop := run(t, cfg)
	_, invoke := signedIn(t, n)
	if status, answer := invoke("tinycloud.kv/put", "large", strings.Repeat("x", 1<<17)); status != 200 {
		t.Fatal(status, answer)
	}
	verify()
	stop()
	theirs := []string{"caps.db", "secret", "blocks"}
	for _, name := range theirs {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var lines bytes.Buffer
	_, stop = runWith(t, cfg, node.Options{Log: slog.New(slog.NewTextHandler(&lines, nil))})
	verify()
	stop()
	for _, name := range theirs {
		if !strings.Contains(lines.String(), filepath.Join(dir, name)+": mode 0755 let others at it") {
			t.Errorf("no warning of %s: %s", name, lines.String())
		}
	}
}
