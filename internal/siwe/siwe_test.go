package siwe_test

import (
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

// Appendix A.1: a published test of the siwe library.
const (
	notepadDigest    = "a681b9fb151eacf86839fdcb12c773b9ca715140e8c3656f43c7e76dee29f887"
	notepadSignature = "6228b3ecd7bf2df018183aeab6b6f1db1e9f4e3cbe24560404112e25363540eb679934908143224d746bbb5e1aa65ab435684081f4dbb74a0fec57f98f40f5051c"
	notepadAddress   = "0x6Da01670d8fc844e736095918bbE11fE8D564163"
)

// texts returns the messages of testdata/texts.txt, which "=====" lines separate.
func texts(tb testing.TB) []string {
	tb.Helper()
	b, err := os.ReadFile("testdata/texts.txt")
	if err != nil {
		tb.Fatal(err)
	}
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n=====\n")
	if len(all) < 5 {
		tb.Fatalf("only %d texts", len(all))
	}
	return all
}

func TestNotepad(t *testing.T) {
	text := texts(t)[0]
	m, err := siwe.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	statement := "SIWE Notepad Example"
	want := &siwe.Message{
		Domain: "localhost:4361", Address: m.Address, Statement: &statement, URI: "http://localhost:4361",
		ChainID: 1, Nonce: "kEWepMt9knR6lWJ6A", IssuedAt: "2021-12-07T18:28:18.807Z",
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if got := m.Principal(); got != "did:pkh:eip155:1:"+notepadAddress {
		t.Errorf("principal %s", got)
	}
	digest := siwe.Digest([]byte(text))
	if got := hex.EncodeToString(digest[:]); got != notepadDigest || len(text) != 240 {
		t.Errorf("digest %s of %d bytes", got, len(text))
	}
	account, err := siwe.Recover([]byte(text), signature(t))
	if err != nil || tinycloud.ChecksumAddress(account) != notepadAddress {
		t.Errorf("recovered %x, %v", account, err)
	}
}

func signature(t *testing.T) (sig [65]byte) {
	t.Helper()
	if n, err := hex.Decode(sig[:], []byte(notepadSignature)); err != nil || n != 65 {
		t.Fatal(n, err)
	}
	return sig
}

func TestRecoverTakesOneSpelling(t *testing.T) {
	text := []byte(texts(t)[0])
	order, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	good := signature(t)
	for _, tt := range []struct {
		name   string
		change func(sig *[65]byte)
	}{
		{"v 1 for 28", func(s *[65]byte) { s[64] = 1 }},
		{"v 0", func(s *[65]byte) { s[64] = 0 }},
		{"v 29", func(s *[65]byte) { s[64] = 29 }},
		{"v 31, compressed key", func(s *[65]byte) { s[64] += 4 }},
		{"v 55", func(s *[65]byte) { s[64] += 27 }},
		{"high s with the other v", func(s *[65]byte) {
			high := new(big.Int).Sub(order, new(big.Int).SetBytes(s[32:64]))
			high.FillBytes(s[32:64])
			s[64] = 55 - s[64]
		}},
		{"s of the order", func(s *[65]byte) { order.FillBytes(s[32:64]) }},
		{"r zero", func(s *[65]byte) { clear(s[:32]) }},
		{"s zero", func(s *[65]byte) { clear(s[32:64]) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sig := good
			tt.change(&sig)
			if account, err := siwe.Recover(text, sig); !errors.Is(err, tinycloud.ErrForged) {
				t.Errorf("recovered %x, %v", account, err)
			}
		})
	}
	flipped := good
	flipped[64] = 55 - flipped[64]
	if account, err := siwe.Recover(text, flipped); err == nil && tinycloud.ChecksumAddress(account) == notepadAddress {
		t.Error("the other v recovers the same account")
	}
}

func TestTextRoundTrip(t *testing.T) {
	for _, text := range texts(t) {
		m, err := siwe.Parse([]byte(text))
		if err != nil {
			t.Errorf("%v in\n%s", err, text)
			continue
		}
		if diff := cmp.Diff(text, string(m.Text())); diff != "" {
			t.Error(diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	base := texts(t)[1]
	for _, tt := range []struct{ name, old, new string }{
		{"lower-case address", "0x7bC78e997A71263Eb87da609bB784b8FdD294af4\n", "0x7bc78e997a71263eb87da609bb784b8fdd294af4\n"},
		{"version 2", "Version: 1", "Version: 2"},
		{"chain 01", "Chain ID: 1", "Chain ID: 01"},
		{"chain 0", "Chain ID: 1", "Chain ID: 0"},
		{"chain +1", "Chain ID: 1", "Chain ID: +1"},
		{"no issued at", "Issued At: 2026-01-15T10:00:00.000Z\n", ""},
		{"bad time", "Issued At: 2026-01-15T10:00:00.000Z", "Issued At: 2026-13-15T10:00:00.000Z"},
		{"order of fields", "Version: 1\nChain ID: 1", "Chain ID: 1\nVersion: 1"},
		{"bad domain", "example.com wants", "exa mple.com wants"},
		{"empty domain", "https://example.com wants", "https:// wants"},
		{"empty scheme", "https://example.com wants", "://example.com wants"},
		{"bad scheme", "https://example.com wants", "1http://example.com wants"},
		{"URI is none", "URI: did:key", "URI: didkey "},
		{"tab in the nonce", "Nonce: ", "Nonce: \t"},
		{"carriage return", "Version: 1\n", "Version: 1\r\n"},
		{"line separator in the statement", "\n\nA statement.", "\n\nA\u2028 statement."},
		{"not UTF-8", "A statement.", "A st\xfftement."},
		{"resource is none", "- urn:a", "- not a uri"},
		{"no resource", "\n- urn:a\n- urn:b", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(base, tt.old, tt.new, 1)
			if text == base {
				t.Fatalf("%q is not in the text", tt.old)
			}
			if m, err := siwe.Parse([]byte(text)); !errors.Is(err, tinycloud.ErrInvalid) || m != nil {
				t.Errorf("error %v, message %v", err, m)
			}
		})
	}
	for _, text := range []string{"", "\n", base + "\n", base + "\n- ", strings.Repeat("x", siwe.MaxText+1)} {
		if _, err := siwe.Parse([]byte(text)); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%.20q…: %v", text, err)
		}
	}
}

func TestParseTime(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"2026-01-15T10:00:00Z", "2026-01-15T10:00:00Z"},
		{"2026-01-15t10:00:00z", "2026-01-15T10:00:00Z"},
		{"2026-01-15 10:00:00Z", "2026-01-15T10:00:00Z"},
		{"2026-01-15_10:00:00.5Z", "2026-01-15T10:00:00.5Z"},
		{"2026-01-15T10:00:00.123456789Z", "2026-01-15T10:00:00.123456789Z"},
		{"2026-01-15T10:00:00.12345678999999Z", "2026-01-15T10:00:00.123456789Z"},
		{"2026-01-15T10:00:00+02:00", "2026-01-15T08:00:00Z"},
		{"2026-01-15T10:00:00-23:59", "2026-01-16T09:59:00Z"},
		{"2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999999Z"},
		{"2017-01-01T00:59:60+01:00", "2016-12-31T23:59:59.999999999Z"},
		{"9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"},
		{"0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"},

		{"", ""},
		{"2026-01-15", ""},
		{"2026-01-15T10:00:00", ""},
		{"2026-01-15T10:00:00.Z", ""},
		{"2026-01-15T10:00Z", ""},
		{"2026-1-15T10:00:00Z", ""},
		{"2026-02-30T10:00:00Z", ""},
		{"2026-00-15T10:00:00Z", ""},
		{"2026-01-00T10:00:00Z", ""},
		{"2025-02-29T00:00:00Z", ""},
		{"2026-01-15T24:00:00Z", ""},
		{"2026-01-15T10:60:00Z", ""},
		{"2026-01-15T10:00:61Z", ""},
		{"2026-01-15T10:00:60Z", ""},
		{"2016-12-31T23:59:60.5Z", ""},
		{"2016-12-30T23:59:60Z", ""},
		{"2026-01-15T10:00:00+0200", ""},
		{"2026-01-15T10:00:00+24:00", ""},
		{"2026-01-15T10:00:00Z ", ""},
		{" 2026-01-15T10:00:00Z", ""},
		{"2026-01-15\n10:00:00Z", ""},
		{"+026-01-15T10:00:00Z", ""},
		{"2026-01-15T10:00:00." + strings.Repeat("1", 300) + "Z", ""},
	} {
		got, err := siwe.ParseTime(tt.in)
		switch {
		case tt.want == "" && !errors.Is(err, tinycloud.ErrInvalid):
			t.Errorf("ParseTime(%q) = %v, %v; want an error", tt.in, got, err)
		case tt.want != "" && (err != nil || got.Format(time.RFC3339Nano) != tt.want):
			t.Errorf("ParseTime(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range texts(f) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := siwe.Parse(text)
		if err != nil {
			if m != nil {
				t.Error("message beside an error")
			}
			return
		}
		if string(m.Text()) != string(text) {
			t.Errorf("%q prints as %q", text, m.Text())
		}
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzText builds messages: whatever Check lets pass has one text and comes back from it.
func FuzzText(f *testing.F) {
	f.Add("https", "example.com", "hello", true, "did:key:z6Mk", uint64(1), "nonce", "2026-01-15T10:00:00Z", "", "2026-01-15T10:00:00Z", "id", false, "urn:a")
	f.Add("", "a", "", true, "urn:x", uint64(5), "", "2026-01-15T10:00:00Z", "", "", "", true, "")
	f.Fuzz(func(t *testing.T, scheme, domain, statement string, stated bool, uri string, chain uint64, nonce, iat, exp, nbf, id string, hasID bool, resource string) {
		m := &siwe.Message{Scheme: scheme, Domain: domain, URI: uri, ChainID: chain, Nonce: nonce, IssuedAt: iat, Expires: exp, NotBefore: nbf}
		if stated {
			m.Statement = &statement
		}
		if hasID {
			m.RequestID = &id
		}
		if resource != "" {
			m.Resources = []string{resource, resource}
		}
		if m.Check() != nil {
			return
		}
		back, err := siwe.Parse(m.Text())
		if err != nil {
			t.Fatalf("%v in %q", err, m.Text())
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	f.Add("2016-12-31T23:59:60Z")
	f.Add("2026-01-15T10:00:00.123456789+02:00")
	f.Add("2020-01-15T10:00:00.123456789+02:60") // an offset has 59 minutes at most
	f.Fuzz(func(t *testing.T, s string) {
		want, err := time.Parse(time.RFC3339Nano, s)
		got, ours := siwe.ParseTime(s)
		// The standard library takes offsets of 24 hours and of 60 minutes, which RFC 3339 has not.
		if n := len(s); n > 6 && (s[n-6] == '+' || s[n-6] == '-') && (s[n-5:n-3] == "24" || s[n-2:] == "60") {
			if ours == nil {
				t.Errorf("ParseTime(%q) takes the offset", s)
			}
			return
		}
		// It takes a comma and one-digit hours, too.
		if err == nil && !strings.Contains(s, ",") && s[13] == ':' && (ours != nil || !got.Equal(want)) {
			t.Errorf("ParseTime(%q) = %v, %v; want %v", s, got, ours, want)
		}
	})
}

func BenchmarkRecover(b *testing.B) {
	text := []byte(texts(b)[0])
	var sig [65]byte
	hex.Decode(sig[:], []byte(notepadSignature))
	for b.Loop() {
		if _, err := siwe.Recover(text, sig); err != nil {
			b.Fatal(err)
		}
	}
}
