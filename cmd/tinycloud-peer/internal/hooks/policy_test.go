package hooks_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.215.14": true, "1.1.1.1": true, "2606:4700:4700::1111": true, "172.32.0.1": true, "100.128.0.1": true,
		"127.0.0.1": false, "127.255.0.9": false, "10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "192.0.0.8": false, "192.0.2.1": false,
		"198.18.0.1": false, "198.51.100.7": false, "203.0.113.9": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd12::1": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::ffff:93.184.215.14": false, "::127.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false,
		"2001::1": false, "2001:db8::1": false, "2002:7f00:1::": false, "3fff::1": false, "100::1": false,
	} {
		if got := hooks.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
		err := hooks.OnlyPublic(netip.AddrPortFrom(netip.MustParseAddr(text), 443).String())
		if want != (err == nil) {
			t.Errorf("dial %s: %v", text, err)
		}
	}
	for _, address := range []string{"93.184.215.14:80", "93.184.215.14:8443", "example.com:443", "", "93.184.215.14"} {
		if hooks.OnlyPublic(address) == nil {
			t.Errorf("dial %q", address)
		}
	}
}

// TestTransportRefuses asks the transport of production for a server that is there, by address and by a
// name that resolves to it.
func TestTransportRefuses(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
	defer server.Close()
	transport := hooks.NewTransport()
	defer transport.CloseIdleConnections()
	if transport.Proxy != nil {
		t.Error("it has a proxy")
	}
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	for _, url := range []string{server.URL, "https://localhost:" + port, "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]:" + port} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
		must(t, err)
		resp, err := transport.RoundTrip(r)
		if !errors.Is(err, tinycloud.ErrForbidden) {
			t.Errorf("%s: %v", url, err)
		}
		if resp != nil {
			resp.Body.Close()
		}
	}
}

func TestCallbacks(t *testing.T) {
	for text, want := range map[string]string{
		"https://example.com": "", "https://example.com/": "", "https://example.com:443/a?b=c": "", "https://93.184.215.14/": "",
		"":                        "callbackUrl is required",
		"http://example.com/":     "canonical",
		"https://example.com:80/": "canonical", "https://example.com:/": "canonical", "https://a@example.com/": "canonical",
		"https://a:b@example.com/": "canonical", "https://example.com/#": "canonical", "https://example.com/#a": "canonical",
		"HTTPS://example.com/": "canonical", "https://Example.com/": "canonical", "https:///a": "canonical", "https:example.com": "canonical",
		"//example.com/": "canonical", "https://example.com/a b": "canonical", "https://exa\nmple.com/": "canonical",
		"https://example.com/" + strings.Repeat("a", 2048): "canonical",
	} {
		err := hooks.ParseCallback(text)
		if (want == "") != (err == nil) || (err != nil && (!strings.Contains(err.Error(), want) || !errors.Is(err, tinycloud.ErrInvalid))) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	addrs := map[string][]netip.Addr{
		"private.example": {netip.MustParseAddr("93.184.215.14"), netip.MustParseAddr("10.0.0.1")},
		"public.example":  {netip.MustParseAddr("::ffff:93.184.215.14")}, "none.example": nil,
	}
	h := startNew(t, "host", hooks.Options{Lookup: func(_ context.Context, host string) ([]netip.Addr, error) { return addrs[host], nil }})
	o := newOwner(t, "alice").on(h)
	for url, want := range map[string]string{
		"https://public.example/": "", "https://private.example/": "callbackUrl is not of a public host",
		"https://none.example/": "callbackUrl is not of a public host", "https://127.0.0.1/": "callbackUrl is not of a public host",
		"https://[::1]/": "callbackUrl is not of a public host",
	} {
		q := o.registration("")
		q.CallbackURL = url
		_, err := h.hooks.Register(t.Context(), o.token("hooks", hooks.AbilityRegister), q)
		if (want == "") != (err == nil) || (err != nil && (!strings.HasSuffix(err.Error(), want) || !errors.Is(err, tinycloud.ErrInvalid))) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
