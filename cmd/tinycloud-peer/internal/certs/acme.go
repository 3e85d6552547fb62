package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// ACMEOptions of an [ACME].
type ACMEOptions struct {
	Domains []string
	CA      string         // URL of the server's directory, "" for Let's Encrypt
	Dir     string         // where keys and certificates are kept
	Roots   *x509.CertPool // that the server's own certificate is checked by; nil: this machine's
	Check   time.Duration  // how often it is looked whether one has to be renewed; 0: every 10 minutes
	Host    string         // that the listeners are bound to
	Port    int            // of HTTPS, where TLS-ALPN-01 is answered
	Plain   int            // of plain HTTP, where HTTP-01 is answered by [ACME.Challenges]; 0: nowhere
	Log     *slog.Logger
}

// ACME gets certificates for names, and renews them, for as long as it runs.
type ACME struct {
	o      ACMEOptions
	cache  *certmagic.Cache
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer
}

// NewACME asks nothing of the server yet. The listeners have to be there when [ACME.Run] is called. Close ends what it began.
func NewACME(o ACMEOptions) *ACME {
	a := &ACME{o: o}
	log := zapLogger(o.Log)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           log, RenewCheckInterval: a.o.Check,
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: o.Dir}, Logger: log, OnEvent: a.heard,
		DefaultServerName: o.Domains[0], // of those who ask by the address
	})
	a.issuer = certmagic.NewACMEIssuer(a.magic, certmagic.ACMEIssuer{
		CA: o.CA, TrustedRoots: o.Roots, Agreed: true, Logger: log,
		ListenHost: o.Host, AltTLSALPNPort: o.Port, AltHTTPPort: o.Plain, DisableHTTPChallenge: o.Plain == 0,
		DisableDistributedSolvers: true, // strangers' challenges look nothing up on the disk
	})
	a.magic.Issuers = []certmagic.Issuer{a.issuer}
	return a
}

// Config is of a listener that speaks TLS, HTTP/2 and HTTP/1, and answers TLS-ALPN-01. A handshake fails while there is no
// certificate.
func (a *ACME) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		GetCertificate: a.magic.GetCertificate,
	}
}

// Challenges answers HTTP-01 for the names, and has h answer the rest.
func (a *ACME) Challenges(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(a.o.Domains, hostOf(r)) && a.issuer.HandleHTTPChallenge(w, r) {
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Run gets what certificates are missing, trying again for as long as they cannot be had, and renews them, until ctx ends.
func (a *ACME) Run(ctx context.Context) error {
	a.o.Log.InfoContext(ctx, "certificates are asked for where there are none", "domains", a.o.Domains, "server", a.issuer.CA)
	if err := a.magic.ManageAsync(ctx, a.o.Domains); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Close forgets the certificates. It is called once, after Run.
func (a *ACME) Close() { a.cache.Stop() }

// heard says what became of a certificate.
func (a *ACME) heard(ctx context.Context, event string, data map[string]any) error {
	switch event {
	case "cert_obtained":
		a.o.Log.InfoContext(ctx, "certificate obtained", "domain", data["identifier"], "renewal", data["renewal"])
	case "cert_failed":
		a.o.Log.WarnContext(ctx, "no certificate, it is tried again", "domain", data["identifier"], "renewal", data["renewal"], "error", data["error"])
	}
	return nil
}
