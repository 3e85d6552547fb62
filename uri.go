package tinycloud

import (
	"net/netip"
	"strings"
)

// Characters of RFC 3986.
const (
	unreservedChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	subDelims       = "!$&'()*+,;="
	pchars          = unreservedChars + subDelims + ":@"
)

var (
	unreserved    = charsOf(unreservedChars)
	inDID         = charsOf(unreservedChars[:len(unreservedChars)-1] + ":")
	inPath        = charsOf(pchars + "/")
	inQuery       = charsOf(pchars + "/?")
	inName        = charsOf(unreservedChars + subDelims)
	inUser        = charsOf(unreservedChars + subDelims + ":")
	inNetwork     = charsOf("abcdefghijklmnopqrstuvwxyz0123456789-")
	decimalDigits = charsOf("0123456789")
)

// chars is a set of ASCII characters: texts are looked through character by character, of each token that comes.
type chars [256]bool

func charsOf(all string) *chars {
	var set chars
	for i := range len(all) {
		set[all[i]] = true
	}
	return &set
}

// uri is the five parts of RFC 3986 as written.
type uri struct {
	scheme, authority, path, query, fragment string
	hasAuthority, hasQuery, hasFragment      bool
}

// IsURI reports whether s is a URI of RFC 3986: ASCII, with a scheme.
func IsURI(s string) bool {
	_, ok := splitURI(s)
	return ok
}

func splitURI(s string) (u uri, ok bool) {
	scheme, rest, found := strings.Cut(s, ":")
	if !found || !IsScheme(scheme) {
		return uri{}, false
	}
	u.scheme = scheme
	rest, u.fragment, u.hasFragment = strings.Cut(rest, "#")
	rest, u.query, u.hasQuery = strings.Cut(rest, "?")
	if after, has := strings.CutPrefix(rest, "//"); has {
		u.hasAuthority = true
		end := strings.IndexByte(after, '/')
		if end < 0 {
			end = len(after)
		}
		u.authority, rest = after[:end], after[end:]
	}
	u.path = rest
	ok = IsAuthority(u.authority) && spelled(u.path, inPath) &&
		spelled(u.query, inQuery) && spelled(u.fragment, inQuery)
	return u, ok
}

// IsScheme reports whether s is a URI scheme.
func IsScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

// IsAuthority reports whether s is an RFC 3986 authority; the empty one is.
func IsAuthority(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if !spelled(s[:i], inUser) {
			return false
		}
		host = s[i+1:]
	}
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || !isIPv6(host[1:end]) {
			return false
		}
		host = host[end+1:]
		if host != "" && host[0] != ':' {
			return false
		}
	}
	name, port, _ := strings.Cut(host, ":")
	return spelled(name, inName) && spelled(port, decimalDigits) && !strings.Contains(port, "%")
}

func isIPv6(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is6() && addr.Zone() == ""
}

// spelled reports whether s consists of characters of the set and percent triplets.
func spelled(s string, set *chars) bool {
	for i := 0; i < len(s); i++ {
		switch {
		case set[s[i]]:
		case s[i] != '%' || i+2 >= len(s) || hexDigit(s[i+1]) < 0 || hexDigit(s[i+2]) < 0:
			return false
		default:
			i += 2
		}
	}
	return true
}

func hexDigit(c byte) int {
	return strings.IndexByte("0123456789abcdef", lower(c))
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// normalised reports whether the parts are in RFC 3986 normal form: upper-case triplets, nothing
// unreserved percent-encoded, no dot segments.
func (u uri) normalised() bool {
	for _, part := range []string{u.authority, u.path, u.query, u.fragment} {
		for i := strings.IndexByte(part, '%'); i >= 0 && i+2 < len(part); i++ {
			if part[i] != '%' {
				continue
			}
			hi, lo := part[i+1], part[i+2]
			if (hi >= 'a' && hi <= 'f') || (lo >= 'a' && lo <= 'f') {
				return false
			}
			if unreserved[byte(hexDigit(hi)<<4|hexDigit(lo))] {
				return false
			}
		}
	}
	for seg := range strings.SplitSeq(u.path, "/") {
		if seg == "." || seg == ".." {
			return false
		}
	}
	return true
}
