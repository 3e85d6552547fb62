package tinycloud_test

import (
	"errors"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const noPath = "(absent)"

// resources are those of docs/protocol.md, "Resource": of a Space where service is given, else an other URI.
var resources = []struct{ in, text, service, path string }{
	{"tinycloud:ens:example.eth:ns0/kv/path/to/image.jpg", "", "kv", "path/to/image.jpg"},
	{"tinycloud:ens:example1.eth:ns1/service#peer", "", "service", noPath},
	{"tinycloud:ens:example2.eth:ns2/kv/#list", "", "kv", ""},
	{"tinycloud:ens:example3.eth:ns3/other/path/#list", "", "other", "path/"},
	{"tinycloud:ens:example.eth:ns0/kv", "", "kv", noPath},
	{"tinycloud:ens:example.eth:ns0/kv/", "", "kv", ""},
	{"tinycloud:ens:example.eth:ns0/kv//b", "", "kv", "/b"},
	{"tinycloud:ens:example.eth:ns0/kv/a%20b", "", "kv", "a%20b"},
	{"tinycloud:ens:example.eth:ns0/kv/a:b", "", "kv", "a:b"},
	{"tinycloud:ens:example.eth:ns0/kv/a?x=1/?#f?", "", "kv", "a"},
	{"tinycloud:ens:example.eth:ns0/kv/a?#", "", "kv", "a"},
	{strings.ToLower(owned) + "/kv/A", owned + "/kv/A", "kv", "A"},

	{in: "tinycloud:ens:example.eth:ns0/"},
	{in: "tinycloud:ens:example.eth:ns0"},
	{in: "tinycloud::ns0/kv/x"},
	{in: "tinycloud:ens:example.eth:/kv/x"},
	{in: "tinycloud:ens:example.eth:ns0/k:v/x"},
	{in: "tinycloud:ens:example.eth:ns0/kv/%2fa"},
	{in: "tinycloud:ens:example.eth:ns0/kv/%7Ea"},
	{in: "tinycloud:ens:example.eth:ns0/kv/a/../b"},
	{in: "tinycloud:ens:example.eth:ns0/kv/./b"},
	{in: "tinycloud:ens:example.eth:../kv/b"},
	{in: "tinycloud://ens/kv/x"},
	{in: "kepler:ens:example.eth://default/kv"},
	{in: "urn:cid:bafkr4iajneubhzkrv22lhxzxgb2csyifzhxefnblj2rtnyrk4lm7bv2mvy"},
	{in: "urn:tinycloud:encryption:did:pkh:eip155:1:" + account + ":default"},
	{in: "mailto:a"},
}

// notURIs are no resource of any kind.
var notURIs = []string{
	"", "x", ":x", "1a:x", "a b:x", "tinycloud:ens:example.eth:ns0/kv/a b", "tinycloud:ens:example.eth:ns0/kv/日本",
	"urn:a#b#c", "urn:%4", "urn:%zz", "urn:[", "tinycloud://ens:example.eth:ns0/kv/x", "urn:a\n", "urn:a\x00", "http://a b/", "http://a:b/", "urn:" + strings.Repeat("a", 4096),
}

func TestParseResource(t *testing.T) {
	for _, tt := range resources {
		r, err := tinycloud.ParseResource(tt.in)
		if err != nil {
			t.Errorf("ParseResource(%q): %v", tt.in, err)
			continue
		}
		want := tt.text
		if want == "" {
			want = tt.in
		}
		path, has := r.Path()
		if !has {
			path = noPath
		}
		if tt.service == "" {
			tt.path = noPath
		}
		if r.String() != want || r.Service() != tt.service || path != tt.path || r.InSpace() != (tt.service != "") {
			t.Errorf("ParseResource(%q) = %s, service %q, path %q", tt.in, r, r.Service(), path)
		}
	}
	for _, text := range notURIs {
		if r, err := tinycloud.ParseResource(text); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("ParseResource(%.50q) = %v, %v", text, r, err)
		}
	}
}

// TestParseResourceBeside has resources read beside others of their own Space, of other Spaces, and of none.
func TestParseResourceBeside(t *testing.T) {
	for _, tt := range resources {
		want := resource(t, tt.in)
		for _, other := range resources {
			if got, err := tinycloud.ParseResourceBeside(tt.in, resource(t, other.in)); got != want || err != nil {
				t.Errorf("%q beside %q: %v %v, want %v", tt.in, other.in, got, err, want)
			}
		}
	}
}

func resource(tb testing.TB, text string) tinycloud.Resource {
	tb.Helper()
	r, err := tinycloud.ParseResource(text)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestExtends is docs/protocol.md, "Attenuation".
func TestExtends(t *testing.T) {
	const s = "tinycloud:ens:example.eth:ns0"
	const net = "urn:tinycloud:encryption:did:pkh:eip155:1:"
	for _, tt := range []struct {
		base, child string
		want        bool
	}{
		{s + "/kv", s + "/kv", true},
		{s + "/kv", s + "/kv/", true},
		{s + "/kv", s + "/kv/a/b", true},
		{s + "/kv/", s + "/kv/", true},
		{s + "/kv/", s + "/kv//x", true},
		{s + "/kv/", s + "/kv/a", false},
		{s + "/kv/", s + "/kv", false},
		{s + "/kv/a", s + "/kv/a", true},
		{s + "/kv/a", s + "/kv/a/", true},
		{s + "/kv/a", s + "/kv/a/b", true},
		{s + "/kv/a", s + "/kv/ab", false},
		{s + "/kv/a", s + "/kv", false},
		{s + "/kv/a", s + "/kv/", false},
		{s + "/kv/a/", s + "/kv/a/", true},
		{s + "/kv/a/", s + "/kv/a/b", true},
		{s + "/kv/a/", s + "/kv/a", false},
		{s + "/kv/a", s + "/kv/a?x=1", true},
		{s + "/kv/a?x=1", s + "/kv/a?x=2", true},
		{s + "/kv/a", s + "/kv/a#f", false},
		{s + "/kv/a", s + "/kv/a#", false},
		{s + "/kv/a#f", s + "/kv/a/b#f", true},
		{s + "/kv/a#f", s + "/kv/a", false},
		{s + "/kv/a#f", s + "/kv/a#g", false},
		{s + "/kv/a", s + "/sql/a", false},
		{s + "/kv", s + "/kvx", false},
		{s + "/kv/a", "tinycloud:ens:example.eth:ns1/kv/a", false},
		{s + "/kv/a", "tinycloud:ens:example.org:ns0/kv/a", false},
		{owned + "/kv", strings.ToLower(owned) + "/kv/a", true},
		{s + "/kv", "urn:a", false},
		{"urn:a", s + "/kv", false},
		{"urn:a", "urn:a", true},
		{"mailto:a", "mailto:ab", false},
		{net + account + ":x", net + strings.ToLower(account) + ":x", true},
		{net + account + ":x", net + account + ":y", false},
		{net + account + ":x", net + account + ":xy", false},
		{net + account + ":x", "urn:a", false},
		{"urn:tinycloud:encryption:x", net + account + ":x", false},
	} {
		if got := resource(t, tt.child).Extends(resource(t, tt.base)); got != tt.want {
			t.Errorf("%s extends %s: %v, want %v", tt.child, tt.base, got, tt.want)
		}
	}
}

func TestBareAndOwner(t *testing.T) {
	for _, tt := range []struct {
		in    string
		bare  bool
		owner tinycloud.Principal
	}{
		{owned + "/space", true, "did:pkh:eip155:1:" + account},
		{owned + "/space/", false, "did:pkh:eip155:1:" + account},
		{owned + "/space?x", false, "did:pkh:eip155:1:" + account},
		{owned + "/space?", false, "did:pkh:eip155:1:" + account},
		{owned + "/space#f", false, "did:pkh:eip155:1:" + account},
		{"urn:a", false, ""},
		{"urn:tinycloud:encryption:did:pkh:eip155:1:" + strings.ToLower(account) + ":x", false, "did:pkh:eip155:1:" + account},
		{"urn:tinycloud:encryption:did:pkh:eip155:1:" + account, false, ""},
		{"urn:tinycloud:encryption:did:web:a:", false, ""},
	} {
		r := resource(t, tt.in)
		if owner, ok := r.Owner(); r.Bare() != tt.bare || owner != tt.owner || ok != (tt.owner != "") {
			t.Errorf("%s: bare %v, owner %q %v", tt.in, r.Bare(), owner, ok)
		}
	}
}

func TestNewKey(t *testing.T) {
	id, err := tinycloud.ParseSpaceID(owned)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key string
		ok  bool
	}{
		{"a/b", true},
		{"", true},
		{"a%20b", true},
		{"/", true},
		{"a:b", true},
		{"a b", false},
		{"a?b", false},
		{"a#b", false},
		{"..", false},
		{"a/./b", false},
		{"%7E", false},
		{"ü", false},
		{strings.Repeat("k", 4096), false},
	} {
		r, ok := id.NewKey("kv", tt.key)
		if ok != tt.ok {
			t.Errorf("NewKey(%.20q): %v", tt.key, ok)
		}
		if path, has := r.Path(); ok && (path != tt.key || !has || r.Service() != "kv" || r.Space() != id) {
			t.Errorf("NewKey(%q) = %s", tt.key, r)
		}
	}
	if _, ok := id.NewKey("k/v", "a"); ok {
		t.Error("a service with a slash passes")
	}
}

func TestIsAbility(t *testing.T) {
	for s, want := range map[string]bool{
		"tinycloud.kv/get": true, "a/b": true, "a-_.+*/*": true, "ü/日": true, "tinycloud.kv/*": true, "1/2": true,
		"": false, "a": false, "/": false, "a/": false, "/b": false, "a/b/c": false, "a b/c": false, "a/b:c": false, "a/\xff": false, "a/b\n": false,
	} {
		if got := tinycloud.IsAbility(s); got != want {
			t.Errorf("IsAbility(%q) = %v", s, got)
		}
	}
}

func FuzzParseResource(f *testing.F) {
	for _, tt := range resources {
		f.Add(tt.in)
	}
	for _, text := range notURIs {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := tinycloud.ParseResource(text)
		if err != nil {
			if r.String() != "" || !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("%q: %v beside %v", text, r, err)
			}
			return
		}
		back, err := tinycloud.ParseResource(r.String())
		if err != nil || back != r || back.String() != r.String() {
			t.Errorf("%q prints as %q, which is %v, %v", text, r, back, err)
		}
		if !r.Extends(r) || !tinycloud.IsURI(text) {
			t.Errorf("%q does not extend itself or is no URI", text)
		}
		if path, has := r.Path(); r.InSpace() && has {
			key, ok := r.Space().NewKey(r.Service(), path)
			if got, _ := key.Path(); ok && got != path {
				t.Errorf("%q: key %q becomes %q", text, path, got)
			}
		}
	})
}
