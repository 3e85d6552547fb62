package encryption_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
)

func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: `{}`,
		" { \"b\" : [ 1 , -2 , 0 ] ,\n\"a\":null}": `{"a":null,"b":[1,-2,0]}`,
		`{"é":1,"z":2,"a":{"y":true,"x":false}}`:   `{"a":{"x":false,"y":true},"z":2,"é":1}`,
		`{"\u0062":1,"a":2}`:                       `{"a":2,"b":1}`,
		`"<>&\u2028\u2029\/\u007f"`:                "\"<>&\u2028\u2029/\u007f\"",
		`"\"\\\b\f\n\r\t\u0000\u001f\u000B"`:       `"\"\\\b\f\n\r\t\u0000\u001f\u000b"`,
		`"\ud83d\ude00"`:                           `"😀"`,
		`9007199254740991`:                         `9007199254740991`,
		`-9007199254740991`:                        `-9007199254740991`,
	} {
		got, err := encryption.Canonical([]byte(text))
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		``, `{`, `{}x`, `{"a":1,"a":1}`, `{"a":1,"\u0061":2}`, `1.0`, `1e3`, `-0`, `01`, `+1`, `9007199254740992`, `-9007199254740992`,
		`[1.5]`, `{"x":{"y":[2e1]}}`, `"\ud800"`, "\"\xff\"", "\"\n\"", `'a'`, `nan`, strings.Repeat("[", 40) + strings.Repeat("]", 40),
		`"` + strings.Repeat("a", encryption.MaxBody) + `"`,
	} {
		if got, err := encryption.Canonical([]byte(text)); err == nil {
			t.Errorf("%.60q: %s", text, got)
		} else if !errors.Is(err, tinycloud.ErrInvalid) && !errors.Is(err, tinycloud.ErrTooLarge) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// FuzzCanonical: what is accepted is a value that encodes to the same again, and that encoding/json reads alike.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{"b":[1,"<é\u2028>"],"a":null}`, `"\ud83d\ude00"`, `{"a":{"b":-7}}`, `[true,false,1.0]`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := encryption.Canonical(text)
		if err != nil {
			return
		}
		twice, err := encryption.Canonical(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q: %q, then %q, %v", text, once, twice, err)
		}
		var a, b any
		if err := errors.Join(json.Unmarshal(text, &a), json.Unmarshal(once, &b)); err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if !bytes.Equal(x, y) {
			t.Fatalf("%q became %q", text, once)
		}
	})
}

const (
	someCreate  = `{"name":"default","ownerDid":"did:key:z6MknnfAxVv3fUyPywdQ9RJ14XkzuMhYPza5aQD1jGkXe68s","threshold":{"n":1,"t":1}}`
	someDecrypt = `{"alg":"x","encryptedSymmetricKey":"AA==","encryptedSymmetricKeyHash":"0","keyVersion":1,"networkId":"urn:tinycloud:encryption:did:key:z6M:a","receiverPublicKey":"AA==","receiverPublicKeyHash":"0","targetNode":"n","type":"t"}`
	someAdmin   = `{"type":"t","targetNode":"n","networkId":"urn:tinycloud:encryption:did:key:z6M:a","bodyHash":"0","action":"a"}`
	someFact    = `{"type":"t","targetNode":"n","networkId":"urn:tinycloud:encryption:did:key:z6M:a","bodyHash":"0","encryptedSymmetricKeyHash":"0","receiverPublicKeyHash":"0","alg":"x","keyVersion":1}`
)

func TestForms(t *testing.T) {
	type forms struct{ create, decrypt, admin, fact bool }
	read := func(text string) (out forms) {
		out.create, out.decrypt, out.admin, out.fact = encryption.ReadRequests([]byte(text))
		return out
	}
	for text, want := range map[string]forms{
		someCreate: {create: true}, someDecrypt: {decrypt: true}, someAdmin: {admin: true}, someFact: {fact: true},
		strings.Replace(someCreate, `,"threshold":{"n":1,"t":1}`, "", 1):                 {create: true},
		strings.Replace(someCreate, `{"n":1,"t":1}`, "null", 1):                          {create: true},
		strings.Replace(someCreate, `{"n":1,"t":1}`, `{"n":-5,"t":2147483647}`, 1):       {create: true},
		strings.Replace(someCreate, `{`, `{"more":[1],`, 1):                              {create: true},
		strings.Replace(someCreate, `{"n":1,"t":1}`, `{"n":1,"t":2147483648}`, 1):        {},
		strings.Replace(someCreate, `{"n":1,"t":1}`, `{"n":1}`, 1):                       {},
		strings.Replace(someCreate, `{"n":1,"t":1}`, `7`, 1):                             {},
		strings.Replace(someCreate, `"default"`, `"Default"`, 1):                         {},
		strings.Replace(someCreate, `"default"`, `"-default"`, 1):                        {},
		strings.Replace(someCreate, `"default"`, `""`, 1):                                {},
		strings.Replace(someCreate, `"default"`, `"a:b"`, 1):                             {},
		strings.Replace(someCreate, `"default"`, `"a%41"`, 1):                            {},
		strings.Replace(someCreate, `"default"`, `"`+strings.Repeat("a", 129)+`"`, 1):    {},
		strings.Replace(someCreate, `"default"`, `"`+strings.Repeat("a", 128)+`"`, 1):    {create: true},
		strings.Replace(someCreate, `did:key:`, `key:`, 1):                               {},
		strings.Replace(someCreate, `did:key:z6Mk`, `did:pkh:eip155:1:0x12`, 1):          {},
		strings.Replace(someCreate, `"name":"default",`, ``, 1):                          {},
		strings.Replace(someCreate, `"default"`, `1`, 1):                                 {},
		strings.Replace(someDecrypt, `{`, `{"x":1,`, 1):                                  {},
		strings.Replace(someDecrypt, `"keyVersion":1`, `"keyVersion":"1"`, 1):            {},
		strings.Replace(someDecrypt, `:did:key:z6M:a`, `:did:key:z6M`, 1):                {}, // of the owner did:key, which is no DID
		strings.Replace(someDecrypt, `urn:tinycloud:encryption:did:key:z6M:a`, `foo`, 1): {},
		strings.Replace(someAdmin, `{`, `{"x":1,`, 1):                                    {admin: true},
		strings.Replace(someFact, `{`, `{"x":1,`, 1):                                     {},
		`[]`:                         {},
		`"` + someAdmin[1:10] + `"x`: {},
	} {
		if got := read(text); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func FuzzRequests(f *testing.F) {
	for _, s := range []string{someCreate, someDecrypt, someAdmin, someFact} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		create, decrypt, admin, fact := encryption.ReadRequests(text)
		if decrypt && (create || admin || fact) || fact && (create || admin) {
			t.Errorf("%q is several things", text)
		}
		c, err := encryption.Canonical(text)
		if err != nil {
			if create || decrypt || admin || fact {
				t.Errorf("%q is read, and is no JSON", text)
			}
			return
		}
		a, b, x, y := encryption.ReadRequests(c)
		if create != a || decrypt != b || admin != x || fact != y {
			t.Errorf("%q is another thing in its canonical form %q", text, c)
		}
	})
}

func TestBase64(t *testing.T) {
	for _, text := range []string{"A", "AA", "AA=", "AB==", "AAA=\n", "A\r\nAA=", "AA==AA==", "_-==", "====", "AA=="[:3] + " "} {
		if b, err := encryption.Decode64(text); err == nil {
			t.Errorf("%q: %x", text, b)
		}
	}
	for _, n := range []int{0, 1, 2, 3, 93} {
		want := bytes.Repeat([]byte{0xfb}, n)
		if b, err := encryption.Decode64(base64.StdEncoding.EncodeToString(want)); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%d bytes: %x, %v", n, b, err)
		}
	}
}
