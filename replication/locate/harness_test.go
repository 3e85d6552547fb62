package locate_test

import (
	"context"
	"crypto/ed25519"
	"testing"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// keys makes a node's keys from its name.
type keys string

func (k keys) SpaceKey(s tinycloud.SpaceID) ed25519.PrivateKey {
	h := tinycloud.Sum([]byte(string(k) + s.String()))
	return ed25519.NewKeyFromSeed(h[:])
}

// owner is a wallet with a Space.
type owner struct {
	wallet *captest.Wallet
	space  tinycloud.SpaceID
}

func newOwner(seed string) *owner {
	w := captest.NewWallet(seed)
	return &owner{wallet: w, space: w.Space("default")}
}

func (o *owner) hosting(key ed25519.PrivateKey, d captest.DelegationOptions) string {
	h := captest.HostOptions(o.space, didOf(key))
	h.Expires, h.NotBefore, h.IssuedAt = d.Expires, d.NotBefore, d.IssuedAt
	return o.wallet.SignDelegation(h)
}

func didOf(key ed25519.PrivateKey) string {
	return string(captest.SessionOf([32]byte(key.Seed())).DID())
}

// node is what a host of a Space has.
type node struct {
	t     testing.TB
	o     *owner
	name  keys
	store *capstore.Store
}

func (n *node) key() ed25519.PrivateKey { return n.name.SpaceKey(n.o.space) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (n *node) delegate(header string) {
	n.t.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err == nil {
		_, err = n.store.Delegate(context.Background(), tok)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) revoke(header string) {
	n.t.Helper()
	tok, err := capstore.ParseRevocation(header)
	if err == nil {
		err = n.store.Revoke(context.Background(), tok)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}
