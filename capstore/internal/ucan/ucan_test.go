package ucan_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/ucan"
)

// exchange is a token recorded from the running reference and what it said to it, save for "alg": "none",
// which the reference lets pass.
type exchange struct {
	Name, Token, Want string
	ID                string // hex, from the reference's database
	CID               string // from its reply
}

// recordedAt is when the exchanges took place.
var recordedAt = time.Date(2026, 11, 23, 1, 50, 30, 0, time.UTC)

func exchanges(tb testing.TB) []exchange {
	tb.Helper()
	b, err := os.ReadFile("testdata/exchanges.json")
	if err != nil {
		tb.Fatal(err)
	}
	var all []exchange
	if err := json.Unmarshal(b, &all); err != nil {
		tb.Fatal(err)
	}
	if len(all) < 200 {
		tb.Fatalf("only %d exchanges", len(all))
	}
	return all
}

func TestExchanges(t *testing.T) {
	for _, e := range exchanges(t) {
		t.Run(e.Name, func(t *testing.T) {
			tok, err := ucan.Decode(e.Token)
			if e.Want == "undecodable" {
				if !errors.Is(err, tinycloud.ErrUndecodable) || tok != nil {
					t.Fatalf("token %v, error %v; want not decodable", tok, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			err = tok.VerifySignature()
			if (err != nil) != (e.Want == "forged") {
				t.Errorf("signature: %v, want %s", err, e.Want)
			} else if err != nil && (err.Error() != "Failed to verify signature" || !errors.Is(err, tinycloud.ErrForged)) {
				t.Errorf("signature: %v", err)
			}
			item, ok := tok.SignedBytes()
			if batch := did.VerifyEd25519Batch([]did.BatchItem{item}); ok && batch[0] != (err == nil) {
				t.Errorf("batch says %v", batch[0])
			} else if !ok && e.Want != "forged" {
				t.Error("not for a batch")
			}
			if whole, err := token.FromUCAN(e.Token); err != nil {
				t.Error(err)
			} else if got := whole.ValidAt(recordedAt, 0); got != (e.Want != "window") {
				t.Errorf("valid %v, want %s", got, e.Want)
			}
			if e.ID != "" && e.ID != tok.Hash.String() {
				t.Errorf("id %s, want %s", tok.Hash, e.ID)
			}
			if e.CID != "" && e.CID != tok.Hash.EventID() {
				t.Errorf("CID %s, want %s", tok.Hash.EventID(), e.CID)
			}
			if string(tok.Bytes) != e.Token {
				t.Error("bytes changed")
			}
		})
	}
}

// seed is the session key of protocol appendix A.3.
var seed = []byte("\x36\xf4\xec\xbb\x99\x13\x97\xd3\x17\xdc\x68\xa7\xdf\x25\x2e\xa0\xc1\x78\xf1\x85\x53\x69\x38\xe6\xd2\xac\x04\x7c\x4d\x42\xc2\x2c")

const (
	session = "did:key:z6MknnfAxVv3fUyPywdQ9RJ14XkzuMhYPza5aQD1jGkXe68s"
	head    = `{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0"}`
	space   = "tinycloud:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4:default"
	parent  = "bafkr4ig5k357uumaf44kbqit3fuzck75obog4flzbmcscflgy72coxlfzu"
)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes a token of a header and a payload as they are.
func sign(header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	return signed + "." + encode(string(ed25519.Sign(ed25519.NewKeyFromSeed(seed), []byte(signed))))
}

// payload makes one with the members given as JSON; "" leaves a member out.
func payload(members map[string]string) string {
	all := map[string]string{
		"iss": `"` + session + `#` + session[8:] + `"`, "aud": `"` + session + `"`, "exp": "4102444800", "nnc": `"n"`,
		"prf": `["` + parent + `"]`, "att": `{"` + space + `/kv/a":{"tinycloud.kv/put":[{}]}}`,
	}
	for name, value := range members {
		all[name] = value
	}
	var b strings.Builder
	for _, name := range []string{"iss", "aud", "nbf", "exp", "nnc", "fct", "prf", "att", "x"} {
		if all[name] != "" {
			fmt.Fprintf(&b, `,%q:%s`, name, all[name])
		}
	}
	return "{" + b.String()[1:] + "}"
}

func TestFields(t *testing.T) {
	facts := `[ {"b": 1, "a":[2.50]}, "x",null]`
	att := `{"` + space + `/kv/b":{"tinycloud.kv/put":[{}],"tinycloud.kv/get":[{"a":1}]},"` + space + `/kv/a":{"tinycloud.kv/get":[{}]}}`
	tok, err := ucan.Decode(sign(head, payload(map[string]string{"fct": facts, "att": att, "nbf": "1.5", "aud": `"did:pkh:eip155:1:0x7bc78e997a71263eb87da609bb784b8fdd294af4"`})))
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.VerifySignature(); err != nil {
		t.Error(err)
	}
	if tok.Algorithm != "EdDSA" || tok.Issuer != session || tok.IssuerURL != session+"#"+session[8:] || tok.Nonce != "n" ||
		tok.Audience != "did:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4" {
		t.Errorf("token %+v", tok)
	}
	var got []string
	for _, c := range tok.Capabilities {
		got = append(got, c.Resource.String()+" "+c.Ability+" "+string(c.Caveats))
	}
	want := []string{space + "/kv/a tinycloud.kv/get ", space + `/kv/b tinycloud.kv/get [{"a":1}]`, space + "/kv/b tinycloud.kv/put "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]json.RawMessage{[]byte(`{"b": 1, "a":[2.50]}`), []byte(`"x"`), []byte(`null`)}, tok.Facts); diff != "" {
		t.Error(diff)
	}
	if len(tok.Proofs.Hashes) != 1 || tok.Proofs.Hashes[0].EventID() != parent || tok.Proofs.Texts[0] != parent {
		t.Errorf("proofs %v", tok.Proofs)
	}
	if tok.NotBefore.UnixNano() != 1_500_000_000 || tok.Expires.Unix() != 4102444800 {
		t.Errorf("window %v %v", tok.NotBefore, tok.Expires)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := sign(head, payload(nil))
	if tok, err := ucan.Decode(good); err != nil || tok.VerifySignature() != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	tests := map[string]string{
		"empty": "", "one part": "a", "dots": "..", "no signature": parts[0] + "." + parts[1] + ".", "four parts": good + ".a",
		"padding": parts[0] + "=." + parts[1] + "." + parts[2], "line break": parts[0] + "\n." + parts[1] + "." + parts[2],
		"space": good + " ", "trailing bits": good[:len(good)-1] + string(good[len(good)-1]+1),
		"too long": good + strings.Repeat("A", ucan.MaxSize),
	}
	for _, h := range []string{
		`{"typ":"JWT","ucv":"0.10.0"}`, `{"alg":1,"typ":"JWT","ucv":"0.10.0"}`, `{"alg":"EdDSA","ucv":"0.10.0"}`,
		`{"alg":"EdDSA","typ":"jwt","ucv":"0.10.0"}`, `{"alg":"EdDSA","typ":"JWT"}`, `{"alg":"EdDSA","typ":"JWT","ucv":"0.10"}`,
		`{"alg":"EdDSA","typ":"JWT","ucv":0.1}`, `{"alg":"none","alg":"EdDSA","typ":"JWT","ucv":"0.10.0"}`,
		`{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","crit":["exp"]}`, `{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","crit":[]}`,
		`{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","crit":"b64"}`, `{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","crit":["b64"],"b64":false}`,
		`{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","jwk":"x"}`, `[]`, `null`, head + "x",
	} {
		tests["header "+h] = sign(h, payload(nil))
	}
	for _, m := range []struct{ name, value string }{
		{"iss", ""},
		{"iss", "1"},
		{"iss", `"x"`},
		{"iss", `"did:key"`},
		{"iss", `"did:key:"`},
		{"iss", `"did:Key:z"`},
		{"aud", ""},
		{"aud", "null"},
		{"aud", `"urn:x"`},
		{"aud", `"` + session + `#a"`},
		{"aud", `"` + session + `/a"`},
		{"exp", ""},
		{"exp", "null"},
		{"exp", `"4102444800"`},
		{"exp", "1e18"},
		{"exp", "1e999"},
		{"exp", "-1"},
		{"exp", "253402300800"},
		{"nbf", `"1"`},
		{"nbf", "1e18"},
		{"nbf", "{}"},
		{"nnc", "1"},
		{"fct", "{}"},
		{"fct", `"x"`},
		{"fct", "[" + strings.Repeat("0,", ucan.MaxFacts) + "0]"},
		{"prf", ""},
		{"prf", "null"},
		{"prf", "{}"},
		{"prf", `["x"]`},
		{"prf", `[1]`},
		{"att", ""},
		{"att", "null"},
		{"att", "[]"},
		{"att", `{"a b":{}}`},
		{"att", `{"urn:a":{"a/b":[]}}`},
		{"att", `{"urn:a":{"ab":[{}]}}`},
		{"att", `{"urn:a":{"a/b":{}}}`},
		{"att", `{"urn:a":{},"urn:a":{}}`},
		{"att", `{"urn:a":{"a/b":[{"x":1,"x":1}]}}`},
		{"x", `1,"exp":1`},
		{"x", `{"a":1,"a":1}`},
		{"x", `"` + "\xff" + `"`},
	} {
		tests[fmt.Sprintf("%s %.40s", m.name, m.value)] = sign(head, payload(map[string]string{m.name: m.value}))
	}
	for name, text := range tests {
		if tok, err := ucan.Decode(text); !errors.Is(err, tinycloud.ErrUndecodable) || tok != nil {
			t.Errorf("%s: token %v, error %v", name, tok, err)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	for _, h := range []string{
		`{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","jwk":{"kid":"default"},"kid":"x","cty":"y","unknown":[1]}`,
		`{"alg":"EdDSA","typ":"JWT","ucv":"0.10.0","crit":["b64"],"b64":true}`, " " + head + "\n",
	} {
		if tok, err := ucan.Decode(sign(h, payload(nil))); err != nil || tok.VerifySignature() != nil {
			t.Errorf("header %s: %v", h, err)
		}
	}
	for _, m := range []map[string]string{
		{"nnc": ""},
		{"nnc": "null"},
		{"fct": "null"},
		{"nbf": "null"},
		{"fct": "[]"},
		{"prf": "[]"},
		{"att": "{}"},
		{"x": "1"},
		{"iss": `"` + session + `"`},
		{"prf": `["zb38SJZrMRtxPNpVsfCm54KHDwkt4zFoNrw1vEXEDy9XEtD3G"]`},
		{"prf": `["QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"]`},
		{"exp": "253402300799"},
	} {
		if tok, err := ucan.Decode(sign(head, payload(m))); err != nil || tok.VerifySignature() != nil {
			t.Errorf("payload %v: %v", m, err)
		}
	}
}

func TestVerifySignatureRefuses(t *testing.T) {
	const other = "z6Mko19wRtALjEvZkjqVH1tcsd35P6x35qZTPkxXyhUu4v1H"
	iss := func(s string) string { return sign(head, payload(map[string]string{"iss": `"` + s + `"`})) }
	good := sign(head, payload(nil))
	for _, tt := range []struct {
		name, token string
		class       error
		text        string
	}{
		{"alg none", sign(strings.Replace(head, "EdDSA", "none", 1), payload(nil)), tinycloud.ErrForged, "Failed to verify signature"},
		{"alg of another key", sign(strings.Replace(head, "EdDSA", "ES256K", 1), payload(nil)), tinycloud.ErrForged, "Failed to verify signature"},
		{"alg in lower case", sign(strings.Replace(head, "EdDSA", "eddsa", 1), payload(nil)), tinycloud.ErrForged, "Failed to verify signature"},
		{"alg EdBlake2b", sign(strings.Replace(head, "EdDSA", "EdBlake2b", 1), payload(nil)), tinycloud.ErrForged, "Failed to verify signature"},
		{"short signature", good[:len(good)-6], tinycloud.ErrForged, "Failed to verify signature"},
		{"signed by another", iss("did:key:" + other), tinycloud.ErrForged, "Failed to verify signature"},
		{"fragment of another", iss(session + "#" + other), tinycloud.ErrForged, "Failed to verify signature"},
		{"empty fragment", iss(session + "#"), tinycloud.ErrForged, "Failed to verify signature"},
		{"a query", iss(session + "?x#" + session[8:]), tinycloud.ErrForged, "Failed to verify signature"},
		{"a path", iss(session + "/x"), tinycloud.ErrForged, "Failed to verify signature"},
		{"not a key", iss("did:key:zzz"), tinycloud.ErrForged, "Failed to verify signature"},
		{"did:web", iss("did:web:example.com#key"), tinycloud.ErrUnauthorized, "DID method not supported"},
		{"did:pkh", iss("did:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4"), tinycloud.ErrUnauthorized, "DID method not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := ucan.Decode(tt.token)
			if err != nil {
				t.Fatal(err)
			}
			if err := tok.VerifySignature(); !errors.Is(err, tt.class) || err.Error() != tt.text {
				t.Errorf("error %v, want %q", err, tt.text)
			}
			if item, ok := tok.SignedBytes(); ok && did.VerifyEd25519(item.Pub, item.Msg, item.Sig) {
				t.Error("a batch lets it pass")
			}
		})
	}
}

func TestInstants(t *testing.T) {
	for _, tt := range []struct{ exp, want string }{
		{"0", "1970-01-01T00:00:00Z"},
		{"-0", "1970-01-01T00:00:00Z"},
		{"1795398749", "2026-11-23T01:52:29Z"},
		{"1.795398749e9", "2026-11-23T01:52:29Z"},
		{"1795398749.5", "2026-11-23T01:52:29.5Z"},
		{"1795398749.25", "2026-11-23T01:52:29.249999872Z"}, // a double counts in 256 nanoseconds here
		{"0.0000000019", "1970-01-01T00:00:00.000000001Z"},
		{"1795398749.267", "2026-11-23T01:52:29.267000064Z"},
		{"4611686018", "2116-02-20T23:53:38Z"},
		{"9223372037", "2262-04-11T23:47:16.999999488Z"},
		{"253402300799", "9999-12-31T23:59:58.999986176Z"},
	} {
		text := sign(head, payload(map[string]string{"exp": tt.exp, "nbf": tt.exp}))
		tok, err := ucan.Decode(text)
		if err != nil {
			t.Errorf("exp %s: %v", tt.exp, err)
			continue
		}
		if got := tok.Expires.Format(time.RFC3339Nano); got != tt.want || !tok.NotBefore.Equal(*tok.Expires) {
			t.Errorf("exp %s is %s, want %s", tt.exp, got, tt.want)
		}
		whole, err := token.FromUCAN(text)
		if err != nil {
			t.Errorf("exp %s: %v", tt.exp, err)
			continue
		}
		if at := *tok.Expires; !whole.ValidAt(at, 0) || whole.ValidAt(at.Add(1), 0) || whole.ValidAt(at.Add(-1), 0) {
			t.Errorf("exp %s: the window is not this one instant", tt.exp)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range exchanges(f) {
		if p := strings.Split(e.Token, "."); len(p) == 3 {
			h, _ := base64.RawURLEncoding.DecodeString(p[0])
			b, _ := base64.RawURLEncoding.DecodeString(p[1])
			s, _ := base64.RawURLEncoding.DecodeString(p[2])
			f.Add(string(h), string(b), s)
		}
	}
	f.Add(head, payload(map[string]string{"fct": `[{"a":1}]`, "nbf": "1.5", "iss": `"did:web:x"`}), []byte("x"))
	f.Fuzz(func(t *testing.T, header, payload string, sig []byte) {
		text := encode(header) + "." + encode(payload) + "." + encode(string(sig))
		tok, err := ucan.Decode(text)
		if err != nil {
			if tok != nil || !errors.Is(err, tinycloud.ErrUndecodable) {
				t.Errorf("token %v beside %v", tok, err)
			}
			return
		}
		if string(tok.Bytes) != text || tok.Hash != tinycloud.Sum([]byte(text)) || tok.Expires == nil {
			t.Error("bytes, hash or expiry are not those of the text")
		}
		if !json.Valid([]byte(payload)) {
			t.Errorf("accepted, but no JSON: %q", payload)
		}
		for i, c := range tok.Capabilities {
			if i > 0 && tok.Capabilities[i-1].URI+"\x00"+tok.Capabilities[i-1].Ability >= c.URI+"\x00"+c.Ability {
				t.Errorf("capability %d is out of order", i)
			}
		}
		item, ok := tok.SignedBytes()
		if err := tok.VerifySignature(); ok && (err == nil) != did.VerifyEd25519(item.Pub, item.Msg, item.Sig) {
			t.Errorf("two verdicts: %v", err)
		}
	})
}

// FuzzDecodeText takes the parts apart: what decodes has one spelling.
func FuzzDecodeText(f *testing.F) {
	f.Add(sign(head, payload(nil)))
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ucan.Decode(text)
		if err != nil {
			return
		}
		var parts []string
		for part := range bytes.SplitSeq(tok.Bytes, []byte(".")) {
			b, err := base64.RawURLEncoding.DecodeString(string(part))
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, encode(string(b)))
		}
		if strings.Join(parts, ".") != text {
			t.Errorf("%q has a second spelling", text)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	token := sign(head, payload(nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ucan.Decode(token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeAndVerify(b *testing.B) {
	token := sign(head, payload(nil))
	for b.Loop() {
		tok, err := ucan.Decode(token)
		if err != nil {
			b.Fatal(err)
		}
		if err := tok.VerifySignature(); err != nil {
			b.Fatal(err)
		}
	}
}
