package recap_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

func uri(text string) string {
	return recap.Prefix + base64.RawURLEncoding.EncodeToString([]byte(text))
}

// caps lists capabilities in pairs of URI and ability.
func caps(pairs ...string) []recap.Capability {
	var out []recap.Capability
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, recap.Capability{URI: pairs[i], Ability: pairs[i+1]})
	}
	return out
}

func flat(caps []recap.Capability) (out []string) {
	for _, c := range caps {
		out = append(out, c.URI+" "+c.Ability+" "+string(c.Caveats))
	}
	return out
}

const (
	space = "tinycloud:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4:default"
	proof = "zb38SJZrMRtxPNpVsfCm54KHDwkt4zFoNrw1vEXEDy9XEtD3G"
)

func TestDecode(t *testing.T) {
	text := `{"prf":["` + proof + `"],"x":1,"att":{"` + space + `/kv/b":{"tinycloud.kv/put":[{}],"tinycloud.kv/get":[{},{"a":null}]},
		"` + space + `/kv":{"tinycloud.kv/list":[{}]}, "urn:credential:type:type1":{"credential/present":[{}]}}}`
	got, proofs, err := recap.Decode(uri(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		space + "/kv tinycloud.kv/list ", space + "/kv/b tinycloud.kv/get ", space + "/kv/b tinycloud.kv/put ",
		"urn:credential:type:type1 credential/present ",
	}
	if diff := cmp.Diff(want, flat(got)); diff != "" {
		t.Error(diff)
	}
	if got[0].Resource.Space().String() != space || got[3].Resource.InSpace() {
		t.Error("resources are not parsed")
	}
	if len(proofs.Texts) != 1 || proofs.Texts[0] != proof ||
		proofs.Hashes[0].EventID() != "bafkr4if3e3mejw7mfvjblw2esi3snmqxnun74hetb7pnxuch3q2hz42sxm" {
		t.Errorf("proofs %v", proofs)
	}
}

func TestDecodeRefuses(t *testing.T) {
	many := func(n int, item string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = fmt.Sprintf(item, i)
		}
		return strings.Join(items, ",")
	}
	prfs := func(n int) string { return strings.TrimSuffix(strings.Repeat(`"`+proof+`",`, n), ",") }
	for _, tt := range []struct{ name, uri string }{
		{"another URI", "urn:x"},
		{"padding", uri(`{"att":{},"prf":[]}`) + "="},
		{"line break", recap.Prefix + "eyJhdHQiOnt9\nLCJwcmYiOltdfQ"},
		{"trailing bits", strings.TrimSuffix(uri(`{"att":{},"prf":[]}`), "Q") + "R"},
		{"no prf", uri(`{"att":{}}`)},
		{"no att", uri(`{"prf":[]}`)},
		{"att is a list", uri(`{"att":[],"prf":[]}`)},
		{"prf is null", uri(`{"att":{},"prf":null}`)},
		{"proof in base32", uri(`{"att":{},"prf":["bafkr4if3e3mejw7mfvjblw2esi3snmqxnun74hetb7pnxuch3q2hz42sxm"]}`)},
		{"proof is no CID", uri(`{"att":{},"prf":["zzz"]}`)},
		{"proof is a number", uri(`{"att":{},"prf":[1]}`)},
		{"resource is no URI", uri(`{"att":{"a b":{"a/b":[{}]}},"prf":[]}`)},
		{"ability", uri(`{"att":{"urn:a":{"get":[{}]}},"prf":[]}`)},
		{"no caveats", uri(`{"att":{"urn:a":{"a/b":[]}},"prf":[]}`)},
		{"caveats no list", uri(`{"att":{"urn:a":{"a/b":{}}},"prf":[]}`)},
		{"caveat no object", uri(`{"att":{"urn:a":{"a/b":[null]}},"prf":[]}`)},
		{"caveat with a value", uri(`{"att":{"urn:a":{"a/b":[{"x":1}]}},"prf":[]}`)},
		{"att twice", uri(`{"att":{},"att":{},"prf":[]}`)},
		{"resource twice", uri(`{"att":{"urn:a":{},"urn:a":{}},"prf":[]}`)},
		{"resource twice, escaped", uri(`{"att":{"urn:a":{},"urn:\u0061":{}},"prf":[]}`)},
		{"ability twice", uri(`{"att":{"urn:a":{"a/b":[{}],"a/b":[{}]}},"prf":[]}`)},
		{"caveat twice", uri(`{"att":{"urn:a":{"a/b":[{"x":null,"x":null}]}},"prf":[]}`)},
		{"resource in two spellings", uri(`{"att":{"` + space + `/kv":{"a/b":[{}]},"` + strings.ToLower(space) + `/kv":{"a/b":[{}]}},"prf":[]}`)},
		{"ignored member twice", uri(`{"att":{},"prf":[],"x":{"y":1,"y":1}}`)},
		{"trailing text", uri(`{"att":{},"prf":[]}{}`)},
		{"257 abilities", uri(`{"att":{"urn:a":{` + many(257, `"a/b%d":[{}]`) + `}},"prf":[]}`)},
		{"33 proofs", uri(`{"att":{},"prf":[` + prfs(33) + `]}`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, proofs, err := recap.Decode(tt.uri)
			if !errors.Is(err, tinycloud.ErrUndecodable) {
				t.Errorf("error %v, capabilities %v, proofs %v", err, flat(got), proofs)
			}
		})
	}
	if got, _, err := recap.Decode(uri(`{"att":{"urn:a":{` + many(256, `"a/b%d":[{}]`) + `}},"prf":[` + prfs(32) + `]}`)); err != nil || len(got) != 256 {
		t.Errorf("at the bounds: %d, %v", len(got), err)
	}
}

// TestPlace shows that sorting forgets nothing of the signer's order.
func TestPlace(t *testing.T) {
	v, err := recap.ParseJSON(`{"urn:b":{"x/z":[{}],"x/a":[{}]},"urn:a":{"x/m":[{}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	caps, err := recap.Capabilities(v, true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range caps {
		got = append(got, fmt.Sprint(c.URI, " ", c.Ability, " ", c.Place))
	}
	if diff := cmp.Diff([]string{"urn:a x/m 2", "urn:b x/a 1", "urn:b x/z 0"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestCapabilities is about what only a UCAN may say.
func TestCapabilities(t *testing.T) {
	for _, tt := range []struct{ name, list, want string }{
		{"none", `[{}]`, ""},
		{"empty ones", `[{},{}]`, ""},
		{"sorted", `[ {"b":[1.50,{"d":"\u00fc\n","c":null}], "a":true} ]`, `[{"a":true,"b":[1.50,{"c":null,"d":"ü\n"}]}]`},
		{"null says something", `[{"a":null}]`, `[{"a":null}]`},
		{"one of two", `[{},{"a":1}]`, `[{},{"a":1}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := recap.ParseJSON(`{"urn:a":{"a/b":` + tt.list + `}}`)
			if err != nil {
				t.Fatal(err)
			}
			got, err := recap.Capabilities(v, true)
			if err != nil || len(got) != 1 || string(got[0].Caveats) != tt.want {
				t.Errorf("capabilities %v, %v; want caveats %s", flat(got), err, tt.want)
			}
		})
	}
}

func TestStatement(t *testing.T) {
	const preamble = "I further authorize the stated URI to perform the following actions on my behalf:"
	var example []string
	for uri, names := range map[string]string{"": "get list metadata", "/dapp-space": "delete get list metadata put", "/public": "put metadata list get delete"} {
		for name := range strings.FieldsSeq(names) {
			example = append(example, "kepler:ens:example.eth://default/kv"+uri, "kv/"+name)
		}
	}
	example = append(example, "urn:credential:type:type1", "credential/present")
	for _, tt := range []struct {
		name string
		caps []recap.Capability
		want string
	}{
		{"nothing", nil, preamble},
		{"published example", caps(example...), preamble + " (1) 'kv': 'get', 'list', 'metadata' for 'kepler:ens:example.eth://default/kv'. (2) 'kv': 'delete', 'get', 'list', 'metadata', 'put' for 'kepler:ens:example.eth://default/kv/dapp-space'. (3) 'kv': 'delete', 'get', 'list', 'metadata', 'put' for 'kepler:ens:example.eth://default/kv/public'. (4) 'credential': 'present' for 'urn:credential:type:type1'."},
		{
			"namespaces of one resource", caps("urn:a", "a-b/x", "urn:a", "a/z", "urn:a", "a/y", "urn:b", "a/y"),
			preamble + " (1) 'a': 'y', 'z' for 'urn:a'. (2) 'a-b': 'x' for 'urn:a'. (3) 'a': 'y' for 'urn:b'.",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := recap.Statement(tt.caps)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckStatement(t *testing.T) {
	c := caps("urn:a", "a/b")
	exact := recap.Statement(c)
	custom, more, less := "Hello. "+exact, exact+" ", exact[:len(exact)-1]
	for _, ok := range []*string{&exact, &custom} {
		if err := recap.CheckStatement(ok, c); err != nil {
			t.Errorf("%q: %v", *ok, err)
		}
	}
	for _, bad := range []*string{nil, &more, &less} {
		if err := recap.CheckStatement(bad, c); !errors.Is(err, tinycloud.ErrUndecodable) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if recap.CheckStatement(&exact, caps("urn:a", "a/b", "urn:a", "a/c")) == nil {
		t.Error("a statement that hides an ability passes")
	}
}

func TestEncode(t *testing.T) {
	hash, err := tinycloud.ParseCID(proof)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		caps   []recap.Capability
		proofs []tinycloud.Hash
		want   string
	}{
		{nil, nil, `{"att":{},"prf":[]}`},
		{caps("urn:a", "a/b"), nil, `{"att":{"urn:a":{"a/b":[{}]}},"prf":[]}`},
		{
			caps("urn:b", "a/b", "urn:a", "a/c", "urn:a", "a/b"),
			[]tinycloud.Hash{hash, hash},
			`{"att":{"urn:a":{"a/b":[{}],"a/c":[{}]},"urn:b":{"a/b":[{}]}},"prf":["` + proof + `","` + proof + `"]}`,
		},
	} {
		if diff := cmp.Diff(uri(tt.want), recap.Encode(tt.caps, tt.proofs)); diff != "" {
			t.Errorf("%s: %s", tt.want, diff)
		}
		back, proofs, err := recap.Decode(recap.Encode(tt.caps, tt.proofs))
		if err != nil || len(back) != len(tt.caps) || len(proofs.Hashes) != len(tt.proofs) {
			t.Errorf("%s: back as %v, %v, %v", tt.want, flat(back), proofs, err)
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "nul", "truee", "{", "}", "[", "[1", "[1,]", "[,1]", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{"a":1 "b":2}`,
		"01", "-", "1.", ".5", "1e", "1e+", "+1", "0x1", "NaN", "Infinity", "1 2", "--1",
		`"`, `"a`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\ud800"`, `"\udc00"`, `"\ud800\u0041"`, `"\ud800x"`, "\"\n\"", "\"\x00\"", "\"\xff\"", "'a'",
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[[{"b":{"c":1,"c":1}}]]`, "\ufeff1", "/**/1", "[1]]",
		strings.Repeat("[", recap.MaxDepth+2) + strings.Repeat("]", recap.MaxDepth+2),
		strings.Repeat(`{"a":`, 100000),
	} {
		if v, err := recap.ParseJSON(text); !errors.Is(err, tinycloud.ErrUndecodable) {
			t.Errorf("ParseJSON(%.60q) = %v, %v", text, v, err)
		}
	}
	wide := make([]string, 100)
	for i := range wide {
		wide[i] = fmt.Sprintf(`"m%d":%d`, i, i)
	}
	if _, err := recap.ParseJSON("{" + strings.Join(wide, ",") + "}"); err != nil {
		t.Error(err)
	}
	for _, again := range []int{0, 50, 99} {
		if _, err := recap.ParseJSON("{" + strings.Join(append(wide, wide[again]), ",") + "}"); err == nil {
			t.Errorf("member %d of many twice passes", again)
		}
	}
}

// plain gives a value the form that package json decodes to.
func plain(v recap.Value) any {
	switch v.Kind {
	case recap.Null:
		return nil
	case recap.Bool:
		return v.Raw == "true"
	case recap.Number:
		return json.Number(v.Raw)
	case recap.String:
		return v.Text
	case recap.Array:
		out := make([]any, 0)
		for _, item := range v.Items {
			out = append(out, plain(item))
		}
		return out
	}
	out := make(map[string]any)
	for _, m := range v.Members {
		out[m.Name] = plain(m.Value)
	}
	return out
}

// FuzzParseJSON compares with the standard library: what we accept, it reads alike.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+10,true,false,null,"\u00fc\ud83d\ude00\n\\\/"],"b":{}}`, ` [ ] `, `"x"`, `1e400`, `{"a":{"a":1}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := recap.ParseJSON(text)
		if err != nil {
			return
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		if diff := cmp.Diff(want, plain(v)); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzDecode: what decodes is sorted, has no doubles and encodes to something with the same meaning.
func FuzzDecode(f *testing.F) {
	f.Add(`{"att":{"` + space + `/kv":{"tinycloud.kv/get":[{}]},"urn:a":{"a/b":[{"x":null}]}},"prf":["` + proof + `"]}`)
	f.Add(`{"prf":[],"att":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, proofs, err := recap.Decode(uri(text))
		if err != nil {
			return
		}
		canonical := recap.Encode(got, proofs.Hashes)
		back, _, err := recap.Decode(canonical)
		if err != nil {
			t.Fatalf("%v in %s", err, canonical)
		}
		if diff := cmp.Diff(flat(got), flat(back)); diff != "" {
			t.Error(diff)
		}
		if recap.Statement(got) != recap.Statement(back) {
			t.Error("another statement")
		}
	})
}
