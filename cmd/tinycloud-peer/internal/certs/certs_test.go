package certs_test

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/certs"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// TestMain lets two goroutines of certmagic be: one a process, and one that ends some seconds after the file that it
// refreshed is gone.
func TestMain(m *testing.M) {
	const magic = "github.com/caddyserver/certmagic."
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(magic+"(*RingBufferRateLimiter).loop"), goleak.IgnoreAnyFunction(magic+"keepLockfileFresh"))
}

// files are a certificate of a name and its key, at the same paths each time.
func files(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM, keyPEM := testservers.Certificate(t, name)
	write(t, cert, certPEM)
	write(t, key, keyPEM)
	return cert, key
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFilesAreReadAgain renews a certificate, one file after the other, and breaks one.
func TestFilesAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cert, key := files(t, dir, "first.example")
		var log strings.Builder
		f, err := certs.NewFiles(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		serves := func(want string) {
			t.Helper()
			time.Sleep(2 * time.Second) // virtual
			c, err := f.Config().GetCertificate(&tls.ClientHelloInfo{})
			if err != nil || c.Leaf.DNSNames[0] != want {
				t.Errorf("serves %v, %v, want %s", c.Leaf.DNSNames, err, want)
			}
		}
		serves("first.example")
		second, secondKey := testservers.Certificate(t, "second.example.org")
		write(t, cert, second) // its key is not there yet
		serves("first.example")
		serves("first.example")
		if n := strings.Count(log.String(), "cannot be used"); n != 1 {
			t.Errorf("said %d times: %s", n, &log)
		}
		write(t, key, secondKey)
		serves("second.example.org")
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		serves("second.example.org")
		files(t, dir, "third.example")
		serves("third.example")
	})
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	cert, key := files(t, dir, "a.example")
	other, _ := testservers.Certificate(t, "b.example")
	for name, path := range map[string]string{"none": filepath.Join(dir, "none"), "no certificate": key} {
		if _, err := certs.NewFiles(path, key, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, cert, other)
	if _, err := certs.NewFiles(cert, key, nil); err == nil {
		t.Error("a key of another certificate is taken")
	}
}

func TestRedirect(t *testing.T) {
	for _, tt := range []struct {
		host, target string
		port         int
		names        []string
		want         string // "": refused
	}{
		{"a.example", "/x?y=%2F", 443, nil, "https://a.example/x?y=%2F"},
		{"a.example:80", "/", 8443, nil, "https://a.example:8443/"},
		{"A.Example.:80", "/", 443, []string{"a.example"}, "https://a.example/"},
		{"evil.example", "/", 443, []string{"a.example", "b.example"}, "https://a.example/"},
		{"b.example", "/", 443, []string{"a.example", "b.example"}, "https://b.example/"},
		{"[2001:db8::1]:80", "/", 443, nil, "https://[2001:db8::1]/"},
		{"[2001:db8::1]", "/", 444, nil, "https://[2001:db8::1]:444/"},
		{"192.0.2.1", "//evil.example/", 443, nil, "https://192.0.2.1//evil.example/"},
		{"a.example/@evil", "/", 443, nil, ""},
		{"", "/", 443, nil, ""},
		{"", "/", 443, []string{"a.example"}, "https://a.example/"},
	} {
		r, w := httptest.NewRequest(http.MethodPost, tt.target, strings.NewReader("x")), httptest.NewRecorder()
		r.Host = tt.host
		r.URL.Host = ""
		certs.Redirect(tt.port, tt.names).ServeHTTP(w, r)
		status := http.StatusPermanentRedirect
		if tt.want == "" {
			status = http.StatusBadRequest
		}
		if got := w.Header().Get("Location"); w.Code != status || got != tt.want {
			t.Errorf("%s%s: %d %q, want %q", tt.host, tt.target, w.Code, got, tt.want)
		}
	}
}
