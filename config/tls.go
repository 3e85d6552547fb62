package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// TLS says how the HTTP API speaks TLS: with certificates of an ACME server for Domain, or with those of Cert and Key.
type TLS struct {
	// Domain (tls.domain) are the names of this node for which it gets certificates by itself. Default none.
	Domain []string
	// CA (tls.ca) is the URL of the ACME server's directory, "" for Let's Encrypt. Default "".
	CA string
	// Cert (tls.cert, or as the reference has it tls.certs) and Key (tls.key) are PEM files, the first with the whole
	// chain. They are read again when they change. Default none.
	Cert, Key string
	// Plain (tls.plain_port, false for none) redirects plain HTTP on PlainPort, a TCP port of Address; 0 lets the system
	// choose. Default 80.
	Plain     bool
	PlainPort uint16
}

// On reports whether the API speaks TLS.
func (t TLS) On() bool { return len(t.Domain) > 0 || t.Cert != "" }

// TLSDir returns where certificates of an ACME server are kept.
func (c Config) TLSDir() string { return below(c.Storage.Datadir, "tls") }

func tlsSettings() []setting {
	cert := text(checkPath, func(c *Config) *string { return &c.TLS.Cert })
	return []setting{
		{"tls.domain", list(checkDomain, func(c *Config) *[]string { return &c.TLS.Domain })},
		{"tls.ca", text(checkURL, func(c *Config) *string { return &c.TLS.CA })},
		{"tls.certs", cert},
		{"tls.cert", cert},
		{"tls.key", text(checkPath, func(c *Config) *string { return &c.TLS.Key })},
		{"tls.plain_port", portOrNone(func(c *Config) (*bool, *uint16) { return &c.TLS.Plain, &c.TLS.PlainPort })},
	}
}

// checkDomain accepts a name that a certificate can be had for without access to its zone.
func checkDomain(s string) error {
	if strings.HasPrefix(s, "*.") {
		return fmt.Errorf("%q: no certificate can be had for all names below one, name each", s)
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return fmt.Errorf("%q is an address, expected a name", s)
	}
	bad := fmt.Errorf("%q is not a domain name (a-z, 0-9, - and dots; others as xn--…)", s)
	if len(s) > 253 || !strings.Contains(s, ".") {
		return bad
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return bad
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return bad
			}
		}
	}
	return nil
}

// checkTLS finds what belongs together and is not.
func (l *loader) checkTLS(c Config) {
	t := c.TLS
	from := func(name string) origin { return l.entries[name].from }
	has := func(name string) bool {
		_, ok := l.entries[name]
		return ok
	}
	certName := "tls.cert"
	if !has(certName) {
		certName = "tls.certs"
	}
	switch {
	case len(t.Domain) > 0 && t.Cert != "":
		l.fail(from(certName), certName, errors.New("not with tls.domain: set one of them"))
	case t.Cert != "" && t.Key == "":
		l.fail(from(certName), "tls.key", fmt.Errorf("required with %s", certName))
	case t.Key != "" && t.Cert == "":
		l.fail(from("tls.key"), "tls.cert", errors.New("required with tls.key"))
	case len(t.Domain) > 0 && c.Storage.Datadir == "":
		l.fail(from("tls.domain"), "storage.datadir", errors.New("required with tls.domain: certificates are kept there"))
	}
	if has("tls.ca") && len(t.Domain) == 0 {
		l.warn("tls.ca", from("tls.ca"), "has no meaning without tls.domain, ignored")
	}
	if !t.On() || !t.Plain || t.PlainPort == 0 {
		return
	}
	for name, port := range c.ports() {
		if port == t.PlainPort {
			at, ok := l.entries["tls.plain_port"]
			if !ok {
				at = l.entries[name]
			}
			l.fail(at.from, "tls.plain_port", fmt.Errorf("%d is %s too, set another, or false", port, name))
		}
	}
}
