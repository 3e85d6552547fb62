package judge_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// The owner of an encryption network ends delegations about it that name no Space; of others their Spaces' owners do.
func TestRevocationByTheOwnerOfANetwork(t *testing.T) {
	owner, session, delegate := captest.RandomSession(), captest.RandomSession(), captest.RandomSession()
	id := "urn:tinycloud:encryption:" + string(owner.DID()) + ":default"
	space := "tinycloud:" + string(session.DID()[len("did:"):]) + ":default/kv"
	read := func(text string, kind token.Kind) *token.Token {
		tok, err := token.FromUCAN(text)
		if err != nil {
			t.Fatal(err)
		}
		tok.Kind = kind
		return tok
	}
	for _, tt := range []struct {
		name string
		caps captest.Caps
		by   *captest.SessionKey
		may  bool
	}{
		{"by the network's owner", captest.Caps{id: {"tinycloud.encryption/decrypt"}}, owner, true},
		{"by a stranger", captest.Caps{id: {"tinycloud.encryption/decrypt"}}, captest.RandomSession(), false},
		{"by its delegator", captest.Caps{id: {"tinycloud.encryption/decrypt"}}, session, true},
		{"that names a Space, by the network's owner", captest.Caps{id: {"tinycloud.encryption/decrypt"}, space: {"tinycloud.kv/get"}}, owner, false},
	} {
		target := read(session.Delegate(delegate.DID(), captest.TokenOptions{Caps: tt.caps, Expires: time.Now().Add(time.Hour)}), token.Delegation)
		revocation := token.Token{Kind: token.Revocation, Signer: tt.by.DID(), Target: target.ID}
		if got := judge.MayRevoke(&revocation, target, func(tinycloud.Hash) *token.Token { return nil }); got != tt.may {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
