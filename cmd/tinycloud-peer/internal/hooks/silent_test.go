package hooks_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

// joins makes a store a host of a Space that waits for its history.
func (o *owner) joins(h *host) {
	o.t.Helper()
	o.delegates(h, o.hosting(h))
	must(o.t, h.store.AddJoin(o.t.Context(), o.space, []string{"/ip4/192.0.2.1/tcp/1"}, false))
}

// take applies what another host has of a Space.
func (o *owner) take(h, from *host) {
	o.t.Helper()
	var bundles []hostlog.Bundle
	must(o.t, from.store.Missing(o.t.Context(), o.space, nil, 1<<20, func(b hostlog.Bundle) error { bundles = append(bundles, b); return nil }))
	if _, err := h.store.Apply(o.t.Context(), o.space, bundles); err != nil {
		o.t.Fatal(err)
	}
}

// early asks for a ticket as clients do while the Space is joining.
func (o *owner) early(h *host, tok *capstore.Token, scopes ...hooks.Scope) string {
	o.t.Helper()
	later, err := h.store.AdmitEarly(o.t.Context(), tok)
	if err != nil || !later {
		o.t.Fatalf("to be judged later: %v, %v", later, err)
	}
	ticket, err := h.hooks.Issue(o.t.Context(), tok, hooks.TicketRequest{Scopes: scopes, TTL: time.Minute}, later)
	if err != nil {
		o.t.Fatal(err)
	}
	return ticket.Ticket
}

// wants fails unless these are the next events.
func (r *reader) wants(paths ...string) {
	r.t.Helper()
	for _, path := range paths {
		if e := r.next(); e.Path != path {
			r.t.Fatalf("event of %q, want %q", e.Path, path)
		}
	}
}

// over waits for the end of a stream that told nothing.
func (r *reader) over() {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(10 * time.Second):
		r.t.Fatal("the stream goes on")
	}
	if len(r.events) > 0 {
		r.t.Errorf("%d events", len(r.events))
	}
}

// stranger signs a token that cites a delegation nobody has.
func (o *owner) stranger(name string) *capstore.Token {
	o.t.Helper()
	tok, err := capstore.ParseInvocation(captest.NewSession(name).Invoke(captest.TokenOptions{
		Caps:    captest.Caps{o.space.String() + "/hooks": {hooks.AbilitySubscribe}},
		Expires: time.Now().Add(time.Minute), Proofs: []tinycloud.Hash{tinycloud.Sum([]byte(name))},
	}))
	must(o.t, err)
	return tok
}

// TestSilent opens streams before the history is here that tells who may. The history is not told of, what comes after
// it is.
func TestSilent(t *testing.T) {
	a, b := startNew(t, "a", hooks.Options{}), startNew(t, "b", hooks.Options{})
	o := newOwner(t, "alice").on(a)
	for i := range 50 {
		o.put(a, fmt.Sprint("old", i))
	}
	o.joins(b) // the session is unknown there
	early := b.read(o.early(b, o.token("hooks", hooks.AbilitySubscribe), o.scope("")), "", nil)
	denied := b.read(o.early(b, o.stranger("mallory"), o.scope("")), "", nil)
	early.note()
	denied.note()
	unopened := o.early(b, o.token("hooks", hooks.AbilitySubscribe), o.scope(""))
	forbidden := o.early(b, o.stranger("trudy"), o.scope(""))
	o.take(b, a)
	must(t, b.store.Synced(t.Context(), o.space))
	denied.over()
	o.put(b, "new")
	early.wants("new")
	late := b.read(unopened, "", nil)
	late.note()
	o.put(b, "newer")
	early.wants("newer")
	late.wants("newer")
	if _, err := b.hooks.Open(t.Context(), forbidden, "", netip.Addr{}); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("a ticket that is denied by now: %v", err)
	}
}

// TestSilentInPart has a stream tell of one Space while another is joining.
func TestSilentInPart(t *testing.T) {
	h, other := startNew(t, "host", hooks.Options{}), startNew(t, "other", hooks.Options{})
	whole := newOwner(t, "alice")
	joining := *whole
	joining.space = whole.wallet.Space("secrets")
	both := sessionOptions(whole)
	for uri, abilities := range sessionOptions(&joining).Caps {
		both.Caps[uri] = abilities
	}
	whole.header = whole.wallet.SignDelegation(both)
	joining.header = whole.header
	whole.on(h)
	joining.on(other)
	joining.put(other, "old")
	joining.joins(h) // the session is known here, by the other Space
	tok, err := capstore.ParseInvocation(whole.session.Invoke(captest.TokenOptions{
		Caps: captest.Caps{
			whole.space.String() + "/hooks": {hooks.AbilitySubscribe}, joining.space.String() + "/hooks": {hooks.AbilitySubscribe},
		},
		Expires: time.Now().Add(time.Minute), Proofs: []tinycloud.Hash{captest.ID(whole.header)},
	}))
	must(t, err)
	r := h.read(whole.early(h, tok, whole.scope(""), joining.scope("")), "", nil)
	r.note()
	whole.put(h, "loud")
	r.wants("loud")
	joining.take(h, other)
	whole.put(h, "louder")
	r.wants("louder")
	must(t, h.store.Synced(t.Context(), joining.space))
	whole.put(h, "a")
	joining.put(h, "b")
	whole.put(h, "c")
	r.wants("a", "b", "c")
}

// TestSilentRevoked ends a silent stream with what it rests on.
func TestSilentRevoked(t *testing.T) {
	h := startNew(t, "host", hooks.Options{})
	o := newOwner(t, "alice")
	o.delegates(h, o.header)
	o.joins(h)
	r := h.read(o.early(h, o.token("hooks", hooks.AbilitySubscribe), o.scope("")), "", nil)
	r.note()
	revocation, err := capstore.ParseRevocation(o.wallet.SignRevocation(captest.ID(o.header)))
	must(t, err)
	must(t, h.store.Revoke(t.Context(), revocation))
	r.over()
	if _, err := h.store.AdmitEarly(t.Context(), o.token("hooks", hooks.AbilitySubscribe)); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("what is known to be denied: %v", err)
	}
}

// TestSilentStrangers bounds the streams of whom nobody can tell: they leave room for those whose right is known.
func TestSilentStrangers(t *testing.T) {
	h := startNew(t, "host", hooks.Options{Streams: 16})
	o, p := newOwner(t, "alice"), newOwner(t, "bob")
	o.delegates(h, o.header)
	o.joins(h)
	p.joins(h)
	var open []*hooks.Stream
	enter := func(ticket string) error {
		s, err := h.hooks.Open(t.Context(), ticket, "", netip.Addr{})
		if err == nil {
			open = append(open, s)
		}
		return err
	}
	var refused int
	for i := range 20 {
		if err := enter(p.early(h, p.stranger(fmt.Sprint("stranger", i)), p.scope(""))); errors.Is(err, tinycloud.ErrBusy) {
			refused++
		} else {
			must(t, err)
		}
	}
	if refused != 18 {
		t.Errorf("of 20 strangers in a Space %d were refused, want 18: an eighth of the streams is theirs", refused)
	}
	if err := enter(o.early(h, o.stranger("another"), o.scope(""))); err != nil {
		t.Errorf("a stranger in another Space: %v", err)
	}
	for range 4 {
		if err := enter(o.early(h, o.token("hooks", hooks.AbilitySubscribe), o.scope(""))); err != nil {
			t.Errorf("whose right is known: %v", err)
		}
	}
	for _, s := range open {
		s.Close()
	}
	if err := enter(p.early(h, p.stranger("later"), p.scope(""))); err != nil {
		t.Errorf("after the others left: %v", err)
	}
	open[len(open)-1].Close()
}
