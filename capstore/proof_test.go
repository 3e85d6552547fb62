package capstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// A host that was removed while it could not hear of that, let in again and shows its old delegation is a host, also
// when it lost the newer one with its disk; before that, and for what a stranger signs, it is none.
func TestOutdatedProof(t *testing.T) {
	a, o, l := setUp(t)
	x := openNew(t, "x", o.clock)
	gone := o.member(x)
	a.pull(x, o.space)
	old, err := x.HostChain(t.Context(), o.space)
	if err != nil {
		t.Fatal(err)
	}
	until := o.clock.now().Add(time.Hour).Truncate(time.Second)
	again := captest.HostOptions(o.space, x.host(o.space).String())
	again.Expires = until
	for _, step := range []struct {
		name    string
		do      func()
		refused bool
	}{
		{"at first", func() {}, false},
		{"removed", func() { o.remove(t, a, gone) }, true},
		{"let in by a stranger", func() {
			l.welcome(t, a)
			again.IssuedAt = o.clock.now()
			tok, err := capstore.ParseDelegation(captest.RandomWallet().SignDelegation(again))
			if err != nil {
				t.Fatal(err)
			}
			l.say(t, a, l.bundle(o.clock.now(), a.status(o.space).Heads, tok.Bytes))
		}, true},
		{"let in again", func() { a.delegate(o.wallet.SignDelegation(again)) }, false},
		{"until that expires", func() { o.clock.ms.Add(2 * time.Hour.Milliseconds()) }, true},
	} {
		o.clock.ms.Add(10)
		step.do()
		end, err := a.VerifyHost(t.Context(), o.space, x.host(o.space), old)
		if refused := errors.Is(err, tinycloud.ErrUnauthorized); refused != step.refused || err != nil && !refused {
			t.Errorf("%s: %v", step.name, err)
		}
		if step.name == "let in again" && !end.Equal(until) {
			t.Errorf("ends at %s, want %s", end, until)
		}
	}
	if _, err := a.VerifyHost(t.Context(), o.space, l.host(), old); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("another host's chain: %v", err)
	}
}

// What a stranger signs for this host's key is never shown as its proof.
func TestStrangersProof(t *testing.T) {
	a, o, l := setUp(t)
	l.welcome(t, a)
	mine, err := a.HostChain(t.Context(), o.space)
	if err != nil {
		t.Fatal(err)
	}
	o.clock.ms.Add(10)
	later := captest.HostOptions(o.space, a.host(o.space).String())
	later.IssuedAt = time.Now().Add(time.Hour) // later than the owner's
	tok, err := capstore.ParseDelegation(captest.RandomWallet().SignDelegation(later))
	if err != nil {
		t.Fatal(err)
	}
	l.say(t, a, l.bundle(o.clock.now(), a.status(o.space).Heads, tok.Bytes))
	if got, err := a.HostChain(t.Context(), o.space); err != nil || tinycloud.Sum(got[0]) != tinycloud.Sum(mine[0]) {
		t.Errorf("shows %s: %v", tinycloud.Sum(got[0]).EventID(), err)
	}
}

// A host shows no more tokens than another takes, however many its delegation rests on: one that could not prove what it
// is would write what nobody may ask it for.
func TestProofFitsTheBound(t *testing.T) {
	a, o, _ := setUp(t)
	x := openNew(t, "x", o.clock)
	// As many as one may cite, on two levels: more than a proof may have.
	director, manager := captest.NewSession("director"), captest.NewSession("manager")
	caps := captest.HostOptions(o.space, "").Caps
	var above, proofs []tinycloud.Hash
	for i := range capstore.MaxProofs {
		grant := captest.HostOptions(o.space, string(director.DID()))
		grant.IssuedAt, grant.Expires = o.clock.now(), o.clock.now().Add(time.Duration(2+i)*time.Hour)
		header := o.wallet.SignDelegation(grant)
		a.delegate(header)
		x.delegate(header)
		above = append(above, captest.ID(header))
	}
	for i := range capstore.MaxProofs {
		header := director.Delegate(manager.DID(), captest.TokenOptions{
			Caps: caps, Proofs: above, Expires: o.clock.now().Add(time.Hour), Nonce: fmt.Sprint("manager ", i),
		})
		a.delegate(header)
		x.delegate(header)
		proofs = append(proofs, captest.ID(header))
	}
	header := manager.Delegate(tinycloud.Principal(x.host(o.space).String()), captest.TokenOptions{
		Caps: caps, Proofs: proofs, Expires: o.clock.now().Add(time.Hour),
	})
	x.delegate(header)
	chain, err := x.HostChain(t.Context(), o.space)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) > hostlog.MaxChain || tinycloud.Sum(chain[0]) != captest.ID(header) {
		t.Errorf("%d tokens, at most %d", len(chain), hostlog.MaxChain)
	}
	if _, err := a.VerifyHost(t.Context(), o.space, x.host(o.space), chain); err != nil {
		t.Error(err)
	}
}
