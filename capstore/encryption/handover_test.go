package encryption_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

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
