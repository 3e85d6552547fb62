package tinycloud_test

import (
	"net/url"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

var uris = []struct {
	in string
	ok bool
}{
	// The examples of RFC 3986 §1.1.2.
	{"ftp://ftp.is.co.za/rfc/rfc1808.txt", true},
	{"http://www.ietf.org/rfc/rfc2396.txt", true},
	{"ldap://[2001:db8::7]/c=GB?objectClass?one", true},
	{"mailto:John.Doe@example.com", true},
	{"news:comp.infosystems.www.servers.unix", true},
	{"tel:+1-816-555-1212", true},
	{"telnet://192.0.2.16:80/", true},
	{"urn:oasis:names:specification:docbook:dtd:xml:4.1.2", true},
	{"a:", true},
	{"a:?", true},
	{"a:#", true},
	{"a:/", true},
	{"a:///x", true},
	{"a+-.1:x", true},
	{"http://user:pa%20ss@[::1]:8080/%41?q=/?#f/?", true},

	{"", false},
	{"a", false},
	{"/a", false},
	{"//a", false},
	{"?a", false},
	{":a", false},
	{"1:a", false},
	{"a_b:c", false},
	{"ü:a", false},
	{"a:ü", false},
	{"a: ", false},
	{"a:\x7f", false},
	{"a:\t", false},
	{"a:%", false},
	{"a:%a", false},
	{"a:%ag", false},
	{"a:%%41", false},
	{"a:#b#c", false},
	{"a:[", false},
	{"a:{}", false},
	{"a:\\", false},
	{"a:^", false},
	{`a:"`, false},
	{"a:<>", false},
	{"a://b:c", false},
	{"a://b:1:2", false},
	{"a://b@c@d", false},
	{"a://[::1", false},
	{"a://[::1]x", false},
	{"a://[]", false},
	{"a://[%41]", false},
	{"a://[1.2.3.4]", false},
	{"a://[:::]", false},
	{"a://::1", false},
	{"a://b:%31", false},
}

func TestIsURI(t *testing.T) {
	for _, tt := range uris {
		if got := tinycloud.IsURI(tt.in); got != tt.ok {
			t.Errorf("IsURI(%q) = %v", tt.in, got)
		}
	}
}

func TestIsAuthority(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "example.com": true, "localhost:4361": true, "a:": true, "u@h": true, "u:p@h:1": true, "[::1]:80": true, "1.2.3.4": true,
		"a/b": false, "a b": false, "a?": false, "a#": false, "a:b": false, "a\n": false, "ü": false, "[::1": false, "[fe80::1%25a]": false,
	} {
		if got := tinycloud.IsAuthority(s); got != want {
			t.Errorf("IsAuthority(%q) = %v", s, got)
		}
	}
}

// FuzzIsURI compares with the standard library, which reads everything that is a URI but non-numeric
// ports, and with what no URI holds.
func FuzzIsURI(f *testing.F) {
	for _, tt := range uris {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !tinycloud.IsURI(s) {
			return
		}
		for _, c := range []byte(s) {
			if c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^{|}`+"`", c) >= 0 {
				t.Errorf("%q has byte %#x", s, c)
			}
		}
		scheme, rest, _ := strings.Cut(s, ":")
		if !tinycloud.IsScheme(scheme) || strings.Count(s, "#") > 1 {
			t.Errorf("%q: scheme or fragment", s)
		}
		u, err := url.Parse(s)
		if err != nil {
			// Escapes in a host are checked there by rules of their own.
			if !strings.HasPrefix(rest, "//") {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if !strings.EqualFold(u.Scheme, scheme) {
			t.Errorf("%q: scheme %q", s, u.Scheme)
		}
	})
}
