package tinycloud_test

import (
	"errors"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// principals are those of docs/protocol.md, "DIDs and principals"; refused where the second text is empty.
var principals = []struct{ in, want string }{
	{"did:key:z6Mk", "did:key:z6Mk"},
	{"did:key:z6Mk#z6Mk", "did:key:z6Mk"},
	{"did:key:z6Mk?a=b#c", "did:key:z6Mk"},
	{"did:key:z6Mk/a/b", "did:key:z6Mk"},
	{"did:web:example.com%3A8080:a", "did:web:example.com%3A8080:a"},
	{"did:1a:_.-", "did:1a:_.-"},
	{"did:a::b", "did:a::b"},
	{"did:pkh:eip155:1:" + strings.ToLower(account), "did:pkh:eip155:1:" + account},
	{"did:pkh:eip155:01:" + account + "#x", "did:pkh:eip155:1:" + account},
	{"did:pkh:tz:x", "did:pkh:tz:x"},

	{in: ""},
	{in: "did:"},
	{in: "did:key"},
	{in: "did:key:"},
	{in: "did:key:a:"},
	{in: "did::a"},
	{in: "did:Key:a"},
	{in: "DID:key:a"},
	{in: "did:key:a~b"},
	{in: "did:key:a b"},
	{in: "did:key:a%2"},
	{in: "did:key:ü"},
	{in: "did:key:a#b#c"},
	{in: "did:key:a#ü"},
	{in: "did:key:" + strings.Repeat("a", 512)},
	{in: "urn:key:a"},
	{in: "did:pkh:eip155:1"},
	{in: "did:pkh:eip155:1:0x12"},
	{in: "did:pkh:eip155:0:" + account},
	{in: "did:pkh:eip155:-1:" + account},
	{in: "did:pkh:eip155:1:" + account + ":x"},
}

func TestParsePrincipal(t *testing.T) {
	for _, tt := range principals {
		p, err := tinycloud.ParsePrincipal(tt.in)
		if string(p) != tt.want || (tt.want == "") != errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("ParsePrincipal(%.50q) = %q, %v; want %q", tt.in, p, err, tt.want)
		}
	}
}

func TestEIP155(t *testing.T) {
	p, err := tinycloud.ParsePrincipal("did:pkh:eip155:137:" + account)
	if err != nil {
		t.Fatal(err)
	}
	chain, got, ok := p.EIP155()
	if !ok || chain != 137 || tinycloud.ChecksumAddress(got) != account {
		t.Errorf("EIP155() = %d, %x, %v", chain, got, ok)
	}
	for _, other := range []tinycloud.Principal{"", "did:key:z6Mk", "did:pkh:solana:1:" + account, "did:pkh:eip155:x:" + account} {
		if _, _, ok := other.EIP155(); ok {
			t.Errorf("%q is taken for an account", other)
		}
	}
}

// TestChecksumAddress has the examples of EIP-55.
func TestChecksumAddress(t *testing.T) {
	for _, want := range []string{
		"0x52908400098527886E0F7030069857D2E4169EE7", "0xde709f2102306220921060314715629080e2fb77",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
		"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	} {
		p, err := tinycloud.ParsePrincipal("did:pkh:eip155:1:" + strings.ToLower(want))
		if err != nil || !strings.HasSuffix(string(p), ":"+want) {
			t.Errorf("%s: %s, %v", want, p, err)
		}
	}
}

func FuzzParsePrincipal(f *testing.F) {
	for _, tt := range principals {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := tinycloud.ParsePrincipal(text)
		if err != nil {
			if p != "" || !errors.Is(err, tinycloud.ErrInvalid) {
				t.Errorf("%q: %q beside %v", text, p, err)
			}
			return
		}
		if back, err := tinycloud.ParsePrincipal(string(p)); err != nil || back != p || strings.ContainsAny(string(p), "/?#") {
			t.Errorf("%q is %q, which is %q, %v", text, p, back, err)
		}
		if withFragment, err := tinycloud.ParsePrincipal(string(p) + "#x"); err != nil || withFragment != p {
			t.Errorf("%q with a fragment is %q, %v", p, withFragment, err)
		}
	})
}
