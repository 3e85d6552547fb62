package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
)

// maxTraceHeader is far above any useful header name.
const maxTraceHeader = 256

func checkHeader(s string) error {
	if s == "" || len(s) > maxTraceHeader {
		return fmt.Errorf("%q is not a header name", s)
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return fmt.Errorf("%q is not a header name", s)
		}
	}
	return nil
}

// checkURL accepts http and https URLs that paths can be appended to. Its errors hide the user part.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a URL", hideUser(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not an http or https URL", hideUser(s))
	case u.Hostname() == "":
		return fmt.Errorf("%q has no host", hideUser(s))
	case !validPort(u.Port()):
		return fmt.Errorf("%q: port is not 1 to 65535", hideUser(s))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("%q has a query or a fragment", hideUser(s))
	}
	return nil
}

// checkQuotaURL takes an empty variable as none.
func checkQuotaURL(s string) error {
	if s == "" {
		return nil
	}
	return checkURL(s)
}

// hideUser blanks everything up to the last @, and all of a query, also of what does not parse.
func hideUser(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		s = redacted + s[i:]
	}
	if i := strings.IndexByte(s, '?'); i >= 0 {
		s = s[:i+1] + redacted
	}
	return s
}

func checkDatadir(s string) error {
	if strings.ContainsRune(s, 0) {
		return fmt.Errorf("%q is not a path", s)
	}
	return nil
}

func checkPath(s string) error {
	if s == "" {
		return errors.New("empty path")
	}
	return checkDatadir(s)
}

// checkBucket follows the naming rules of S3.
func checkBucket(s string) error {
	bad := fmt.Errorf("%q is not a bucket name (3 to 63 of a-z, 0-9, . and -)", s)
	if len(s) < 3 || len(s) > 63 || strings.Contains(s, "..") || strings.Trim(s, ".-") != s {
		return bad
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return bad
		}
	}
	return nil
}

// checkListen accepts an address that a socket of ours can bind: an IP with TCP or QUIC.
func checkListen(s string) error {
	addr, err := multiaddr(s)
	if err != nil {
		return err
	}
	var names []string
	for _, part := range addr {
		if name := part.Protocol().Name; name != "ip6zone" {
			names = append(names, name)
		}
	}
	switch strings.Join(names, "/") {
	case "ip4/tcp", "ip6/tcp", "ip4/udp/quic-v1", "ip6/udp/quic-v1":
		return nil
	}
	return fmt.Errorf("%q is not an address to listen on (/ip4/…/tcp/… or /ip4/…/udp/…/quic-v1, or ip6)", s)
}

// checkAnnounce accepts an address without a peer ID, which is added to it.
func checkAnnounce(s string) error {
	addr, err := multiaddr(s)
	if err != nil {
		return err
	}
	for _, part := range addr {
		if part.Protocol().Code == ma.P_P2P {
			return fmt.Errorf("%q names a peer; announce the address without /p2p/…", s)
		}
	}
	return nil
}

// checkBootstrap accepts an address that ends in the peer it reaches.
func checkBootstrap(s string) error {
	addr, err := multiaddr(s)
	if err != nil {
		return err
	}
	if len(addr) < 2 || addr[len(addr)-1].Protocol().Code != ma.P_P2P {
		return fmt.Errorf("%q does not end in /p2p/<peer ID>", s)
	}
	return nil
}

func multiaddr(s string) (ma.Multiaddr, error) {
	addr, err := ma.NewMultiaddr(s)
	if err != nil || len(addr) == 0 {
		return nil, fmt.Errorf("%q is not a multiaddr", s)
	}
	return addr, nil
}
