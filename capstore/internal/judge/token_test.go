package judge

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// docs/protocol.md, "Kinds of token": the kind follows from the bytes and from whether operations are recorded.
func TestKinds(t *testing.T) {
	wallet, session, other := captest.NewWallet("kinds"), captest.NewSession("kinds"), captest.NewSession("other")
	target := tinycloud.Sum([]byte("a delegation"))
	kv := captest.Caps{wallet.Space("default").String() + "/kv/a": {"tinycloud.kv/put"}}
	both := captest.Caps{wallet.Space("default").String() + "/kv/a": {"tinycloud.kv/put"}, "urn:cid:" + target.EventID(): {AbilityRevoke}}
	status := captest.Caps{"urn:cid:" + target.EventID(): {"tinycloud.delegation/status"}}
	noCID := captest.Caps{"urn:cid:bafk": {AbilityRevoke}}
	bytesOf := func(tok *Token, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return tok.Bytes
	}
	cacao := func(audience string) []byte {
		return bytesOf(FromHeader(wallet.SignDelegation(captest.DelegationOptions{Audience: audience, IssuedAt: start, Caps: kv})))
	}
	ucan := func(to *captest.SessionKey, caps captest.Caps) []byte {
		return bytesOf(FromUCAN(session.Delegate(to.DID(), captest.TokenOptions{Caps: caps, Expires: start})))
	}
	for _, tt := range []struct {
		name   string
		bytes  []byte
		hasOps bool
		kind   Kind
		target bool
	}{
		{"a CACAO", cacao(session.URI()), false, Delegation, false},
		{"a CACAO with operations", cacao(session.URI()), true, Delegation, false},
		{"a CACAO for ucan: and a CID", cacao("ucan:" + target.EventID()), false, Revocation, true},
		{"a CACAO for ucan: and no CID", cacao("ucan:bafk"), false, Delegation, false},
		{"a UCAN for another", ucan(other, kv), false, Delegation, false},
		{"a UCAN for another with operations", ucan(other, kv), true, Invocation, false},
		{"a UCAN for its signer", ucan(session, kv), false, Invocation, false},
		{"a UCAN for its signer with operations", ucan(session, kv), true, Invocation, false},
		{"a UCAN for its signer to revoke", ucan(session, both), false, Revocation, true},
		{"a UCAN for its signer to revoke, with operations", ucan(session, both), true, Invocation, false},
		{"a UCAN for its signer to revoke what is no CID", ucan(session, noCID), false, Invocation, false},
		{"a UCAN for its signer to ask about a delegation", ucan(session, status), false, Invocation, false},
		{"a UCAN for another to revoke", ucan(other, both), false, Delegation, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := Decode(tt.bytes, tt.hasOps)
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
	cacao, err := FromHeader(wallet.SignDelegation(captest.DelegationOptions{Audience: session.URI(), IssuedAt: begin, NotBefore: begin, Expires: end}))
	if err != nil {
		t.Fatal(err)
	}
	ucan, err := FromUCAN(session.Invoke(captest.TokenOptions{NotBefore: begin, Expires: end}))
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
	revoke := captest.Caps{"urn:cid:" + target.EventID(): {AbilityRevoke}}
	wallet := captest.NewWallet("revoker")
	ucan := func(to *captest.SessionKey, caps captest.Caps) (*Token, error) {
		return FromUCAN(session.Delegate(to.DID(), captest.TokenOptions{Caps: caps, Expires: start}))
	}
	cacao := func(audience string) (*Token, error) {
		return FromHeader(wallet.SignDelegation(captest.DelegationOptions{Audience: audience, IssuedAt: start}))
	}
	for _, tt := range []struct {
		name string
		make func() (*Token, error)
		want bool
	}{
		{"a CACAO for ucan: and a CID", func() (*Token, error) { return cacao("ucan:" + target.EventID()) }, true},
		{"a CACAO for somebody", func() (*Token, error) { return cacao(session.URI()) }, false},
		{"a UCAN for its signer", func() (*Token, error) { return ucan(session, revoke) }, true},
		{"a UCAN for another", func() (*Token, error) { return ucan(other, revoke) }, false},
		{"a UCAN without a target", func() (*Token, error) { return ucan(session, nil) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := tt.make()
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.AsRevocation(); got != tt.want || got && (tok.Kind != Revocation || tok.Target != target) {
				t.Errorf("is a revocation: %v, want %v; of %s", got, tt.want, tok.Target)
			}
		})
	}
}
