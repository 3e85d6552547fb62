package capstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// web makes levels of delegations, in each as many as a token may cite, all citing all of the level before, with many
// capabilities. Nobody had any of them to give.
func web(t *testing.T, o *owner, levels, caps int) (all []*capstore.Token, last []tinycloud.Hash) {
	t.Helper()
	for level := range levels {
		from, to := captest.NewSession(fmt.Sprint("level ", level)), captest.NewSession(fmt.Sprint("level ", level+1))
		var next []tinycloud.Hash
		for i := range capstore.MaxProofs {
			tok := &capstore.Token{Kind: token.Delegation, ID: tinycloud.Sum(fmt.Append(nil, level, i)), Signer: from.DID(), Audience: to.DID(), Proofs: last}
			for n := range caps {
				r, ok := o.space.NewKey("kv", fmt.Sprint(n))
				if !ok {
					t.Fatal("no resource")
				}
				tok.Caps = append(tok.Caps, capstore.Capability{Resource: r, Ability: "tinycloud.kv/put"})
			}
			all, next = append(all, tok), append(next, tok.ID)
		}
		last = next
	}
	return all, last
}

// What a stranger's delegation rests on is looked at a bounded number of times, however many capabilities and proofs it
// and they have.
func TestChainsAreBounded(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := open(t, "one", c, capstore.InMemory)
	o.hostOn(s)
	all, last := web(t, o, 6, 32)
	capstore.Remember(s.Store, all...)
	asked := func(proofs []tinycloud.Hash, n int) *capstore.Token {
		tok := &capstore.Token{Kind: token.Delegation, Signer: captest.NewSession("level 6").DID(), Audience: captest.NewSession("end").DID(), Proofs: proofs}
		for i := range n {
			tok.Caps = append(tok.Caps, all[0].Caps[i])
		}
		return tok
	}
	looks, err := capstore.Looks(s.Store, asked(last, 32))
	if !errors.Is(err, tinycloud.ErrUnauthorized) || looks > capstore.MaxLooks {
		t.Errorf("%d looks, %v", looks, err)
	}
	if looks, err = capstore.Looks(s.Store, asked(last, 1)); !errors.Is(err, tinycloud.ErrUnauthorized) || looks > capstore.MaxLooks {
		t.Errorf("%d looks for one capability, %v", looks, err)
	}
	looks, err = capstore.Looks(s.Store, asked(append(last, last[0]), 1))
	if !errors.Is(err, tinycloud.ErrUnauthorized) || looks != 0 {
		t.Errorf("%d looks at more proofs than may be cited, %v", looks, err)
	}

	// What apps ask for is far below: five Spaces with all abilities, and what is passed on of them twice.
	abilities := []string{"put", "get", "del", "list", "metadata"}
	caps := captest.Caps{}
	for _, name := range []string{"default", "applications", "account", "secrets", "public"} {
		for _, a := range abilities {
			at := o.wallet.Space(name).String() + "/kv"
			caps[at] = append(caps[at], "tinycloud.kv/"+a)
		}
	}
	parent := o.wallet.SignDelegation(captest.DelegationOptions{Audience: o.session.URI(), IssuedAt: c.now(), Expires: c.now().Add(3_600_000_000_000), Caps: caps})
	s.delegate(parent)
	from, proof := o.session, captest.ID(parent)
	for i := range 2 {
		to := captest.NewSession(fmt.Sprint("passed on ", i))
		header := from.Delegate(to.DID(), captest.TokenOptions{Caps: caps, Proofs: []tinycloud.Hash{proof}, Expires: c.now().Add(1_800_000_000_000)})
		tok, err := capstore.ParseDelegation(header)
		if err != nil {
			t.Fatal(err)
		}
		if looks, err := capstore.Looks(s.Store, tok); err != nil || looks > capstore.MaxLooks/8 {
			t.Errorf("%d looks at what is passed on, %v", looks, err)
		}
		if _, err := s.Delegate(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		if looks, err := capstore.Looks(s.Store, tok); err != nil || looks != 0 {
			t.Errorf("%d looks once it is known, %v", looks, err)
		}
		from, proof = to, tok.ID
	}
}

// What a token is granted as an invocation it need not be granted as a delegation: the proofs of that have to last as long
// as it does.
func TestGrantedAsWhatItWasUsed(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	s := open(t, "one", c, capstore.InMemory)
	o.hostOn(s)
	at := o.space.String() + "/kv/"
	root := func(life time.Duration, key string) tinycloud.Hash {
		header := o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: o.session.URI(), IssuedAt: c.now(), Expires: c.now().Add(life), Caps: captest.Caps{at + key: {"tinycloud.kv/get"}},
		})
		s.delegate(header)
		return captest.ID(header)
	}
	proofs := []tinycloud.Hash{root(time.Minute, "short"), root(time.Hour, "long")}
	header := o.session.Delegate(captest.NewSession("other").DID(), captest.TokenOptions{
		Caps: captest.Caps{at + "short": {"tinycloud.kv/get"}, at + "long": {"tinycloud.kv/get"}}, Proofs: proofs, Expires: c.now().Add(2 * time.Minute),
	})
	used, err := capstore.ParseInvocation(header)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Admit(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	passed, err := capstore.ParseDelegation(header)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delegate(t.Context(), passed); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("passed on for longer than it was given: %v", err)
	}
}
