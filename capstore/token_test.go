package capstore_test

import (
	"errors"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// TestReadableStatements refuses texts that a wallet shows in another order than they are signed in.
func TestReadableStatements(t *testing.T) {
	wallet, session := captest.NewWallet("alice"), captest.NewSession("alice")
	options := func(statement string) captest.DelegationOptions {
		return captest.DelegationOptions{
			Audience: session.URI(), Caps: captest.Caps{wallet.Space("default").String() + "/kv": {"tinycloud.kv/get"}}, Statement: statement,
		}
	}
	for _, good := range []string{"", "Sign in.", "התחברות لل naïve 登录 👩‍🚀"} {
		if _, err := capstore.ParseDelegation(wallet.SignDelegation(options(good))); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, r := range "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" {
		_, err := capstore.ParseDelegation(wallet.SignDelegation(options("Sign in" + string(r) + ".")))
		var refusal *tinycloud.Refusal
		if !errors.Is(err, tinycloud.ErrUndecodable) || !errors.As(err, &refusal) {
			t.Errorf("%U: %v", r, err)
		}
	}
}
