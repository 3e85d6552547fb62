package encryption_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
)

func (g *group) mustRotate(h *host) encryption.Descriptor {
	g.t.Helper()
	d, err := h.Rotate(g.t.Context(), h.signed(g.client(h).Rotate(g.id())), g.id())
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

// described is a descriptor as it is answered.
func described(d encryption.Descriptor) string {
	return string(networktest.Canonical(map[string]any{"descriptor": d}))
}

// After a rotation clients encrypt for the new version, and all versions open; of those that were made apart the earlier
// one is advertised.
func TestRotate(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	var envelopes []networktest.Envelope
	var keys [][]byte
	seal := func(descriptor string) {
		e, data := encrypt(t, descriptor)
		envelopes, keys = append(envelopes, e), append(keys, data)
	}
	seal(a.mustCreate(g.client(a).Create(g.key.DID(), "default")))
	g.mustSync(a, b)
	a.pass(time.Second)
	b.pass(2 * time.Second)
	first, second := g.mustRotate(a), g.mustRotate(b)
	seal(described(first))
	seal(described(second))
	if first.KeyVersion != 2 || second.KeyVersion != 2 || bytes.Equal(first.PublicKey, second.PublicKey) || first.State != "active" {
		t.Errorf("%+v, %+v", first, second)
	}
	g.mustSync(a, b)
	g.mustSync(b, a)
	for _, h := range g.hosts {
		if d := g.describe(h); !bytes.Equal(d.PublicKey, first.PublicKey) || d.KeyVersion != 2 {
			t.Errorf("advertises %x of version %d", d.PublicKey, d.KeyVersion)
		}
		for i, e := range envelopes {
			if got, err := h.decrypt(g.client(h), e); err != nil || !bytes.Equal(got, keys[i]) {
				t.Errorf("envelope %d: %v", i, err)
			}
		}
	}
	if d := g.mustRotate(b); d.KeyVersion != 3 {
		t.Errorf("version %d", d.KeyVersion)
	}
}

// Nobody rotates who has not the owner's word for it.
func TestRotateRefusals(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	rotate := func(tok *capstore.Token) error {
		_, err := a.Rotate(t.Context(), tok, g.id())
		return err
	}
	refused(t, "unknown", rotate(a.signed(g.client(a).Rotate(g.id()))), tinycloud.ErrNotFound, "network not found")
	a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	once := a.signed(g.client(a).Rotate(g.id()))
	if err := rotate(once); err != nil {
		t.Fatal(err)
	}
	refused(t, "twice", rotate(once), tinycloud.ErrUnauthorized, "nonce already used")
	refused(t, "another node", rotate(a.signed(g.client(b).Rotate(g.id()))), tinycloud.ErrUnauthorized, "audience")
	refused(t, "a stranger", rotate(a.signed(networktest.Client{Key: captest.RandomSession(), Node: a.node}.Rotate(g.id()))), tinycloud.ErrUnauthorized, "parent")
	refused(t, "another action", rotate(a.signed(g.client(a).Revoke(g.id()))), tinycloud.ErrUnauthorized, "not permitted")
	operator := networktest.Client{Key: captest.SessionOf([32]byte(a.keys.NodeKey().Seed())), Node: a.node}
	refused(t, "the operator", rotate(a.signed(operator.Rotate(g.id()))), tinycloud.ErrUnauthorized, "parent")
	if d := g.describe(a); d.KeyVersion != 2 {
		t.Errorf("version %d", d.KeyVersion)
	}
}

// A wallet signs a text by which the node makes a new version; no other text, node or account does, and once.
func TestRotateByText(t *testing.T) {
	a := open(t, filepath.Join(t.TempDir(), "caps.db"), begin, nil)
	w := captest.RandomWallet()
	space := w.Space("secrets")
	options := captest.HostOptions(space, a.spaceKey(space).String())
	options.IssuedAt = begin
	host, err := capstore.ParseDelegation(w.SignDelegation(options))
	if err == nil {
		_, err = a.store.Delegate(t.Context(), host)
	}
	if err != nil {
		t.Fatal(err)
	}
	key := captest.RandomSession()
	id := networktest.ID(w.DID(), "default")
	session, err := capstore.ParseDelegation(w.SignDelegation(captest.DelegationOptions{
		Audience: key.URI(), Expires: begin.Add(time.Hour), IssuedAt: begin, Caps: captest.Caps{id: {encryption.AbilityCreate, encryption.AbilityDecrypt}},
	}))
	if err == nil {
		_, err = a.store.Delegate(t.Context(), session)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := networktest.Client{Key: key, Node: a.node, Proofs: []tinycloud.Hash{session.ID}}
	e, data := encrypt(t, a.mustCreate(c.Create(w.DID(), "default")))
	network, err := tinycloud.ParseNetworkID(id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.RotateMessage(network, "abcdefgh12345678")
	if err != nil || !strings.Contains(text, "network.rotate") {
		t.Fatalf("%s: %v", text, err)
	}
	rotate := func(by *captest.Wallet, text string) (encryption.Descriptor, error) {
		header, err := capstore.SignedByOwner(text, fmt.Sprintf("0x%x", by.SignText([]byte(text))))
		if err != nil {
			return encryption.Descriptor{}, err
		}
		return a.RotateSigned(t.Context(), parsed(t, header), network)
	}
	if _, err := rotate(captest.RandomWallet(), text); !errors.Is(err, tinycloud.ErrForged) {
		t.Errorf("signed by another wallet: %v", err)
	}
	other := captest.RandomWallet()
	theirs, err := encryption.RotateText(a.Networks, other.DID(), id)
	if err != nil {
		t.Fatal(err)
	}
	_, err = rotate(other, theirs)
	refused(t, "another account", err, tinycloud.ErrUnauthorized, "not signed by the network's owner")
	d, err := rotate(w, text)
	if err != nil || d.KeyVersion != 2 {
		t.Fatalf("version %d: %v", d.KeyVersion, err)
	}
	_, err = rotate(w, text)
	refused(t, "twice", err, tinycloud.ErrUnauthorized, "nonce already used")
	if got, err := a.decrypt(c, e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the first version: %v", err)
	}
	all, err := a.Records(t.Context(), space, nil)
	if err != nil {
		t.Fatal(err)
	}
	rotated := 0
	for _, r := range all {
		if kind, _, _ := encryption.About(r); kind == encryption.RecordRotate {
			rotated++
			if _, proven, err := encryption.ReadRecord(r); proven != nil || err != nil {
				t.Errorf("record of the rotation: %v, %v", proven, err)
			}
		}
	}
	if rotated != 1 {
		t.Errorf("%d records of rotations", rotated)
	}
	a.pass(2 * time.Hour)
	_, err = rotate(w, strings.Replace(text, "abcdefgh", "hgfedcba", 1))
	refused(t, "expired", err, tinycloud.ErrUnauthorized, "expired")
}

func parsed(t *testing.T, header string) *capstore.Token {
	t.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// A database with another node's secret has no keys: they are not told of, and come anew from the other hosts.
func TestAnotherSecret(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	e, data := encrypt(t, a.mustCreate(g.client(a).Create(g.key.DID(), "default")))
	g.mustSync(a, b)
	b.beside(func(tx capstore.BesideTx) error { // as if another secret had sealed it
		return tx.Exec("UPDATE network_keys SET sealed = ?", append([]byte{1}, make([]byte, 60)...))
	})
	if _, err := b.Describe(t.Context(), g.network()); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("describe: %v", err)
	}
	if _, err := b.decrypt(g.client(b), e); !errors.Is(err, tinycloud.ErrUnavailable) {
		t.Errorf("decrypt: %v", err)
	}
	o, err := b.OverviewOf(t.Context(), g.network())
	if err != nil || o.Keys != 0 || o.Unopened != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	g.mustSync(a, b)
	if got, err := b.decrypt(g.client(b), e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the key came anew: %v", err)
	}
}

// A host is told to be alone with a key, and to have it rotated once one that has it was removed.
func TestOverview(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	see := func(h *host, when string, alone, outdated bool) {
		t.Helper()
		all, err := h.Overview(t.Context(), "")
		if err != nil || len(all) != 1 || all[0].Alone() != alone || all[0].Outdated() != outdated {
			t.Errorf("%s: %+v, %v", when, all, err)
		}
	}
	see(a, "alone", true, false)
	g.send(a, b)
	see(b, "elsewhere", false, false)
	g.mustSync(a, b)
	see(a, "two", false, false)
	r, err := capstore.ParseRevocation(g.key.Revoke(g.grants[b].ID, captest.TokenOptions{Expires: begin.Add(time.Hour)}))
	if err == nil {
		err = a.store.Revoke(t.Context(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
	see(a, "removed", true, true)
	g.mustRotate(a)
	see(a, "rotated", true, false)
	if d := g.describe(a); len(d.Members) != 1 {
		t.Errorf("members %q", nodesOf(d))
	}
}

// A host that says it holds a key that it does not hold is asked in vain, and gets in nobody's way.
func TestLyingHolder(t *testing.T) {
	g := newGroup(t, 3)
	a, b, c := g.hosts[0], g.hosts[1], g.hosts[2]
	e, data := encrypt(t, a.mustCreate(g.client(a).Create(g.key.DID(), "default")))
	g.send(a, b)
	lie := encryption.MemberRecord(b.Networks, g.records(a, c)[0])
	if n, err := c.Accept(t.Context(), g.space, append(g.records(a, c), lie)); err != nil || n != 3 {
		t.Fatalf("%d records, %v", n, err)
	}
	w := g.wants(c, b)
	if len(w) != 1 {
		t.Fatalf("%d keys wanted of the liar", len(w))
	}
	if _, err := b.Give(t.Context(), g.space, c.spaceKey(g.space), w[0].Ask()); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("given: %v", err)
	}
	g.mustSync(a, c)
	if got, err := c.decrypt(g.client(c), e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("decrypt: %v", err)
	}
}
