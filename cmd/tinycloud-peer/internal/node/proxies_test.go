package node_test

import (
	"net/http"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// TestClientsBehindAProxy reads as several clients of one proxy: each has a budget where the proxy is trusted.
func TestClientsBehindAProxy(t *testing.T) {
	read := func(url, client string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", client)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, tt := range []struct {
		variable string
		another  int // what another client gets after the first used up its budget
	}{{"TINYCLOUD_TRUSTED_PROXIES=127.0.0.1", http.StatusNotFound}, {"TINYCLOUD_TRUSTED_PROXIES=", http.StatusTooManyRequests}} {
		n, stop := run(t, settings(t, tt.variable, "TINYCLOUD_PUBLIC_SPACES_RATE_LIMIT_PER_MINUTE=1", "TINYCLOUD_PUBLIC_SPACES_RATE_LIMIT_BURST=2"))
		url := n.URL() + "/public/" + captest.NewWallet("owner").Space("public").String() + "/kv/k"
		for _, want := range []int{http.StatusNotFound, http.StatusNotFound, http.StatusTooManyRequests} {
			if got := read(url, "192.0.2.1"); got != want {
				t.Errorf("%s: %d, want %d", tt.variable, got, want)
			}
		}
		if got := read(url, "192.0.2.2"); got != tt.another {
			t.Errorf("%s: another client: %d, want %d", tt.variable, got, tt.another)
		}
		stop()
	}
}
