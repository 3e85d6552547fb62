package encryption_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"path/filepath"
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

func (h *host) nodeKey() hostlog.Key {
	return hostlog.Key(h.keys.NodeKey().Public().(ed25519.PublicKey))
}

func (h *host) spaceKey(space tinycloud.SpaceID) hostlog.Key {
	return hostlog.Key(h.keys.SpaceKey(space).Public().(ed25519.PublicKey))
}

// group are hosts of one owner's secrets that know each other.
type group struct {
	t      testing.TB
	key    *captest.SessionKey // the owner
	space  tinycloud.SpaceID
	hosts  []*host
	paired map[[2]hostlog.Key]bool
	grants map[*host]*capstore.Token // host delegations
}

// newGroup makes so many hosts, all paired with each other.
func newGroup(t testing.TB, n int) *group {
	t.Helper()
	return newGroupOf(t, n, func(*encryption.Options, int) {})
}

func newGroupOf(t testing.TB, n int, change func(o *encryption.Options, i int)) *group {
	t.Helper()
	g := &group{t: t, key: captest.RandomSession(), paired: map[[2]hostlog.Key]bool{}, grants: map[*host]*capstore.Token{}}
	g.space, _ = tinycloud.SecretsOf(g.key.DID())
	for i := range n {
		var h *host
		o := encryption.Options{Paired: func(node hostlog.Key) bool { return g.paired[[2]hostlog.Key{h.nodeKey(), node}] }}
		change(&o, i)
		h = openAs(t, secret+string(rune('a'+i)), filepath.Join(t.TempDir(), "caps.db"), begin, o)
		g.hosts = append(g.hosts, h)
	}
	for _, h := range g.hosts {
		g.grants[h] = g.hostDelegation(h, g.key)
		for _, x := range g.hosts {
			g.pair(h, x, true)
		}
	}
	for i, h := range g.hosts {
		for j := range g.hosts {
			g.tell(h, g.grants[g.hosts[(i+j)%n]]) // its own first
		}
	}
	return g
}

func (g *group) pair(a, b *host, yes bool) {
	g.paired[[2]hostlog.Key{a.nodeKey(), b.nodeKey()}] = yes
	g.paired[[2]hostlog.Key{b.nodeKey(), a.nodeKey()}] = yes
}

// hostDelegation makes a host of the owner's secrets.
func (g *group) hostDelegation(h *host, by *captest.SessionKey, proofs ...tinycloud.Hash) *capstore.Token {
	g.t.Helper()
	tok, err := capstore.ParseDelegation(by.Delegate(tinycloud.Principal(h.spaceKey(g.space).String()), captest.TokenOptions{
		Caps: captest.Caps{g.space.String() + "/space": {"tinycloud.space/host"}}, Expires: begin.Add(1000 * time.Hour), Proofs: proofs,
	}))
	if err != nil {
		g.t.Fatal(err)
	}
	return tok
}

func (g *group) tell(h *host, toks ...*capstore.Token) {
	g.t.Helper()
	for _, tok := range toks {
		if _, err := h.store.Delegate(g.t.Context(), tok); err != nil {
			g.t.Fatal(err)
		}
	}
}

func (g *group) client(h *host) networktest.Client { return h.client(g.key) }

func (g *group) id() string { return networktest.ID(g.key.DID(), "default") }

func (g *group) network() tinycloud.NetworkID {
	id, err := tinycloud.ParseNetworkID(g.id())
	if err != nil {
		g.t.Fatal(err)
	}
	return id
}

// records are those that one host lacks of another's.
func (g *group) records(from, to *host) [][]byte {
	g.t.Helper()
	has, err := to.Have(g.t.Context(), g.space)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := from.Have(g.t.Context(), g.space); err != nil {
		g.t.Fatal(err)
	}
	out, err := from.Records(g.t.Context(), g.space, has)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// send has a host take another's records over, and returns how many were news.
func (g *group) send(from, to *host) int {
	g.t.Helper()
	n, err := to.Accept(g.t.Context(), g.space, g.records(from, to))
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

func (g *group) wants(to, from *host) []hostlog.KeyWant {
	g.t.Helper()
	wants, err := to.Wants(g.t.Context(), g.space, from.spaceKey(g.space))
	if err != nil {
		g.t.Fatal(err)
	}
	return wants
}

// sync does what hosts do that are connected: records both ways, then keys.
func (g *group) sync(from, to *host) error {
	g.t.Helper()
	g.send(from, to)
	g.send(to, from)
	for _, w := range g.wants(to, from) {
		given, err := from.Give(g.t.Context(), g.space, to.spaceKey(g.space), w.Ask())
		if err != nil {
			return err
		}
		if err := w.Take(g.t.Context(), given); err != nil {
			return err
		}
	}
	g.send(to, from)
	return nil
}

func (g *group) mustSync(from, to *host) {
	g.t.Helper()
	if err := g.sync(from, to); err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) describe(h *host) encryption.Descriptor {
	g.t.Helper()
	d, err := h.Describe(g.t.Context(), g.network())
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

func nodesOf(d encryption.Descriptor) (out []string) {
	for _, m := range d.Members {
		out = append(out, m.Role+" "+m.NodeID)
	}
	return out
}

// A key that is made on one host opens on another that is paired, whose descriptor then begins with itself; each tells
// of the other.
func TestHandOver(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	made := a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	e, data := encrypt(t, made)
	if _, err := b.Describe(t.Context(), g.network()); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	g.mustSync(a, b)
	for _, tt := range []struct{ self, other *host }{{a, b}, {b, a}} {
		d := g.describe(tt.self)
		if want := []string{"primary " + tt.self.node, "share " + tt.other.node}; !slices.Equal(nodesOf(d), want) {
			t.Errorf("members %q, want %q", nodesOf(d), want)
		}
		if !bytes.Equal(d.PublicKey, g.describe(a).PublicKey) || d.State != "active" || d.KeyVersion != 1 || !d.CreatedAt.Equal(g.describe(a).CreatedAt) {
			t.Errorf("descriptor %+v, and %+v", d, g.describe(a))
		}
		got, err := tt.self.decrypt(g.client(tt.self), e)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("decrypt: %x, %v", got, err)
		}
	}
	if _, err := b.create(g.client(b).Create(g.key.DID(), "default")); !errors.Is(err, tinycloud.ErrConflict) {
		t.Errorf("create on the other: %v", err)
	}
	for _, h := range g.hosts { // all is told: nothing is news
		for _, x := range g.hosts {
			if n := len(g.records(h, x)); n != 0 {
				t.Errorf("%d records still to tell", n)
			}
		}
	}
	if n := len(g.wants(b, a)) + len(g.wants(a, b)); n != 0 {
		t.Errorf("%d keys still wanted", n)
	}
}

// Keys go to nobody but a host that the owner signed for himself, and that the operator trusts.
func TestWhoGetsKeys(t *testing.T) {
	for _, tt := range []struct {
		name  string
		share [2]encryption.Share
		setUp func(t *testing.T, g *group, a, b *host)
		gets  bool
		text  string
	}{
		{name: "paired", gets: true},
		{name: "not paired", setUp: func(_ *testing.T, g *group, a, b *host) { g.pair(a, b, false) }, text: "neither paired nor approved"},
		{name: "approved", gets: true, setUp: func(t *testing.T, g *group, a, b *host) {
			g.pair(a, b, false)
			for _, err := range []error{a.Approve(t.Context(), g.key.DID(), b.nodeKey(), true), b.Approve(t.Context(), g.key.DID(), a.nodeKey(), true)} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}},
		{name: "approved no more", text: "neither paired nor approved", setUp: func(t *testing.T, g *group, a, b *host) {
			g.pair(a, b, false)
			for _, yes := range []bool{true, false} {
				if err := a.Approve(t.Context(), g.key.DID(), b.nodeKey(), yes); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{
			name: "all hosts", share: [2]encryption.Share{encryption.ShareHosts, encryption.ShareHosts}, gets: true,
			setUp: func(_ *testing.T, g *group, a, b *host) { g.pair(a, b, false) },
		},
		{name: "giver shares nothing", share: [2]encryption.Share{encryption.ShareOff, ""}, text: "neither paired nor approved"},
		{name: "removed host", text: "did not sign", setUp: func(t *testing.T, g *group, a, b *host) {
			r, err := capstore.ParseRevocation(g.key.Revoke(g.grants[b].ID, captest.TokenOptions{Expires: begin.Add(time.Hour)}))
			if err == nil {
				err = a.store.Revoke(t.Context(), r)
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{name: "expired host", text: "did not sign", setUp: func(_ *testing.T, _ *group, a, _ *host) { a.pass(2000 * time.Hour) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGroupOf(t, 2, func(o *encryption.Options, i int) { o.Share = tt.share[i] })
			a, b := g.hosts[0], g.hosts[1]
			a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
			g.send(a, b)
			want := anyWant(t, g, a, b)
			if tt.setUp != nil {
				tt.setUp(t, g, a, b)
			}
			given, err := a.Give(t.Context(), g.space, b.spaceKey(g.space), want.Ask())
			if tt.gets {
				if err != nil || want.Take(t.Context(), given) != nil {
					t.Errorf("not given: %v", err)
				}
				return
			}
			refused(t, "give", err, tinycloud.ErrForbidden, tt.text)
			if given != nil {
				t.Error("given")
			}
		})
	}
}

// anyWant is an announcement for the first key, as if both trusted each other.
func anyWant(t *testing.T, g *group, a, b *host) hostlog.KeyWant {
	t.Helper()
	was := g.paired[[2]hostlog.Key{a.nodeKey(), b.nodeKey()}]
	g.pair(a, b, true)
	defer g.pair(a, b, was)
	wants := g.wants(b, a)
	if len(wants) != 1 {
		t.Fatalf("%d keys wanted", len(wants))
	}
	return wants[0]
}

// A host that a session signed for gets no keys, whoever pairs with it.
func TestHostBySession(t *testing.T) {
	g := newGroup(t, 1)
	a := g.hosts[0]
	b := openAs(t, "another secret of thirty-two bytes or more", filepath.Join(t.TempDir(), "caps.db"), begin, encryption.Options{
		Paired: func(hostlog.Key) bool { return true },
	})
	session := captest.RandomSession()
	right, err := capstore.ParseDelegation(g.key.Delegate(session.DID(), captest.TokenOptions{
		Caps: captest.Caps{g.space.String() + "/space": {"tinycloud.space/host"}}, Expires: begin.Add(1000 * time.Hour),
	}))
	if err != nil {
		t.Fatal(err)
	}
	grant := g.hostDelegation(b, session, right.ID)
	g.tell(a, right, grant)
	g.tell(b, right, grant, g.grants[a])
	g.pair(a, b, true)
	a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	g.send(a, b)
	_, err = a.Give(t.Context(), g.space, b.spaceKey(g.space), anyWant(t, g, a, b).Ask())
	refused(t, "give", err, tinycloud.ErrForbidden, "did not sign")
}

// An announcement is of use to one holder, for one key, and to who made it; and so is its answer.
func TestAnnouncementIsBound(t *testing.T) {
	g := newGroup(t, 3)
	a, b, c := g.hosts[0], g.hosts[1], g.hosts[2]
	a.mustCreate(g.client(a).Create(g.key.DID(), "default"))
	g.mustSync(a, c)
	g.send(a, b)
	g.send(c, b)
	w, x := g.wants(b, a)[0], g.wants(b, c)[0]
	give := func(h *host, to *host, text []byte) ([]byte, error) {
		return h.Give(t.Context(), g.space, to.spaceKey(g.space), text)
	}
	for what, err := range map[string]error{
		"by another host":   second(give(a, c, w.Ask())),
		"to another holder": second(give(c, b, w.Ask())),
		"cut":               second(give(a, b, w.Ask()[:20])),
		"changed":           second(give(a, b, flip(w.Ask(), len(w.Ask())-1))),
	} {
		if !isOffence(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ours, err := give(a, b, w.Ask())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := give(c, b, x.Ask())
	if err != nil {
		t.Fatal(err)
	}
	for what, given := range map[string][]byte{
		"another announcement's": theirs, "cut": ours[:40], "changed": flip(ours, 50), "small order": append(make([]byte, 32), ours[32:]...), "none": nil,
	} {
		if err := w.Take(t.Context(), given); !isOffence(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := w.Take(t.Context(), ours); err != nil {
		t.Error(err)
	}
	if err := x.Take(t.Context(), theirs); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// isOffence reports whether an error shows that the other host did not keep to the protocol.
func isOffence(err error) bool {
	return errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged)
}

// resigned is a UCAN with another signature.
func resigned(jwt []byte) []byte {
	b := bytes.Clone(jwt)
	at := len(b) - 10
	if b[at] != 'A' {
		b[at] = 'A'
	} else {
		b[at] = 'B'
	}
	return b
}

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
