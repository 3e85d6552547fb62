//go:build unix

package testservers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// An ACMEServer gives certificates to whoever answers its challenges at 127.0.0.1, whatever the name. What it knows is
// gone when it is killed.
type ACMEServer struct {
	Server
	Directory string // URL
	Trust     string // PEM file with its own certificate, as SSL_CERT_FILE takes it

	HTTP, TLS int // ports where it validates HTTP-01 and TLS-ALPN-01
}

// ACME makes an ACME server that validates on ports that nobody listens on yet, and whose certificates are valid for a
// while; 0: for months.
func ACME(t testing.TB, valid time.Duration) *ACMEServer {
	t.Helper()
	dns := own(t, func() (engine, error) { return findDNS() })
	e, err := findPebble(dns.port, valid)
	if err != nil {
		t.Fatal(err)
	}
	p := own(t, func() (engine, error) { return e, nil })
	a := &ACMEServer{Server: Server{Addr: address(p.port), t: t, p: p}, Trust: filepath.Join(p.dir, "cert.pem"), HTTP: e.http, TLS: e.tls}
	a.Directory = "https://" + a.Addr + "/dir"
	return a
}

// Roots are what clients of the node trust: the server makes them when it starts.
func (a *ACMEServer) Roots() *x509.CertPool {
	a.t.Helper()
	e, ok := a.p.engine.(*pebble)
	if !ok {
		a.t.Fatal("not an ACME server")
	}
	b, err := get(a.t.Context(), e.management, "/roots/0")
	a.must(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		a.t.Fatalf("not a certificate: %.100s", b)
	}
	return pool
}

type pebble struct {
	program               string
	dns                   int // port of the name server
	valid                 time.Duration
	management, http, tls int
}

func findPebble(dns int, valid time.Duration) (*pebble, error) {
	path, err := built("pebble", "the ACME server pebble")
	e := &pebble{program: path, dns: dns, valid: valid}
	for _, port := range []*int{&e.management, &e.http, &e.tls} {
		if err == nil {
			*port, err = freePort()
		}
	}
	return e, err
}

func (e *pebble) name() string { return "acme" }

func (e *pebble) prepare(_ context.Context, dir string) error {
	cert, key, err := certificate("127.0.0.1")
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
}

// command leaves the configuration beside the certificate. A server that does not find it says so.
func (e *pebble) command(dir string, port int) *exec.Cmd {
	file := filepath.Join(dir, "config.json")
	b, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address(port), "managementListenAddress": address(e.management),
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": e.http, "tlsPort": e.tls, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "for a while", "validityPeriod": int(e.valid.Seconds())}},
	}})
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		file = err.Error()
	}
	cmd := exec.Command(e.program, "-strict", "-config", file, "-dnsserver", address(e.dns))
	cmd.Env, cmd.Dir = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1"), dir
	return cmd
}

func (e *pebble) quit() syscall.Signal { return syscall.SIGKILL } // it keeps nothing

func (e *pebble) ping(ctx context.Context, port int) error {
	_, err := get(ctx, port, "/dir")
	_, other := get(ctx, e.management, "/roots/0")
	return errors.Join(err, other)
}

// get asks a server of ours, whose certificate nobody knows.
func get(ctx context.Context, port int, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address(port)+path, nil)
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", res.Status)
	}
	return io.ReadAll(res.Body)
}

// dns is a name server for which every name is at 127.0.0.1.
type dns struct{ program string }

func findDNS() (dns, error) {
	path, err := built("pebble-challtestsrv", "the name server pebble-challtestsrv")
	return dns{path}, err
}

func (e dns) name() string { return "dns" }

func (e dns) prepare(context.Context, string) error { return nil }

func (e dns) command(dir string, port int) *exec.Cmd {
	cmd := exec.Command(e.program, "-dnsserver", address(port), "-management", "127.0.0.1:0", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	cmd.Dir = dir
	return cmd
}

func (e dns) quit() syscall.Signal { return syscall.SIGKILL }

func (e dns) ping(ctx context.Context, port int) error {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, "127.0.0.1:"+strconv.Itoa(port))
	}}
	_, err := r.LookupNetIP(ctx, "ip4", "ready.example.test.")
	return err
}

// built finds a program of bin/ at the top of the repository, or in the path.
func built(program, what string) (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, "bin", program)); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return "", missing(what, "it in bin/")
}
