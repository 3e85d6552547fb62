package token_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// docs/protocol.md, "Kinds of token": the kind follows from the bytes and from whether operations are recorded.
func TestKinds(t *testing.T) {
	wallet, session, other := captest.NewWallet("kinds"), captest.NewSession("kinds"), captest.NewSession("other")
	target := tinycloud.Sum([]byte("a delegation"))
	kv := captest.Caps{wallet.Space("default").String() + "/kv/a": {"tinycloud.kv/put"}}
	both := captest.Caps{wallet.Space("default").String() + "/kv/a": {"tinycloud.kv/put"}, "urn:cid:" + target.EventID(): {token.AbilityRevoke}}
	status := captest.Caps{"urn:cid:" + target.EventID(): {"tinycloud.delegation/status"}}
	noCID := captest.Caps{"urn:cid:bafk": {token.AbilityRevoke}}
	bytesOf := func(tok *token.Token, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return tok.Bytes
	}
	cacao := func(audience string) []byte {
		return bytesOf(token.FromHeader(wallet.SignDelegation(captest.DelegationOptions{Audience: audience, IssuedAt: start, Caps: kv})))
	}
	ucan := func(to *captest.SessionKey, caps captest.Caps) []byte {
		return bytesOf(token.FromUCAN(session.Delegate(to.DID(), captest.TokenOptions{Caps: caps, Expires: start})))
	}
	for _, tt := range []struct {
		name   string
		bytes  []byte
		hasOps bool
		kind   token.Kind
		target bool
	}{
		{"a CACAO", cacao(session.URI()), false, token.Delegation, false},
		{"a CACAO with operations", cacao(session.URI()), true, token.Delegation, false},
		{"a CACAO for ucan: and a CID", cacao("ucan:" + target.EventID()), false, token.Revocation, true},
		{"a CACAO for ucan: and no CID", cacao("ucan:bafk"), false, token.Delegation, false},
		{"a UCAN for another", ucan(other, kv), false, token.Delegation, false},
		{"a UCAN for another with operations", ucan(other, kv), true, token.Invocation, false},
		{"a UCAN for its signer", ucan(session, kv), false, token.Invocation, false},
		{"a UCAN for its signer with operations", ucan(session, kv), true, token.Invocation, false},
		{"a UCAN for its signer to revoke", ucan(session, both), false, token.Revocation, true},
		{"a UCAN for its signer to revoke, with operations", ucan(session, both), true, token.Invocation, false},
		{"a UCAN for its signer to revoke what is no CID", ucan(session, noCID), false, token.Invocation, false},
		{"a UCAN for its signer to ask about a delegation", ucan(session, status), false, token.Invocation, false},
		{"a UCAN for another to revoke", ucan(other, both), false, token.Delegation, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := token.Decode(tt.bytes, tt.hasOps)
			if err != nil {
				t.Fatal(err)
			}
			if tok.Kind != tt.kind || (tok.Target == target) != tt.target || tok.ID != tinycloud.Sum(tt.bytes) {
				t.Errorf("kind %d, target %s, want kind %d", tok.Kind, tok.Target, tt.kind)
			}
			if err := tok.VerifySignature(); err != nil {
				t.Error(err)
			}
		})
	}
}

// docs/protocol.md, "Windows": what the tables say of CACAOs and UCANs holds for those that are read.
func TestWindowAsRead(t *testing.T) {
	wallet, session := captest.NewWallet("windows"), captest.NewSession("windows")
	begin, end := start.Truncate(time.Second), start.Truncate(time.Second).Add(time.Minute)
	cacao, err := token.FromHeader(wallet.SignDelegation(captest.DelegationOptions{Audience: session.URI(), IssuedAt: begin, NotBefore: begin, Expires: end}))
	if err != nil {
		t.Fatal(err)
	}
	ucan, err := token.FromUCAN(session.Invoke(captest.TokenOptions{NotBefore: begin, Expires: end}))
	if err != nil {
		t.Fatal(err)
	}
	if cacao.ValidAt(begin, 0) || !cacao.ValidAt(begin.Add(1), 0) || !cacao.ValidAt(end, 0) || cacao.ValidAt(end.Add(1), 0) {
		t.Error("a CACAO is not valid from after its nbf until its exp")
	}
	if ucan.ValidAt(begin.Add(-1), 0) || !ucan.ValidAt(begin, 0) || !ucan.ValidAt(end, 0) || ucan.ValidAt(end.Add(1), 0) {
		t.Error("a UCAN is not valid from its nbf until its exp")
	}
}

// docs/protocol.md, "Revocations": what is a revocation when it is posted as one.
func TestAsRevocation(t *testing.T) {
	session, other := captest.NewSession("revoker"), captest.NewSession("other")
	target := tinycloud.Sum([]byte("a delegation"))
	revoke := captest.Caps{"urn:cid:" + target.EventID(): {token.AbilityRevoke}}
	wallet := captest.NewWallet("revoker")
	ucan := func(to *captest.SessionKey, caps captest.Caps) (*token.Token, error) {
		return token.FromUCAN(session.Delegate(to.DID(), captest.TokenOptions{Caps: caps, Expires: start}))
	}
	cacao := func(audience string) (*token.Token, error) {
		return token.FromHeader(wallet.SignDelegation(captest.DelegationOptions{Audience: audience, IssuedAt: start}))
	}
	for _, tt := range []struct {
		name string
		make func() (*token.Token, error)
		want bool
	}{
		{"a CACAO for ucan: and a CID", func() (*token.Token, error) { return cacao("ucan:" + target.EventID()) }, true},
		{"a CACAO for somebody", func() (*token.Token, error) { return cacao(session.URI()) }, false},
		{"a UCAN for its signer", func() (*token.Token, error) { return ucan(session, revoke) }, true},
		{"a UCAN for another", func() (*token.Token, error) { return ucan(other, revoke) }, false},
		{"a UCAN without a target", func() (*token.Token, error) { return ucan(session, nil) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := tt.make()
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.AsRevocation(); got != tt.want || got && (tok.Kind != token.Revocation || tok.Target != target) {
				t.Errorf("is a revocation: %v, want %v; of %s", got, tt.want, tok.Target)
			}
		})
	}
}
