package node_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// TestBackupOverSocketAlone asks for backups where it must not be done.
func TestBackupOverSocketAlone(t *testing.T) {
	cfg := settings(t)
	n, _ := run(t, cfg)
	if status, answer := call(t, http.MethodPost, n.URL()+"/admin/backup", bearer, `{"dir":"/tmp/x"}`); status != http.StatusNotFound {
		t.Errorf("over HTTP: %d %s", status, answer)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", node.Socket(cfg.Storage.Datadir))
	}}}
	ask := func(body string) int {
		t.Helper()
		r, err := client.Post("http://node/admin/backup", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		return r.StatusCode
	}
	dir := filepath.Join(t.TempDir(), "backup")
	for body, want := range map[string]int{
		`{"dir":"relative"}`: 400, `{"dir":""}`: 400, `{`: 400, `{"dir":"/","more":1}`: 400, `{"dir":"` + t.TempDir() + `"}`: 400,
		`{"dir":"` + dir + `/none/below"}`: 400,
	} {
		if got := ask(body); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
	// What an interrupted backup left is no obstacle.
	if err := os.MkdirAll(dir+".partial/blocks", 0o700); err != nil {
		t.Fatal(err)
	}
	if got := ask(`{"dir":"` + dir + `"}`); got != 200 {
		t.Errorf("a good one: %d", got)
	}
	for _, name := range []string{"caps.db", "secret", "blocks"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
