package captest_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/ucan"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
)

func key(tb testing.TB, text string) (b [32]byte) {
	tb.Helper()
	if n, err := hex.Decode(b[:], []byte(text)); err != nil || n != 32 {
		tb.Fatal(n, err)
	}
	return b
}

// The parties and times of protocol appendix A.3.
const (
	hostDID    = "did:key:z2DYMejwHgGyU5uyDreHFEsgnme6d5i1vsLEGuq5x7jAzjg"
	bobAccount = "did:pkh:eip155:1:0xD95Ead875618AE174C3FA894D9A8e04274b6276F"
	bobSession = "did:key:z6Mko19wRtALjEvZkjqVH1tcsd35P6x35qZTPkxXyhUu4v1H"
)

var (
	issuedAt = time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	expires  = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

func alice(tb testing.TB) *captest.Wallet {
	return captest.WalletOf(key(tb, "3d763a84d2223a7c44f4ad85f8ed08cb3646bb46b4bd2f1d357b84b8c226f4f0"))
}

func session(tb testing.TB) *captest.SessionKey {
	return captest.SessionOf(key(tb, "36f4ecbb991397d317dc68a7df252ea0c178f185536938e6d2ac047c4d42c22c"))
}

func TestParties(t *testing.T) {
	if got := alice(t).Address(); got != "0x7bC78e997A71263Eb87da609bB784b8FdD294af4" {
		t.Errorf("address %s", got)
	}
	if got := alice(t).Space("default").String(); got != "tinycloud:pkh:eip155:1:0x7bC78e997A71263Eb87da609bB784b8FdD294af4:default" {
		t.Errorf("space %s", got)
	}
	if got := session(t).URI(); got != "did:key:z6MknnfAxVv3fUyPywdQ9RJ14XkzuMhYPza5aQD1jGkXe68s#z6MknnfAxVv3fUyPywdQ9RJ14XkzuMhYPza5aQD1jGkXe68s" {
		t.Errorf("session %s", got)
	}
	a, again, b := captest.NewWallet("a"), captest.NewWallet("a"), captest.NewWallet("b")
	random, other := captest.RandomWallet(), captest.RandomWallet()
	if a.DID() != again.DID() || a.DID() == b.DID() || random.DID() == other.DID() {
		t.Error("wallets are not of their seeds")
	}
	x, same := captest.NewSession("a"), captest.NewSession("a")
	y, z := captest.RandomSession(), captest.RandomSession()
	if x.DID() != same.DID() || y.DID() == z.DID() {
		t.Error("sessions are not of their seeds")
	}
}

// hostHeader and revocationHeader are appendix A.3, byte for byte.
const (
	hostHeader       = "o2FooWF0Z2VpcDQzNjFhcKhjYXVkeDdkaWQ6a2V5OnoyRFlNZWp3SGdHeVU1dXlEcmVIRkVzZ25tZTZkNWkxdnNMRUd1cTV4N2pBempnY2lhdHgYMjAyNi0wMS0xNVQxMDowMDowMC4wMDBaY2lzc3g7ZGlkOnBraDplaXAxNTU6MToweDdiQzc4ZTk5N0E3MTI2M0ViODdkYTYwOWJCNzg0YjhGZEQyOTRhZjRlbm9uY2VxZ29sZGVuMDAwMDEwMDAwMDFmZG9tYWlua2V4YW1wbGUuY29tZ3ZlcnNpb24BaXJlc291cmNlc4F4uHVybjpyZWNhcDpleUpoZEhRaU9uc2lkR2x1ZVdOc2IzVmtPbkJyYURwbGFYQXhOVFU2TVRvd2VEZGlRemM0WlRrNU4wRTNNVEkyTTBWaU9EZGtZVFl3T1dKQ056ZzBZamhHWkVReU9UUmhaalE2WkdWbVlYVnNkQzl6Y0dGalpTSTZleUowYVc1NVkyeHZkV1F1YzNCaFkyVXZhRzl6ZENJNlczdDlYWDE5TENKd2NtWWlPbHRkZlFpc3RhdGVtZW50eMZJIGZ1cnRoZXIgYXV0aG9yaXplIHRoZSBzdGF0ZWQgVVJJIHRvIHBlcmZvcm0gdGhlIGZvbGxvd2luZyBhY3Rpb25zIG9uIG15IGJlaGFsZjogKDEpICd0aW55Y2xvdWQuc3BhY2UnOiAnaG9zdCcgZm9yICd0aW55Y2xvdWQ6cGtoOmVpcDE1NToxOjB4N2JDNzhlOTk3QTcxMjYzRWI4N2RhNjA5YkI3ODRiOEZkRDI5NGFmNDpkZWZhdWx0L3NwYWNlJy5hc6Jhc1hBf_D4A5-ulWAZPlDLwY_wxzw0HkltpTPCMrZjBa7nW6852j2SenyYsPpkXwH8BfHFKxcBtJ46F1-nUsZ--IK5xhthdGZlaXAxOTE="
	revocationHeader = "o2FooWF0Z2VpcDQzNjFhcKZjYXVkeEB1Y2FuOmJhZmtyNGlmM2UzbWVqdzdtZnZqYmx3MmVzaTNzbm1xeG51bjc0aGV0Yjdwbnh1Y2gzcTJoejQyc3htY2lhdHgYMjAyNi0wMS0xNVQxMDowMDowMC4wMDBaY2lzc3g7ZGlkOnBraDplaXAxNTU6MToweDdiQzc4ZTk5N0E3MTI2M0ViODdkYTYwOWJCNzg0YjhGZEQyOTRhZjRlbm9uY2Vpbm9uY2UwMDAzZmRvbWFpbmtleGFtcGxlLmNvbWd2ZXJzaW9uAWFzomFzWEHRGg_FlqUs6CggCt04cEbebICorKl50fxZ0b_1kAn5u2SKgYMv2N4YqwT5NTldWbk7uDyRjYgsCKabEiDCPEi7G2F0ZmVpcDE5MQ=="
	bobDelegation    = "bafkr4if3e3mejw7mfvjblw2esi3snmqxnun74hetb7pnxuch3q2hz42sxm"
	sessionCID       = "bafkr4ig5k357uumaf44kbqit3fuzck75obog4flzbmcscflgy72coxlfzu"
)

func golden(o captest.DelegationOptions, nonce string) captest.DelegationOptions {
	o.Nonce, o.IssuedAt = nonce, issuedAt
	return o
}

func TestWalletVectors(t *testing.T) {
	a := alice(t)
	space := a.Space("default").String()
	bob := a.SignDelegation(golden(captest.DelegationOptions{
		Audience: bobAccount, Expires: expires, Caps: captest.Caps{space + "/kv/for-bob": {"tinycloud.kv/put", "tinycloud.kv/get"}},
	}, "nonce0001"))
	host := captest.HostOptions(a.Space("default"), hostDID)
	for _, tt := range []struct{ name, header, wantHeader, wantCID string }{
		{"host", a.SignDelegation(golden(host, "golden00001000001")), hostHeader, "bafkr4iajneubhzkrv22lhxzxgb2csyifzhxefnblj2rtnyrk4lm7bv2mvy"},
		{"session", a.SignDelegation(golden(captest.DelegationOptions{
			Audience: session(t).URI(), Expires: expires,
			Caps: captest.Caps{
				space + "/kv":               {"tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/list", "tinycloud.kv/del", "tinycloud.kv/metadata"},
				space + "/capabilities/all": {"tinycloud.capabilities/read"},
			},
		}, "golden00001000002")), "", sessionCID},
		{"to bob's wallet", bob, "", bobDelegation},
		{"revocation", a.SignDelegation(golden(captest.DelegationOptions{Audience: "ucan:" + captest.ID(bob).EventID()}, "nonce0003")), revocationHeader, "bafkr4icb7bqhi4ejm7ih2ddddsl5twjrlf6gt2yfuoixkd3uxfzot3coaa"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.wantHeader != "" && tt.header != tt.wantHeader {
				t.Errorf("header %s", tt.header)
			}
			tok, err := cacao.Decode(tt.header)
			if err != nil {
				t.Fatal(err)
			}
			if err := tok.VerifySignature(); err != nil {
				t.Error(err)
			}
			if tok.Hash.EventID() != tt.wantCID || captest.ID(tt.header) != tok.Hash {
				t.Errorf("CID %s, want %s\n%s", tok.Hash.EventID(), tt.wantCID, tok.Message.Text())
			}
		})
	}
}

func TestProofInRecap(t *testing.T) {
	parent, err := tinycloud.ParseCID(bobDelegation)
	if err != nil {
		t.Fatal(err)
	}
	w := captest.NewWallet("bob")
	tok, err := cacao.Decode(w.SignDelegation(captest.DelegationOptions{
		Audience: bobSession, Statement: "Hello.", NotBefore: issuedAt, Proofs: []tinycloud.Hash{parent}, Domain: "a.example",
		Caps: captest.Caps{"urn:a": {"a/b"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"zb38SJZrMRtxPNpVsfCm54KHDwkt4zFoNrw1vEXEDy9XEtD3G"}, tok.Proofs.Texts); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(*tok.Message.Statement, "Hello. I further authorize") || tok.Message.Domain != "a.example" ||
		!tok.NotBefore.Equal(issuedAt) || tok.Issuer != w.DID() || tok.VerifySignature() != nil {
		t.Errorf("token %+v", tok)
	}
	if got := cacaoOf(t, w.SignHost(w.Space("x"), hostDID)); got.Audience != hostDID || got.Capabilities[0].Resource.Space() != w.Space("x") {
		t.Errorf("host delegation %+v", got)
	}
	if got := cacaoOf(t, w.SignRevocation(parent)); got.Audience != "ucan:"+bobDelegation || got.Capabilities != nil {
		t.Errorf("revocation %+v", got)
	}
}

func cacaoOf(t *testing.T, header string) *cacao.Token {
	t.Helper()
	tok, err := cacao.Decode(header)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.VerifySignature(); err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestSessionVectors(t *testing.T) {
	parent, err := tinycloud.ParseCID(sessionCID)
	if err != nil {
		t.Fatal(err)
	}
	s, space := session(t), alice(t).Space("default").String()
	one := func(ability, nonce string) captest.TokenOptions {
		return captest.TokenOptions{
			Caps: captest.Caps{space + "/kv/docs/one.txt": {ability}}, Nonce: nonce,
			Expires: time.Unix(4102444800, 0), Proofs: []tinycloud.Hash{parent},
		}
	}
	put := s.Invoke(one("tinycloud.kv/put", "golden-put-1"))
	for _, tt := range []struct{ name, header, want string }{
		{"put", put, "bafkr4ihsuw6x3pj7kcqymi4cifye4phvazjhtzoyqy2mkqi2dhs6q63hwa"},
		{"put, other nonce", s.Invoke(one("tinycloud.kv/put", "golden00001000006")), "bafkr4ib2xpcyeynis5d6cmytxdghnt6nbn6a442qz6b4blsq3rlb5rlz7q"},
		{"get", s.Invoke(one("tinycloud.kv/get", "golden-get-1")), "bafkr4iatoowqbjdooxau4iaejokmxxu5um2u5x5rc4lyzykajowyqpu3fe"},
		{"del", s.Invoke(one("tinycloud.kv/del", "golden-del-1")), "bafkr4ibe26236ob7nsnlxwzlatckay7ynalcjrm4xlez66fdiw3plk6bfy"},
		{"delegation", s.Delegate(bobSession, captest.TokenOptions{
			Caps: captest.Caps{space + "/kv/shared": {"tinycloud.kv/list", "tinycloud.kv/get"}}, Nonce: "golden-deleg-1",
			Expires: time.Unix(4102358400, 0), Proofs: []tinycloud.Hash{parent},
		}), "bafkr4ia2n2eoxt37q74srjxlij4cfhw5yqrt4xeoztlxf6bm2pnekgro3i"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := ucan.Decode(tt.header)
			if err != nil {
				t.Fatal(err)
			}
			if err := tok.VerifySignature(); err != nil {
				t.Error(err)
			}
			if got := captest.ID(tt.header); got.EventID() != tt.want || got != tok.Hash {
				t.Errorf("CID %s, want %s", got.EventID(), tt.want)
			}
		})
	}
	const wantHeader = `{"alg":"EdDSA","jwk":{"alg":"EdDSA","kty":"OKP","crv":"Ed25519","x":"e9WuOhbClp3QWkQx3y_cmAxmRrRtKBZdy52t9mKCp8Q"},"typ":"JWT","ucv":"0.10.0"}`
	parts := strings.Split(put, ".")
	if b, err := base64.RawURLEncoding.DecodeString(parts[0]); err != nil || string(b) != wantHeader {
		t.Errorf("header %s", b)
	}
	if parts[2] != "wXoTNIKnCeQTVaRcXuik4IxhsPCk-LYE8AiGbxrUKck5UCLiJyZMg1w7MO-7pT_gd1vZa4d10lnmGNKFLrmBAQ" {
		t.Errorf("signature %s", parts[2])
	}
}

func TestTokenOptions(t *testing.T) {
	s := captest.NewSession("a")
	target := tinycloud.Sum([]byte("target"))
	exp, nbf := time.UnixMilli(1795398749500), time.Unix(1795398700, 0)
	tok, err := ucan.Decode(s.Revoke(target, captest.TokenOptions{
		Expires: exp, NotBefore: nbf, Caveats: `[{"x":1}]`, Audience: bobSession,
		Facts: []json.RawMessage{[]byte(`{"a":"<&>"}`)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.VerifySignature(); err != nil {
		t.Error(err)
	}
	c := tok.Capabilities[0]
	if c.URI != "urn:cid:"+target.EventID() || c.Ability != "tinycloud.delegation/revoke" || string(c.Caveats) != `[{"x":1}]` {
		t.Errorf("capability %+v", c)
	}
	if !tok.Expires.Equal(exp) || !tok.NotBefore.Equal(nbf) || tok.Audience != bobSession || string(tok.Facts[0]) != `{"a":"<&>"}` ||
		!strings.HasPrefix(tok.Nonce, "urn:uuid:") || len(tok.Nonce) != 45 {
		t.Errorf("token %+v", tok)
	}
	for name, o := range map[string]captest.TokenOptions{"algorithm": {Algorithm: "none"}, "issuer": {Issuer: bobSession}} {
		tok, err := ucan.Decode(s.Invoke(o))
		if err != nil {
			t.Fatal(err)
		}
		if tok.VerifySignature() == nil {
			t.Errorf("a false %s passes", name)
		}
	}
}
