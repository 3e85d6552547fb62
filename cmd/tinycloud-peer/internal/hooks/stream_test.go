package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

func TestStream(t *testing.T) {
	h := startNew(t, "host", hooks.Options{})
	o, other := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	all := h.read(o.ticket(h, o.scope("")), "", nil)
	docs := h.read(o.ticket(h, o.scope("/docs/", "tinycloud.kv/put"), o.scope("one")), "", nil)
	for _, r := range []*reader{all, docs} {
		if got := r.note(); got != "connected" {
			t.Error(got)
		}
	}
	other.put(h, "docs/a")
	for _, key := range []string{"docs", "docs/a", "docsy", "one", "docs/b/&c"} {
		o.put(h, key)
	}
	o.del(h, "docs/a")
	o.del(h, "one")
	var got []string
	for range 7 {
		e := all.next()
		got = append(got, e.Ability+" "+e.Path)
		if e.Type != "write" || e.Space != o.space.String() || e.Service != "kv" || e.Actor != string(o.session.DID()) ||
			e.EventIndex != 0 || e.ID != e.Epoch+":0" || !strings.HasPrefix(e.Epoch, "bafy") {
			t.Errorf("event %+v", e)
		}
		if at, err := time.Parse(time.RFC3339, e.Timestamp); err != nil || time.Since(at) > time.Minute {
			t.Errorf("timestamp %q: %v", e.Timestamp, err)
		}
	}
	want := []string{
		"tinycloud.kv/put docs", "tinycloud.kv/put docs/a", "tinycloud.kv/put docsy", "tinycloud.kv/put one",
		"tinycloud.kv/put docs/b/&c", "tinycloud.kv/del docs/a", "tinycloud.kv/del one",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = nil
	for range 5 {
		e := docs.next()
		got = append(got, e.Ability+" "+e.Path)
	}
	if diff := cmp.Diff([]string{want[0], want[1], want[3], want[4], want[6]}, got); diff != "" {
		t.Error(diff)
	}
}

// TestReplicated reads on one host what was written on another.
func TestReplicated(t *testing.T) {
	a, b := startNew(t, "a", hooks.Options{}), startNew(t, "b", hooks.Options{})
	o := newOwner(t, "alice").on(a)
	for i := range 300 {
		o.put(a, fmt.Sprint("k", i))
	}
	o.on(b)
	r := b.read(o.ticket(b, o.scope("")), "", nil)
	r.note()
	var bundles []hostlog.Bundle
	must(t, a.store.Missing(t.Context(), o.space, nil, 1<<20, func(b hostlog.Bundle) error { bundles = append(bundles, b); return nil }))
	for range 2 { // the second time it is known
		if _, err := b.store.Apply(t.Context(), o.space, bundles); err != nil {
			t.Fatal(err)
		}
	}
	o.put(b, "own")
	for i := range 300 {
		if e := r.next(); e.Path != fmt.Sprint("k", i) {
			t.Fatalf("event %d is of %q", i, e.Path)
		}
	}
	if e := r.next(); e.Path != "own" {
		t.Errorf("then %+v", e)
	}
}

// TestLag holds a reader up while more is written than its queue takes. It loses nothing.
func TestLag(t *testing.T) {
	h := startNew(t, "host", hooks.Options{Queue: 4})
	o, p := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	gate := make(chan struct{})
	r := h.read(o.ticket(h, o.scope("k")), "", gate)
	const n = 400
	for i := range n / 2 {
		o.put(h, fmt.Sprint("k/", i))
		p.put(h, fmt.Sprint("k/", i))
		if i%3 == 0 {
			o.put(h, "else")
		}
	}
	close(gate)
	for i := n / 2; i < n; i++ {
		o.put(h, fmt.Sprint("k/", i))
	}
	for i := range n {
		if e := r.next(); e.Path != fmt.Sprint("k/", i) {
			t.Fatalf("event %d is of %q", i, e.Path)
		}
	}
	o.put(h, "k/last")
	if e := r.next(); e.Path != "k/last" {
		t.Errorf("then %+v", e)
	}
}

// TestResume goes on after any event, also in another life of the host.
func TestResume(t *testing.T) {
	h := startNew(t, "host", hooks.Options{})
	o := newOwner(t, "alice").on(h)
	r := h.read(o.ticket(h, o.scope("")), "", nil)
	var ids []string
	for i := range 40 {
		o.put(h, fmt.Sprint("k/", i))
		ids = append(ids, r.next().ID)
	}
	for i := 40; i < 60; i++ {
		o.put(h, fmt.Sprint("k/", i))
	}
	check := func(h *host) {
		t.Helper()
		ticket := o.ticket(h, o.scope(""))
		for _, from := range []int{0, 17, 39} {
			r := h.read(ticket, ids[from], nil)
			for i := from + 1; i < 60; i++ {
				if e := r.next(); e.Path != fmt.Sprint("k/", i) {
					t.Fatalf("after %d comes %q, not %d", from, e.Path, i)
				}
			}
			r.end()
			if len(r.events) > 0 {
				t.Errorf("after all comes %+v", <-r.events)
			}
		}
	}
	check(h)
	h.stop()
	h = start(t, "host", h.path, hooks.Options{})
	check(h)
	for _, last := range []string{ids[0][:len(ids[0])-1] + "7", "nonsense", strings.Repeat("x", 1000)} {
		r := h.read(o.ticket(h, o.scope("")), last, nil)
		if note := r.note(); !strings.HasPrefix(note, "unknown Last-Event-ID") {
			t.Error(note)
		}
		o.put(h, "now")
		if e := r.next(); e.Path != "now" {
			t.Errorf("after %q comes %+v", last, e)
		}
		r.end()
	}
}

func TestStreamsAreBounded(t *testing.T) {
	h := startNew(t, "host", hooks.Options{Streams: 2})
	o := newOwner(t, "alice").on(h)
	ticket := o.ticket(h, o.scope(""))
	first := h.read(ticket, "", nil)
	h.read(ticket, "", nil)
	_, err := h.hooks.Open(t.Context(), ticket, "", netip.Addr{})
	if !errors.Is(err, tinycloud.ErrBusy) || err.Error() != "too many active hook streams" {
		t.Errorf("third: %v", err)
	}
	first.end()
	h.read(ticket, "", nil)
}

// TestSharesOfStreams has one ticket, one Space and one client open as many streams as they may: others still can.
func TestSharesOfStreams(t *testing.T) {
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	h := startNew(t, "host", hooks.Options{})
	alice, bob := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	var open []*hooks.Stream
	fill := func(most int, ticket func() string, from func(int) netip.Addr) {
		t.Helper()
		for i := range most + 1 {
			s, err := h.hooks.Open(t.Context(), ticket(), "", from(i))
			if full := errors.Is(err, tinycloud.ErrBusy); full != (i == most) || err != nil && !full {
				t.Fatalf("stream %d of %d: %v", i, most, err)
			}
			if err == nil {
				open = append(open, s)
			}
		}
	}
	one := alice.ticket(h, alice.scope(""))
	fill(hooks.DefaultPerTicket, func() string { return one }, func(int) netip.Addr { return netip.Addr{} })
	each := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }
	fill(hooks.DefaultPerSpace-hooks.DefaultPerTicket, func() string { return alice.ticket(h, alice.scope("")) }, each)
	fill(hooks.DefaultPerAddress, func() string { return bob.ticket(h, bob.scope("")) }, func(int) netip.Addr { return here })
	fill(1, sync.OnceValue(func() string { return bob.ticket(h, bob.scope("")) }), func(i int) netip.Addr {
		if i == 0 {
			return there
		}
		return here
	})
	for _, s := range open {
		s.Close()
	}
	fill(hooks.DefaultPerTicket, func() string { return one }, func(int) netip.Addr { return here })
	for _, s := range open[len(open)-hooks.DefaultPerTicket:] {
		s.Close()
	}
}

func TestStreamEnds(t *testing.T) {
	t.Run("revoked", func(t *testing.T) {
		h := startNew(t, "host", hooks.Options{})
		o := newOwner(t, "alice").on(h)
		ticket := o.ticket(h, o.scope(""))
		r := h.read(ticket, "", nil)
		r.note()
		rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(o.token("hooks", hooks.AbilityList).Proofs[0]))
		must(t, err)
		must(t, h.store.Revoke(t.Context(), rev))
		<-r.done
		if _, err := h.hooks.Open(t.Context(), ticket, "", netip.Addr{}); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("afterwards: %v", err)
		}
	})
	t.Run("the node stops", func(t *testing.T) {
		h := startNew(t, "host", hooks.Options{})
		o := newOwner(t, "alice").on(h)
		r := h.read(o.ticket(h, o.scope("")), "", nil)
		r.note()
		h.stop()
		<-r.done
	})
	t.Run("expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := start(t, "host", t.TempDir()+"/caps.db", hooks.Options{})
			o := newOwner(t, "alice").on(h)
			ticket := o.ticket(h, o.scope(""))
			begin := time.Now()
			r := h.read(ticket, "", nil)
			<-r.done
			if took := time.Since(begin); took != time.Minute {
				t.Errorf("ended after %s", took)
			}
			if a, b := r.note(), r.note(); a != "connected" || b != "heartbeat" || len(r.notes) > 1 {
				t.Errorf("comments %q, %q and %d more", a, b, len(r.notes))
			}
			if err := hooks.OpenTicket(h.hooks, ticket); err == nil || err.Error() != "hook ticket expired" {
				t.Errorf("expired ticket: %v", err)
			}
			h.stop()
		})
	})
}

func TestTickets(t *testing.T) {
	h := startNew(t, "host", hooks.Options{})
	o, other := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	ticket := o.ticket(h, o.scope("docs"))
	must(t, hooks.OpenTicket(h.hooks, ticket))
	for i := range len(ticket) {
		b := []byte(ticket)
		b[i] ^= 1
		if err := hooks.OpenTicket(h.hooks, string(b)); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for _, bad := range []string{"", ".", "a.b", ticket + ".", ticket + "=", strings.Repeat("x", 1<<20)} {
		if err := hooks.OpenTicket(h.hooks, bad); !errors.Is(err, tinycloud.ErrUnauthorized) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	for _, tt := range []struct {
		path, ability string
		scope         hooks.Scope
		ok            bool
	}{
		{"hooks", hooks.AbilitySubscribe, o.scope("docs"), true},
		{"hooks/", hooks.AbilitySubscribe, o.scope("docs"), true},
		{"hooks/kv", hooks.AbilitySubscribe, o.scope("docs"), true},
		{"hooks/kv/docs", hooks.AbilitySubscribe, o.scope("docs"), true},
		{"hooks/kv/docs", hooks.AbilitySubscribe, o.scope("docs/a"), true},
		{"hooks/kv/docs", hooks.AbilitySubscribe, o.scope("docsy"), false},
		{"hooks/kv/docs", hooks.AbilitySubscribe, o.scope(""), false},
		{"hooks/sql", hooks.AbilitySubscribe, o.scope("docs"), false},
		{"hooks#x", hooks.AbilitySubscribe, o.scope("docs"), false},
		{"hooks", hooks.AbilityList, o.scope("docs"), false},
		{"kv", "tinycloud.kv/put", o.scope("docs"), false},
		{"hooks", hooks.AbilitySubscribe, other.scope("docs"), false},
	} {
		_, err := h.hooks.Issue(context.Background(), o.token(tt.path, tt.ability), hooks.TicketRequest{Scopes: []hooks.Scope{tt.scope}, TTL: time.Minute}, false)
		if tt.ok != (err == nil) || (err != nil && (!errors.Is(err, tinycloud.ErrForbidden) || err.Error() != "requested hook scope is not authorized")) {
			t.Errorf("%s of %s for %+v: %v", tt.ability, tt.path, tt.scope, err)
		}
	}
	_, err := h.hooks.Issue(t.Context(), o.token("hooks", hooks.AbilitySubscribe), hooks.TicketRequest{Scopes: []hooks.Scope{o.scope("")}}, false)
	if err == nil || err.Error() != "hook ticket expired immediately" {
		t.Errorf("no time: %v", err)
	}
}
