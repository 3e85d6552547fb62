package capstore_test

import (
	"errors"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// A delegation that only stands in a peer's history grants nothing when its signer had nothing to give.
func TestBaselessDelegation(t *testing.T) {
	s, o, l := setUp(t)
	mallory, key := captest.NewWallet("mallory"), captest.NewSession("mallory")
	header := mallory.SignDelegation(captest.DelegationOptions{
		Audience: key.URI(), Expires: o.clock.now().Add(time.Hour), IssuedAt: o.clock.now(),
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}},
	})
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delegate(t.Context(), tok); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Fatalf("posted: %v", err)
	}
	l.say(t, s, l.bundle(o.clock.now(), s.status(o.space).Heads, tok.Bytes))
	inv, err := capstore.ParseInvocation(key.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}},
		Proofs: []tinycloud.Hash{tok.ID}, Expires: o.clock.now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Admit(t.Context(), inv); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("invoked: %v", err)
	}
}
