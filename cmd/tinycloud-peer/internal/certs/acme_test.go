package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/certs"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// TestRenewal has certificates that are valid for 15 seconds. Clients who check them see the next one before the last has
// ended, and none that has.
func TestRenewal(t *testing.T) {
	t.Parallel()
	const name = "renewed.example.test"
	server := testservers.ACME(t, 15*time.Second)
	roots := x509.NewCertPool()
	if b, err := os.ReadFile(server.Trust); err != nil || !roots.AppendCertsFromPEM(b) {
		t.Fatal("the server's certificate: ", err)
	}
	acme := certs.NewACME(certs.ACMEOptions{
		Domains: []string{name}, CA: server.Directory, Dir: t.TempDir(), Host: "127.0.0.1", Port: server.TLS, Roots: roots,
		Check: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	defer acme.Close()
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", server.TLS))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{TLSConfig: acme.Config(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	defer func() { _ = srv.Close(); <-served }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ran := make(chan error, 1)
	go func() { ran <- acme.Run(ctx) }()
	defer func() { cancel(); <-ran }()

	trusted := &tls.Dialer{Config: &tls.Config{RootCAs: server.Roots(), ServerName: name}}
	var first *x509.Certificate
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		conn, err := trusted.DialContext(ctx, "tcp", l.Addr().String())
		switch {
		case ctx.Err() != nil:
			t.Fatal("not in time: ", err)
		case err != nil && first == nil: // there is none yet
			continue
		case err != nil:
			t.Fatal("while it was renewed: ", err)
		}
		got := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		_ = conn.Close()
		if first == nil {
			first = got
		} else if !got.Equal(first) {
			return
		}
	}
}
