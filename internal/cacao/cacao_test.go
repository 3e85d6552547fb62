package cacao_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

// exchange is a token recorded from the running reference and what it said to it.
type exchange struct {
	Name, Token, Want string
	Signed            string // the text the wallet signed
	ID                string // hex, from the reference's database
	CID               string // from its reply
}

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
	if len(all) < 30 {
		tb.Fatalf("only %d exchanges", len(all))
	}
	return all
}

func TestExchanges(t *testing.T) {
	for _, e := range exchanges(t) {
		t.Run(e.Name, func(t *testing.T) {
			tok, err := cacao.Decode(e.Token)
			if e.Want == "undecodable" {
				if !errors.Is(err, tinycloud.ErrUndecodable) || tok != nil {
					t.Fatalf("token %v, error %v; want not decodable", tok, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := tok.VerifySignature(); (err != nil) != (e.Want == "forged") {
				t.Errorf("signature: %v, want %s", err, e.Want)
			} else if err != nil && (err.Error() != "Failed to verify signature" || !errors.Is(err, tinycloud.ErrForged)) {
				t.Errorf("signature: %v", err)
			}
			if diff := cmp.Diff(e.Signed, string(tok.Message.Text())); e.Signed != "" && diff != "" {
				t.Error(diff)
			}
			if e.ID != "" && e.ID != tok.Hash.String() {
				t.Errorf("id %s, want %s", tok.Hash, e.ID)
			}
			if e.CID != "" && e.CID != tok.Hash.EventID() {
				t.Errorf("CID %s, want %s", tok.Hash.EventID(), e.CID)
			}
			if got := cacao.Header(cacao.Encode(&tok.Message, tok.Signature)); got != e.Token {
				t.Errorf("encodes as %s", got)
			}
		})
	}
}

func find(tb testing.TB, name string) *cacao.Token {
	tb.Helper()
	for _, e := range exchanges(tb) {
		if e.Name == name {
			tok, err := cacao.Decode(e.Token)
			if err != nil {
				tb.Fatal(err)
			}
			return tok
		}
	}
	tb.Fatalf("no exchange %q", name)
	return nil
}

func TestFields(t *testing.T) {
	const account = "0x4d1aC3e37c0157e3532424463Da9EB38E22a5a70"
	const session = "did:key:z6MkfpBCZnTnbhhApbMRaGiXZrk1DXaMFgSVtx6phb4x1wZU"
	tok := find(t, "1.16.0 session delegation before hosting")
	if tok.Issuer != "did:pkh:eip155:1:"+account || tok.Delegatee != session || !strings.HasPrefix(tok.Audience, session+"#") {
		t.Errorf("from %s to %s (%s)", tok.Issuer, tok.Delegatee, tok.Audience)
	}
	var got []string
	for _, c := range tok.Capabilities {
		got = append(got, c.Resource.String()+" "+c.Ability)
	}
	space := "tinycloud:pkh:eip155:1:" + account + ":default/"
	want := []string{
		space + "capabilities tinycloud.capabilities/read", space + "kv tinycloud.kv/del", space + "kv tinycloud.kv/get",
		space + "kv tinycloud.kv/list", space + "kv tinycloud.kv/metadata", space + "kv tinycloud.kv/put",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if tok.IssuedAt.Format(time.RFC3339Nano) != "2026-11-23T01:50:29.267Z" || tok.NotBefore != nil ||
		tok.Expires.Format(time.RFC3339Nano) != "2026-11-23T02:51:29.264Z" || tok.Nonce != "n689267786772" {
		t.Errorf("times %v %v %v, nonce %s", tok.IssuedAt, tok.NotBefore, tok.Expires, tok.Nonce)
	}
	revocation := find(t, "1.16.0 revoke it again")
	if !strings.HasPrefix(string(revocation.Delegatee), "ucan:bafkr4i") || len(revocation.Capabilities) != 0 {
		t.Errorf("revocation of %s with %d capabilities", revocation.Delegatee, len(revocation.Capabilities))
	}
	if wallet := find(t, "1.16.0 bob's wallet to bob's session"); len(wallet.Proofs.Hashes) != 1 || wallet.Proofs.Texts[0][0] != 'z' {
		t.Errorf("proofs %v", wallet.Proofs)
	}
}

// notepad is appendix A.1 as a CACAO.
const notepad = "a36168a1617467656970343336316170a76361756475687474703a2f2f6c6f63616c686f73743a343336316369617478" +
	"18323032312d31322d30375431383a32383a31382e3830375a63697373783b6469643a706b683a6569703135353a313a" +
	"307836446130313637306438666338343465373336303935393138626245313166453844353634313633656e6f6e6365" +
	"716b455765704d74396b6e52366c574a364166646f6d61696e6e6c6f63616c686f73743a343336316776657273696f6e" +
	"016973746174656d656e747453495745204e6f7465706164204578616d706c656173a2617358416228b3ecd7bf2df018" +
	"183aeab6b6f1db1e9f4e3cbe24560404112e25363540eb679934908143224d746bbb5e1aa65ab435684081f4dbb74a0f" +
	"ec57f98f40f5051c617466656970313931"

func notepadBytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(notepad)
	if err != nil || len(b) != 305 {
		tb.Fatal(len(b), err)
	}
	return b
}

func TestNotepad(t *testing.T) {
	tok, err := cacao.DecodeBytes(notepadBytes(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.VerifySignature(); err != nil {
		t.Error(err)
	}
	if got := tok.Hash.EventID(); got != "bafkr4iacmybae7u6cno7mbyh3nwrpug6r2p6nzh3eigkp5vxr6kzg5mqui" {
		t.Errorf("CID %s", got)
	}
	if tok.Delegatee != "http://localhost:4361" || tok.Capabilities != nil {
		t.Errorf("delegatee %s, capabilities %v", tok.Delegatee, tok.Capabilities)
	}
}

// TestSpellings changes the bytes and leaves the meaning, or breaks it.
func TestSpellings(t *testing.T) {
	good := notepadBytes(t)
	swap := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
	}{
		{"trailing byte", func(b []byte) []byte { return append(b, 0) }},
		{"cut short", func(b []byte) []byte { return b[:len(b)-1] }},
		{"empty", func([]byte) []byte { return nil }},
		{"indefinite map", func(b []byte) []byte { return append(append([]byte{0xbf}, b[1:]...), 0xff) }},
		{"tagged", func(b []byte) []byte { return append([]byte{0xd9, 0xd9, 0xf7}, b...) }},
		{"long head", swap("\xa3ah", "\xb8\x03ah")},
		{"keys out of order", func(b []byte) []byte {
			return append([]byte("\xa3ap"), append(b[15:len(b)-77:len(b)-77], append([]byte("ah\xa1atgeip4361"), b[len(b)-77:]...)...)...)
		}},
		{"extra key in the header", swap("\xa1atgeip4361", "\xa2atgeip4361au\xf6")},
		{"other header type", swap("eip4361", "caip122")},
		{"other signature type", swap("eip191", "eip155")},
		{"lower-case issuer", swap("0x6Da01670d8fc844e736095918bbE11fE8D564163", "0x6da01670d8fc844e736095918bbe11fe8d564163")},
		{"chain 0", swap("eip155:1:", "eip155:0:")},
		{"another namespace", swap("eip155:1:", "eipxyz:1:")},
		{"version 2", swap("version\x01", "version\x02")},
		{"version as a float", swap("version\x01", "version\xf9\x3c\x00")},
		{"key in another case", swap("edomain"[1:], "Domain")},
		{"null statement", swap("istatementtSIWE Notepad Example", "istatement\xf6")},
		{"line break in the nonce", swap("kEWepMt9knR6lWJ6A", "kEWepMt9knR6\nWJ6A")},
		{"domain with a space", swap("localhost:4361gversion", "localhost 4361gversion")},
		{"time", swap("2021-12-07T18:28:18.807Z", "2021-12-07T18:28:78.807Z")},
		{"audience is no URI", swap("http://localhost:4361c", "http:// ocalhost:4361c")},
		{"text not UTF-8", swap("SIWE Notepad", "SIWE \xffotepad")},
		{"text as bytes", swap("tSIWE", "TSIWE")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.change(bytes.Clone(good))
			if bytes.Equal(b, good) {
				t.Fatal("nothing changed")
			}
			if tok, err := cacao.DecodeBytes(b); !errors.Is(err, tinycloud.ErrUndecodable) || tok != nil {
				t.Errorf("token %v, error %v", tok, err)
			}
		})
	}
}

func TestDecodeIsStrictBase64(t *testing.T) {
	header := cacao.Header(notepadBytes(t)) // 305 bytes end in one '='
	if _, err := cacao.Decode(header); err != nil || !strings.HasSuffix(header, "=") {
		t.Fatal(err, header)
	}
	last := header[len(header)-2]
	for name, bad := range map[string]string{
		"no padding":     strings.TrimSuffix(header, "="),
		"line break":     header[:8] + "\n" + header[8:],
		"space":          " " + header,
		"standard":       base64.StdEncoding.EncodeToString(append(notepadBytes(t), 0xff)),
		"trailing bits":  header[:len(header)-2] + string(last+1) + "=",
		"scheme":         "Bearer " + header,
		"more than most": strings.Repeat("A", 1<<20),
	} {
		if _, err := cacao.Decode(bad); !errors.Is(err, tinycloud.ErrUndecodable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignatureSpellings(t *testing.T) {
	tok, err := cacao.DecodeBytes(notepadBytes(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []byte{0, 1, 2, 3, 26, 27, 29, 30, 31, 55} {
		sig := tok.Signature
		sig[64] = v
		other, err := cacao.DecodeBytes(cacao.Encode(&tok.Message, sig))
		if err != nil {
			t.Fatal(err)
		}
		if err := other.VerifySignature(); !errors.Is(err, tinycloud.ErrForged) {
			t.Errorf("v %d: %v", v, err)
		}
	}
}

func FuzzDecodeBytes(f *testing.F) {
	f.Add(notepadBytes(f))
	for _, e := range exchanges(f) {
		if b, err := base64.URLEncoding.DecodeString(e.Token); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := cacao.DecodeBytes(b)
		if err != nil {
			if tok != nil || !errors.Is(err, tinycloud.ErrUndecodable) {
				t.Errorf("token %v beside %v", tok, err)
			}
			return
		}
		if got := cacao.Encode(&tok.Message, tok.Signature); !bytes.Equal(got, b) {
			t.Errorf("%x encodes as %x", b, got)
		}
		m, err := siwe.Parse(tok.Message.Text())
		if err != nil {
			t.Fatalf("%v in %q", err, tok.Message.Text())
		}
		if !bytes.Equal(cacao.Encode(m, tok.Signature), b) {
			t.Error("the signed text does not give the token back")
		}
		_ = tok.VerifySignature()
	})
}

func BenchmarkDecode(b *testing.B) {
	header := cacao.Header(find(b, "1.16.0 session delegation before hosting").Bytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cacao.Decode(header); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifySignature(b *testing.B) {
	tok := find(b, "1.16.0 session delegation before hosting")
	for b.Loop() {
		if err := tok.VerifySignature(); err != nil {
			b.Fatal(err)
		}
	}
}
