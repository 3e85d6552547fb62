package hooks

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	requestTimeout = 10 * time.Second
	lookupTimeout  = 5 * time.Second
	maxURL         = 2048 // bytes
	httpsPort      = 443
)

// reserved are the parts of IPv4, and of the global unicast range of IPv6, that are no public hosts.
func reserved() []netip.Prefix {
	var out []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// public reports whether an address is of a public host. Of IPv6 only the global unicast range is, so that
// no translated or mapped IPv4 address is.
func public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return false
	}
	if a.Is6() && !netip.MustParsePrefix("2000::/3").Contains(a) {
		return false
	}
	return !slices.ContainsFunc(reserved(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// onlyPublic refuses to connect to other addresses. It sees the address that is connected to, whatever the
// name resolved to before.
func onlyPublic(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || a.Port() != httpsPort || !public(a.Addr()) {
		return fmt.Errorf("%s: not a public host: %w", address, tinycloud.ErrForbidden)
	}
	return nil
}

// newTransport makes requests to public addresses, without a proxy.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: requestTimeout, Control: onlyPublic}
	return &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: requestTimeout, ResponseHeaderTimeout: requestTimeout,
		IdleConnTimeout: 30 * time.Second, MaxIdleConns: 64, MaxIdleConnsPerHost: 1, MaxResponseHeaderBytes: 16 << 10,
		ForceAttemptHTTP2: true,
	}
}

func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

const notCanonical = "callbackUrl must be canonical HTTPS on port 443 without userinfo or fragments"

// notUsable is said of every host name that can't be called, whatever the reason: who asks learns nothing of the
// network that this node is in.
const notUsable = "callbackUrl is not of a public host"

// parseCallback reads a callback's URL. Refusals are of class [tinycloud.ErrInvalid].
func parseCallback(text string) (*url.URL, error) {
	if text == "" {
		return nil, refuse("callbackUrl is required")
	}
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || u.Scheme != "https" || u.Opaque != "" || u.User != nil || strings.Contains(text, "#") ||
		u.Hostname() == "" || u.Host != strings.ToLower(u.Host) || (u.Port() != "" && u.Port() != "443") ||
		strings.HasSuffix(u.Host, ":") || u.String() != text {
		return nil, refuse(notCanonical)
	}
	return u, nil
}

// checkCallback refuses a callback's URL that is not of a public host now. Every connection is checked
// again.
func (h *Hooks) checkCallback(ctx context.Context, text string) error {
	u, err := parseCallback(text)
	if err != nil {
		return err
	}
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		addrs = append(addrs, a)
	} else {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		if addrs, err = h.o.Lookup(ctx, u.Hostname()); err != nil || len(addrs) == 0 {
			return fmt.Errorf("%v: %w", err, refuse(notUsable))
		}
	}
	for _, a := range addrs {
		if a.Is4In6() && a.Zone() == "" {
			a = a.Unmap() // resolvers write IPv4 so
		}
		if !public(a) {
			return refuse(notUsable)
		}
	}
	return nil
}
