package node_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// TestS3 runs a node on a bucket, through a death of the service.
func TestS3(t *testing.T) {
	b := testservers.S3(t)
	t.Setenv("AWS_ACCESS_KEY_ID", b.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", b.SecretKey)
	t.Setenv("AWS_DEFAULT_REGION", b.Region)
	variables := []string{"TINYCLOUD_STORAGE_BLOCKS_TYPE=S3", "TINYCLOUD_STORAGE_BLOCKS_ENDPOINT=" + b.Endpoint, "TINYCLOUD_STORAGE_BLOCKS_BUCKET="}
	n, stop := run(t, settings(t, variables[0], variables[1], variables[2]+b.Name))
	space, invoke := signedIn(t, n)
	want := func(what string, want, got int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: status %d, want %d", what, got, want)
		}
	}
	// An answer holds for a second.
	health := func(want int) (status int) {
		for began := time.Now(); status != want && time.Since(began) < 10*time.Second; {
			status, _ = call(t, http.MethodGet, n.URL()+"/healthz", "", "")
		}
		return status
	}
	large := strings.Repeat("0123456789abcdef", 200_000)
	status, _ := invoke("tinycloud.kv/put", "large", large)
	want("put", http.StatusOK, status)
	if files, err := filepath.Glob(filepath.Join(b.Dir(), space.String(), "*=")); err != nil || len(files) != 1 {
		t.Errorf("%q, %v in the bucket", files, err)
	}
	get := func() {
		t.Helper()
		status, got := invoke("tinycloud.kv/get", "large", "")
		want("get", http.StatusOK, status)
		if got != large {
			t.Errorf("%d bytes came back", len(got))
		}
	}
	get()
	want("healthz", http.StatusOK, health(http.StatusOK))
	b.Kill9()
	want("healthz while the service is down", http.StatusServiceUnavailable, health(http.StatusServiceUnavailable))
	status, _ = invoke("tinycloud.kv/put", "other", large+"!")
	want("put while the service is down", http.StatusServiceUnavailable, status)
	status, _ = invoke("tinycloud.kv/get", "large", "")
	want("get while the service is down", http.StatusServiceUnavailable, status)
	b.Start()
	want("healthz", http.StatusOK, health(http.StatusOK))
	get()
	status, _ = invoke("tinycloud.kv/put", "other", large+"!")
	want("put", http.StatusOK, status)
	stop()
	if _, err := node.New(t.Context(), settings(t, variables[0], variables[1], variables[2]+"elsewhere"), node.Options{}); err == nil || !strings.Contains(err.Error(), "storage.blocks.bucket") {
		t.Errorf("a bucket that isn't there: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if _, err := node.New(t.Context(), settings(t, variables[0], variables[1], variables[2]+b.Name), node.Options{}); err == nil || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("no secret: %v", err)
	}
}
