package callers_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
)

func ranges(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// seen is the address by which a handler knows the sender of a request.
func seen(p *callers.Proxies, remote string, header http.Header) (got string) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr, r.Header = remote, header
	p.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr })).ServeHTTP(nil, r)
	return got
}

func TestProxies(t *testing.T) {
	both := []string{"Forwarded", "X-Forwarded-For"}
	proxies := ranges("127.0.0.0/8", "10.0.0.0/8", "2001:db8:1::/48")
	for _, tt := range []struct {
		name, remote string
		trusted      []netip.Prefix
		headers      []string
		sent         http.Header
		want         string
	}{
		{"no proxies", "127.0.0.1:5", nil, both, http.Header{"X-Forwarded-For": {"192.0.2.1"}}, "127.0.0.1:5"},
		{"a stranger says so", "203.0.113.1:5", proxies, both, http.Header{"X-Forwarded-For": {"192.0.2.1"}, "Forwarded": {"for=192.0.2.1"}}, "203.0.113.1:5"},
		{"nothing is said", "10.0.0.1:5", proxies, both, http.Header{}, "10.0.0.1:5"},
		{"X-Forwarded-For", "10.0.0.1:5", proxies, both, http.Header{"X-Forwarded-For": {"192.0.2.1"}}, "192.0.2.1:0"},
		{"Forwarded", "127.0.0.1:5", proxies, both, http.Header{"Forwarded": {`for="[2001:db8:2::1]:77";proto=https`}}, "[2001:db8:2::1]:0"},
		{"a chain of proxies", "10.0.0.1:5", proxies, both, http.Header{"X-Forwarded-For": {"192.0.2.1", "10.1.1.1, 2001:db8:1::5"}}, "192.0.2.1:0"},
		{"what the client made up before", "10.0.0.1:5", proxies, both, http.Header{"X-Forwarded-For": {"198.51.100.9, 192.0.2.1"}}, "192.0.2.1:0"},
		{"the other header made up", "10.0.0.1:5", proxies, both, http.Header{"Forwarded": {"for=198.51.100.9"}, "X-Forwarded-For": {"192.0.2.1"}}, "0.0.0.0:0"},
		{"both alike", "10.0.0.1:5", proxies, both, http.Header{"Forwarded": {"for=192.0.2.1"}, "X-Forwarded-For": {"192.0.2.1"}}, "192.0.2.1:0"},
		{"hidden", "10.0.0.1:5", proxies, both, http.Header{"Forwarded": {"for=_hidden"}}, "0.0.0.0:0"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:5", proxies, both, http.Header{"X-Forwarded-For": {"::ffff:192.0.2.1"}}, "192.0.2.1:0"},
		{"another header", "10.0.0.1:5", proxies, []string{"x-real-ip"}, http.Header{"X-Real-Ip": {"192.0.2.1"}, "X-Forwarded-For": {"198.51.100.9"}}, "192.0.2.1:0"},
		{"no header", "10.0.0.1:5", proxies, nil, http.Header{"X-Forwarded-For": {"192.0.2.1"}}, "10.0.0.1:5"},
	} {
		p, err := callers.NewProxies(tt.trusted, tt.headers)
		if err != nil {
			t.Fatal(err)
		}
		if got := seen(p, tt.remote, tt.sent); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// FuzzProxies finds that a request always has an address, and one's own from whoever is not trusted.
func FuzzProxies(f *testing.F) {
	f.Add("192.0.2.1", `for="[2001:db8::1]:1";by=x`)
	f.Add("::ffff:1.2.3.4%eth0, ,10.0.0.1", `for=unknown, FOR="_x"`)
	p, err := callers.NewProxies(ranges("10.0.0.0/8"), []string{"Forwarded", "X-Forwarded-For"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, list, forwarded string) {
		header := http.Header{"X-Forwarded-For": {list}, "Forwarded": {forwarded}}
		if got := seen(p, "192.0.2.7:1", header); got != "192.0.2.7:1" {
			t.Error("believed a stranger:", got)
		}
		got := seen(p, "10.0.0.1:1", header)
		addr, err := netip.ParseAddrPort(got)
		if err != nil || p.Trusts(addr.Addr()) || !callers.Address(got).IsValid() {
			t.Errorf("%q, %q: %s", list, forwarded, got)
		}
	})
}
