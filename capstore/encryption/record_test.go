package encryption_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
)

// Records that prove nothing are refused, and change nothing.
func TestBadRecords(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	all := g.records(a, b)
	made, member := all[0], all[1]
	if kind, _, _ := encryption.About(made); kind != encryption.RecordCreate || len(all) != 2 {
		t.Fatalf("%d records, the first of kind %d", len(all), kind)
	}
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	node := a.keys.NodeKey()
	other := captest.RandomSession()
	foreign := encryption.Forge(made, node, nil, func(f *encryption.Fields) {
		*f.Token = []byte(signedBy(a, other, g).Header())
	})
	for what, tt := range map[string]struct {
		record []byte
		class  error
	}{
		"another node's token":     {encryption.Forge(made, stranger, nil, func(f *encryption.Fields) { *f.Node = hostlog.Key(stranger.Public().(ed25519.PublicKey)) }), tinycloud.ErrUnauthorized},
		"signed by another node":   {encryption.Forge(made, stranger, nil, func(*encryption.Fields) {}), tinycloud.ErrForged},
		"made before its token":    {encryption.Forge(made, node, nil, func(f *encryption.Fields) { *f.At = 1 }), tinycloud.ErrUnauthorized},
		"made after its token":     {encryption.Forge(made, node, nil, func(f *encryption.Fields) { *f.At = begin.Add(time.Hour).UnixNano() }), tinycloud.ErrUnauthorized},
		"token of who may not":     {foreign, tinycloud.ErrUnauthorized},
		"token that was changed":   {encryption.Forge(made, node, nil, func(f *encryption.Fields) { *f.Token = resigned(*f.Token) }), tinycloud.ErrForged},
		"another version":          {encryption.Forge(made, node, nil, func(f *encryption.Fields) { *f.Version = 2 }), tinycloud.ErrInvalid},
		"another length of key":    {encryption.Forge(made, node, nil, func(f *encryption.Fields) { *f.Public = make([]byte, 31) }), tinycloud.ErrInvalid},
		"member without Space key": {encryption.Forge(member, node, stranger, func(*encryption.Fields) {}), tinycloud.ErrForged},
		"cut":                      {made[:len(made)-1], tinycloud.ErrInvalid},
		"none":                     {nil, tinycloud.ErrInvalid},
	} {
		records := [][]byte{tt.record}
		if what == "member without Space key" {
			records = [][]byte{made, tt.record}
		}
		if n, err := b.Accept(t.Context(), g.space, records); !errors.Is(err, tt.class) || n != 0 {
			t.Errorf("%s: %d news, %v, want class %v", what, n, err, tt.class)
		}
	}
	if n := b.count("SELECT count(*) FROM network_records"); n != 0 {
		t.Errorf("%d records are kept", n)
	}
	elsewhere, _ := tinycloud.SecretsOf(other.DID())
	if _, err := b.Accept(t.Context(), elsewhere, [][]byte{made}); err == nil {
		t.Error("taken for another owner's")
	}
}

// signedBy is a token to create the network, by somebody else.
func signedBy(h *host, by *captest.SessionKey, g *group) *capstore.Token {
	return h.signed(networktest.Client{Key: by, Node: h.node}.Create(g.key.DID(), "default"))
}

// What nobody proves is believed of friends alone; a member of a key that nobody made, of none.
func TestBelief(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	all := g.records(a, b)
	if n, err := b.Accept(t.Context(), g.space, all[1:]); n != 0 || err != nil {
		t.Errorf("member of an unknown key: %d, %v", n, err)
	}
	if n, err := b.Accept(t.Context(), g.space, all); n != 2 || err != nil {
		t.Errorf("both: %d, %v", n, err)
	}
	if n, err := b.Accept(t.Context(), g.space, all); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}

// A network that is made on two hosts apart has two keys; once they meet, both open on both, and both advertise the same.
func TestMadeApart(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	b.pass(time.Second)
	var envelopes []networktest.Envelope
	var keys [][]byte
	for _, h := range g.hosts {
		e, data := encrypt(t, h.mustCreate(g.client(h).Create(g.key.DID(), "default")))
		envelopes, keys = append(envelopes, e), append(keys, data)
	}
	first := g.describe(a).PublicKey
	g.mustSync(a, b)
	g.mustSync(b, a)
	for _, h := range g.hosts {
		if d := g.describe(h); !bytes.Equal(d.PublicKey, first) || len(d.Members) != 2 {
			t.Errorf("advertises %x of %q", d.PublicKey, nodesOf(d))
		}
		for i, e := range envelopes {
			if got, err := h.decrypt(g.client(h), e); err != nil || !bytes.Equal(got, keys[i]) {
				t.Errorf("envelope %d: %v", i, err)
			}
		}
	}
}

// A revocation ends the network on every host that hears of it, and for good: also where no key came yet, and none is
// given or made any more.
func TestRevokedEverywhere(t *testing.T) {
	g := newGroup(t, 3)
	a, b, c := g.hosts[0], g.hosts[1], g.hosts[2]
	e, _ := encrypt(t, a.mustCreate(g.client(a).Create(g.key.DID(), "default")))
	g.mustSync(a, b)
	g.send(a, c)
	late := g.wants(c, a)[0]
	if err := a.Revoke(t.Context(), a.signed(g.client(a).Revoke(g.id())), g.id()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Give(t.Context(), g.space, c.spaceKey(g.space), late.Ask()); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("a key of a revoked network: %v", err)
	}
	given, err := b.Give(t.Context(), g.space, c.spaceKey(g.space), wantOf(t, g, c, b).Ask())
	if err != nil || given == nil {
		t.Errorf("before it hears: %v", err)
	}
	g.mustSync(a, b)
	g.mustSync(a, c)
	for _, h := range g.hosts {
		d, err := h.Describe(t.Context(), g.network())
		if err != nil || d.State != "revoked" {
			t.Errorf("%s %v", d.State, err)
		}
		if _, err := h.create(g.client(h).Create(g.key.DID(), "default")); !errors.Is(err, tinycloud.ErrConflict) {
			t.Errorf("made again: %v", err)
		}
	}
	_, err = b.decrypt(g.client(b), e)
	refused(t, "decrypt", err, tinycloud.ErrUnauthorized, "revoked")
	if n := len(g.wants(c, a)) + len(g.wants(c, b)); n != 0 {
		t.Errorf("%d keys wanted", n)
	}
	if h := c.count("SELECT count(*) FROM network_keys"); h != 0 {
		t.Errorf("%d keys", h)
	}
}

// wantOf is the announcement of a host for the first key, to one that says it holds it.
func wantOf(t *testing.T, g *group, to, from *host) hostlog.KeyWant {
	t.Helper()
	g.send(from, to)
	wants := g.wants(to, from)
	if len(wants) == 0 {
		t.Fatal("no key wanted")
	}
	return wants[0]
}

// Networks of before there were records, and those taken over from another node's data, come to have them, and go to
// paired hosts as well.
func TestRecordsOfBefore(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	e, data := encrypt(t, a.mustCreate(g.client(a).Create(g.key.DID(), "default")))
	a.beside(func(tx capstore.BesideTx) error { return tx.Exec("DELETE FROM network_records") })
	f, theirs := encrypt(t, a.mustCreate(g.client(a).Create(g.key.DID(), "second")))
	a.beside(func(tx capstore.BesideTx) error { return tx.Exec("DELETE FROM network_records") })
	a.beside(func(tx capstore.BesideTx) error {
		return tx.Exec("UPDATE network_keys SET made_by = NULL WHERE network = ?", encryption.Row(networkNamed(t, g, "second")))
	})
	if err := g.sync(a, b); err != nil {
		t.Fatal(err)
	}
	kinds := []int64{}
	for _, r := range g.records(b, newGroup(t, 1).hosts[0]) {
		kind, _, _ := encryption.About(r)
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	if want := []int64{encryption.RecordCreate, encryption.RecordMember, encryption.RecordMember, encryption.RecordMember, encryption.RecordMember, encryption.RecordTaken}; !slices.Equal(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}
	for _, x := range []struct {
		e    networktest.Envelope
		data []byte
	}{{e, data}, {f, theirs}} {
		if got, err := b.decrypt(g.client(b), x.e); err != nil || !bytes.Equal(got, x.data) {
			t.Errorf("decrypt: %v", err)
		}
	}
}

func networkNamed(t *testing.T, g *group, name string) tinycloud.NetworkID {
	t.Helper()
	id, err := tinycloud.ParseNetworkID(strings.TrimSuffix(g.id(), "default") + name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func FuzzRecord(f *testing.F) {
	records, ask := encryption.Samples(captest.RandomSession().DID())
	for _, r := range append(records, ask) {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, _, err := encryption.ReadRecord(b)
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("record %x is encoded as %x", b, again)
		}
		if err != nil && !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("record: %v", err)
		}
		again, err = encryption.ReadAsk(b)
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("announcement %x is encoded as %x", b, again)
		}
		if err != nil && !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("announcement: %v", err)
		}
	})
}

// A host that has no key of a network ends it all the same, if it has heard of it.
func TestRevokedWithoutKey(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	revoke := func() error { return b.Revoke(t.Context(), b.signed(g.client(b).Revoke(g.id())), g.id()) }
	refused(t, "unknown", revoke(), tinycloud.ErrNotFound, "network not found")
	e, _ := encrypt(t, a.mustCreate(g.client(a).Create(g.key.DID(), "default")))
	g.send(a, b)
	for range 2 {
		if err := revoke(); err != nil {
			t.Error(err)
		}
	}
	g.mustSync(a, b)
	for _, h := range g.hosts {
		_, err := h.decrypt(g.client(h), e)
		refused(t, "decrypt", err, tinycloud.ErrUnauthorized, "network has been revoked")
	}
}
