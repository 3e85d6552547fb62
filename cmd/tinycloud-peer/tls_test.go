package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// secured is a node that speaks TLS, at ports of its own.
type secured struct {
	*testing.T
	ctx         context.Context
	peer        *cluster.Peer
	nodes       *cluster.Cluster
	port, plain string
	roots       *x509.CertPool
}

// newSecured does not start the node yet.
func newSecured(t *testing.T) *secured {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "tinycloud-peer")
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Minute, errors.New("not in time"))
	s := &secured{T: t, ctx: ctx, nodes: cluster.New(cluster.Options{
		Binary: binary, Dir: t.TempDir(), Within: func(string) []string { return nil }, // its admin client speaks no TLS
	})}
	t.Cleanup(func() {
		if t.Failed() && s.peer != nil {
			t.Logf("%s", s.peer.LogTail())
		}
		cancel()
		if err := s.nodes.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, port := range []*string{&s.port, &s.plain} {
		if *port, err = cluster.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *secured) start(env ...string) {
	s.Helper()
	var err error
	s.peer, err = s.nodes.Add(s.ctx, append(env, "TINYCLOUD_PORT="+s.port, "TINYCLOUD_TLS_PLAIN_PORT="+s.plain)...)
	if err != nil {
		s.Fatal(err)
	}
}

// get asks the node over TLS by a name, as a client does that trusts the roots.
func (s *secured) get(name string, http2 bool) (*http.Response, error) {
	tr := &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{RootCAs: s.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:"+s.port)
		},
	}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "https://"+name+"/healthz", nil)
	if err != nil {
		s.Fatal(err)
	}
	resp, err := tr.RoundTrip(r)
	if err == nil {
		err = resp.Body.Close()
	}
	return resp, err
}

// answers waits until the node answers by a name, and returns its certificate.
func (s *secured) answers(name string) *x509.Certificate {
	s.Helper()
	var resp *http.Response
	var last error
	if err := cluster.Poll(s.ctx, 100*time.Millisecond, func() (bool, error) {
		resp, last = s.get(name, true)
		return last == nil, nil
	}); err != nil {
		s.Fatal(name, err, last)
	}
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		s.Error(name, resp.Status, resp.Proto)
	}
	if one, err := s.get(name, false); err != nil || one.StatusCode != http.StatusOK || one.ProtoMajor != 1 {
		s.Error(name, one, err)
	}
	return resp.TLS.PeerCertificates[0]
}

// redirects checks what plain HTTP is told.
func (s *secured) redirects(host string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.ctx, http.MethodPost, "http://127.0.0.1:"+s.plain+"/invoke?x", strings.NewReader("body"))
	if err != nil {
		s.Fatal(err)
	}
	r.Host = host
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		s.Fatal(err)
	}
	_ = resp.Body.Close()
	if want := "https://" + host + ":" + s.port + "/invoke?x"; resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != want {
		s.Errorf("%s to %q, want %s", resp.Status, resp.Header.Get("Location"), want)
	}
}

func (s *secured) log() string {
	s.Helper()
	b, err := os.ReadFile(s.peer.LogFile())
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}

const domain, second = "peer.example.test", "second.example.test"

// certified are the settings of a node that asks an ACME server.
func certified(a *testservers.ACMEServer) []string {
	return []string{"TINYCLOUD_TLS_DOMAIN=" + domain + "," + second, "TINYCLOUD_TLS_CA=" + a.Directory, "SSL_CERT_FILE=" + a.Trust}
}

// TestACMEByHTTP has a node start while its ACME server is away: it says so, tries again, and gets its certificates by
// HTTP-01, for nothing listens where TLS-ALPN-01 is validated. They outlive the process.
func TestACMEByHTTP(t *testing.T) {
	t.Parallel()
	a := testservers.ACME(t, 0)
	a.Kill9()
	s := newSecured(t)
	s.plain = strconv.Itoa(a.HTTP)
	s.start(certified(a)...)
	if err := cluster.Poll(s.ctx, 20*time.Millisecond, func() (bool, error) {
		return strings.Count(s.log(), "no certificate, it is tried again") >= 2, nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.get(domain, true); err == nil {
		t.Error("there is a certificate")
	}
	s.redirects(domain)
	a.Start()
	s.roots = a.Roots()
	first := s.answers(domain)
	s.answers(second)
	if log := s.log(); !strings.Contains(log, `msg="certificate obtained" part=tls domain=`+domain) {
		t.Error("nothing is said of it")
	}
	s.private()
	a.Kill9() // nothing is asked of it any more
	if err := s.peer.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.peer.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	if again := s.answers(domain); !again.Equal(first) {
		t.Error("another certificate was asked for")
	}
}

// private checks that nobody else may read keys and certificates.
func (s *secured) private() {
	s.Helper()
	keys := 0
	if err := filepath.WalkDir(filepath.Join(s.peer.Dir, "data", "tls"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			s.Errorf("%s: %v", path, info.Mode())
		}
		if filepath.Ext(path) == ".key" {
			keys++
		}
		return nil
	}); err != nil {
		s.Fatal(err)
	}
	if keys < 3 {
		s.Errorf("%d keys, expected those of two names and of the account", keys)
	}
}

// TestACMEByTLS has a node without a plain port get a certificate by TLS-ALPN-01.
func TestACMEByTLS(t *testing.T) {
	t.Parallel()
	a := testservers.ACME(t, 0)
	s := newSecured(t)
	s.port, s.plain, s.roots = strconv.Itoa(a.TLS), "false", a.Roots()
	s.start(certified(a)...)
	s.answers(domain)
	s.answers(second)
	s.roots = x509.NewCertPool()
	if _, err := s.get(domain, true); err == nil {
		t.Error("the certificate is trusted by who trusts nobody")
	}
}

// TestCertificateOfFiles has a node take a certificate of files, and another once they change. Settings that cannot be
// had are named.
func TestCertificateOfFiles(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func() {
		t.Helper()
		c, k := testservers.Certificate(t, domain)
		s.roots = x509.NewCertPool()
		s.roots.AppendCertsFromPEM(c)
		if err := errors.Join(os.WriteFile(key, k, 0o600), os.WriteFile(cert, c, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	renew()
	s.start("TINYCLOUD_TLS_CERT="+cert, "TINYCLOUD_TLS_KEY="+key)
	first := s.answers(domain)
	s.redirects(domain)
	renew()
	if s.answers(domain).Equal(first) {
		t.Error("the certificate from before")
	}
	if err := s.peer.Stop(); err != nil {
		t.Fatal(err)
	}
	for setting, env := range map[string]string{
		"tls.cert, tls.key": "TINYCLOUD_TLS_KEY=" + cert, "tls.plain_port": fmt.Sprint("TINYCLOUD_TLS_PLAIN_PORT=", s.taken()),
	} {
		s.peer.Set("TINYCLOUD_TLS_KEY="+key, "TINYCLOUD_TLS_PLAIN_PORT="+s.plain, env)
		if err := s.peer.Start(s.ctx); err == nil || !strings.Contains(err.Error(), setting+": ") {
			t.Errorf("%s: %v", env, err)
		}
	}
}

// taken is a port that somebody else listens on.
func (s *secured) taken() int {
	s.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = l.Close() })
	addr, _ := l.Addr().(*net.TCPAddr)
	return addr.Port
}
