package private_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
)

func TestMend(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]os.FileMode{"open": 0o644, "closed": 0o600} {
		if err := os.WriteFile(path(name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(path("blocks"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "blocks"} { // whatever the umask is
		if err := os.Chmod(path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mended := private.Mend(path("open"), path("closed"), path("missing"), path("blocks"))
	if len(mended) != 2 || mended[0].Path != path("open") || mended[1].Path != path("blocks") {
		t.Error(mended)
	}
	for _, m := range mended {
		if info, err := os.Stat(m.Path); err != nil || info.Mode().Perm() != 0o700 || m.Err != nil || !strings.HasSuffix(m.String(), "it is 0700 now") {
			t.Error(m, info.Mode(), err)
		}
	}
	if again := private.Mend(path("open"), path("blocks")); again != nil {
		t.Error(again)
	}
}
