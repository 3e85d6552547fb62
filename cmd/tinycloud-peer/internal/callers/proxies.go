package callers

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/realclientip/realclientip-go"
)

// unnamed is the address of a client that a trusted proxy passed on without saying which, or saying two: all are one.
const unnamed = "0.0.0.0:0"

// Proxies are those that are believed whose requests they pass on.
type Proxies struct {
	trusted []netip.Prefix
	headers []string // canonical, of strategies
	named   []realclientip.Strategy
}

// NewProxies believes proxies in the ranges what headers say: Forwarded and X-Forwarded-For are lists to which each
// proxy adds, of which the last address that is no trusted proxy's counts; any other header is the address.
func NewProxies(trusted []netip.Prefix, headers []string) (*Proxies, error) {
	p := &Proxies{trusted: trusted}
	var ranges []net.IPNet
	for _, t := range trusted {
		ranges = append(ranges, net.IPNet{IP: t.Addr().AsSlice(), Mask: net.CIDRMask(t.Bits(), t.Addr().BitLen())})
	}
	for _, name := range headers {
		name = http.CanonicalHeaderKey(name)
		s, err := strategy(name, ranges)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.headers, p.named = append(p.headers, name), append(p.named, s)
	}
	return p, nil
}

func strategy(name string, ranges []net.IPNet) (realclientip.Strategy, error) {
	if name == "Forwarded" || name == "X-Forwarded-For" {
		return realclientip.NewRightmostTrustedRangeStrategy(name, ranges)
	}
	return realclientip.NewSingleIPHeaderStrategy(name)
}

// Trusts reports whether an address is of a trusted proxy.
func (p *Proxies) Trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(p.trusted, func(t netip.Prefix) bool { return t.Contains(addr) })
}

// Handler gives every request to h with the address of the client that sent it as its RemoteAddr. Where a proxy sets
// one header and lets clients send another, they say two addresses, and neither is believed.
func (p *Proxies) Handler(h http.Handler) http.Handler {
	if len(p.trusted) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if client, ok := p.client(r); ok {
			r = r.WithContext(r.Context()) // a copy
			r.RemoteAddr = client
		}
		h.ServeHTTP(w, r)
	})
}

// client is whom a trusted proxy passes a request on for; ok is false when no such proxy says anything.
func (p *Proxies) client(r *http.Request) (remote string, ok bool) {
	if !p.Trusts(parse(r.RemoteAddr)) {
		return "", false
	}
	var found netip.Addr
	for i, s := range p.named {
		if len(r.Header[p.headers[i]]) == 0 {
			continue
		}
		ok = true
		addr := parse(s.ClientIP(r.Header, r.RemoteAddr))
		if found.IsValid() && addr.IsValid() && addr != found {
			return unnamed, true
		}
		if addr.IsValid() {
			found = addr
		}
	}
	if !found.IsValid() {
		return unnamed, ok
	}
	return netip.AddrPortFrom(found, 0).String(), true
}
