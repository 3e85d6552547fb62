package hooks_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

func publicName(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
}

func (o *owner) registration(prefix string) hooks.Registration {
	return hooks.Registration{Scope: o.scope(prefix), CallbackURL: "https://example.com/hook", Secret: "s3cret"}
}

func (o *owner) register(h *host, prefix string) hooks.Record {
	o.t.Helper()
	r, err := h.hooks.Register(context.Background(), o.token("hooks", hooks.AbilityRegister), o.registration(prefix))
	if err != nil {
		o.t.Fatal(err)
	}
	return r
}

// request is what a callback got.
type request struct {
	at     time.Time
	header http.Header
	event  event
	signed bool
}

// callback answers requests of webhooks.
type callback struct {
	t      testing.TB
	got    chan request
	mu     sync.Mutex
	status func(n int) int // of the n-th request; 0: no answer
	n      int
}

func (c *callback) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	must(c.t, err)
	status := c.take(r.Header, body)
	if status == 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("")), Header: http.Header{"Location": {"https://example.com/"}}, Request: r}, nil
}

func (c *callback) take(header http.Header, body []byte) int {
	q := request{at: time.Now(), header: header}
	must(c.t, json.Unmarshal(body, &q.event))
	m := hmac.New(sha256.New, []byte("s3cret"))
	m.Write(body)
	q.signed = header.Get("X-Tinycloud-Signature") == "sha256="+hex.EncodeToString(m.Sum(nil))
	c.got <- q
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.status(c.n)
}

func newCallback(t testing.TB, status func(n int) int) *callback {
	return &callback{t: t, got: make(chan request, 1<<10), status: status}
}

func ok(int) int { return http.StatusNoContent }

// TestWebhook delivers to a real server over TLS.
func TestWebhook(t *testing.T) {
	c := newCallback(t, ok)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		must(t, err)
		if r.Method != http.MethodPost || r.Host != "example.com" || r.URL.Path != "/hook" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s%s", r.Method, r.Host, r.URL)
		}
		w.WriteHeader(c.take(r.Header, body))
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	h := startNew(t, "host", hooks.Options{Transport: transport, Lookup: publicName})
	o, other := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	o.put(h, "docs/before")
	record := o.register(h, "/docs/")
	if record.SubscriberDID != string(o.session.DID()) || record.Space != o.space.String() || *record.PathPrefix != "docs" || !record.Active ||
		record.CallbackURL != "https://example.com/hook" || record.SecretKeyID != "primary" || record.Service != "kv" || record.Abilities == nil {
		t.Errorf("record %+v", record)
	}
	o.put(h, "else")
	other.put(h, "docs/a")
	o.put(h, "docs/a")
	q := <-c.got
	if q.event.Path != "docs/a" || q.event.Space != o.space.String() || !q.signed || q.header.Get("X-Tinycloud-Event-Id") != q.event.ID ||
		q.header.Get("X-Tinycloud-Subscription-Id") != record.ID || len(q.header.Get("X-Tinycloud-Delivery-Id")) != 32 {
		t.Errorf("got %+v", q)
	}
	o.del(h, "docs/a")
	if q := <-c.got; q.event.Ability != "tinycloud.kv/del" {
		t.Errorf("then %+v", q)
	}
	must(t, h.hooks.Unregister(t.Context(), o.token("hooks/webhooks/"+record.ID, hooks.AbilityUnregister), record.ID))
	o.put(h, "docs/b")
	if err := h.hooks.Unregister(t.Context(), o.token("hooks", hooks.AbilityUnregister), record.ID); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	h.stop()
	if len(c.got) > 0 {
		t.Errorf("after unregistering %+v", <-c.got)
	}
}

func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status func(n int) int
		want   []time.Duration // since the put
	}{
		{"never accepted", func(int) int { return 500 }, []time.Duration{0, 30 * time.Second, 150 * time.Second, 750 * time.Second, 4350 * time.Second}},
		{"redirected", func(n int) int { return []int{302, 204}[n-1] }, []time.Duration{0, 30 * time.Second}},
		{"no answer", func(n int) int { return []int{0, 204}[n-1] }, []time.Duration{0, 40 * time.Second}},
		{"accepted", ok, []time.Duration{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCallback(t, tt.status)
				h := start(t, "host", t.TempDir()+"/caps.db", hooks.Options{Transport: c, Lookup: publicName})
				o := newOwner(t, "alice").on(h)
				o.register(h, "")
				begin := time.Now()
				o.put(h, "k")
				time.Sleep(6 * time.Hour)
				h.stop()
				close(c.got)
				var got []time.Duration
				ids := map[string]bool{}
				for q := range c.got {
					got = append(got, q.at.Sub(begin))
					ids[q.header.Get("X-Tinycloud-Delivery-Id")] = true
				}
				if diff := cmp.Diff(tt.want, got); diff != "" || len(ids) != 1 {
					t.Errorf("%s%d ids", diff, len(ids))
				}
			})
		})
	}
}

// TestRestart ends the host with deliveries pending, and writes while nobody delivers.
func TestRestart(t *testing.T) {
	down := newCallback(t, func(int) int { return 503 })
	h := startNew(t, "host", hooks.Options{Transport: down, Lookup: publicName})
	o := newOwner(t, "alice").on(h)
	record := o.register(h, "")
	o.put(h, "k0")
	first := <-down.got
	h.stop()

	// A process that dies right after its writes: the hooks are never told of them.
	writer, err := capstore.Open(t.Context(), capstore.Options{Services: servicetest.Services(), Database: h.path, Keys: h.name})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- writer.Run(ctx) }()
	dead := &host{t: t, name: h.name, store: writer}
	for i := 1; i < 300; i++ {
		o.put(dead, fmt.Sprint("k", i))
	}
	cancel()
	must(t, <-done)
	must(t, writer.Close())

	up := newCallback(t, ok)
	later := func() time.Time { return time.Now().Add(31 * time.Second) } // k0 is due again
	start(t, "host", h.path, hooks.Options{Transport: up, Lookup: publicName, Now: later})
	got := map[string]bool{}
	for range 300 {
		q := <-up.got
		if got[q.event.Path] || q.header.Get("X-Tinycloud-Subscription-Id") != record.ID || !q.signed {
			t.Errorf("got %+v", q)
		}
		got[q.event.Path] = true
		if q.event.Path == "k0" && q.header.Get("X-Tinycloud-Delivery-Id") != first.header.Get("X-Tinycloud-Delivery-Id") {
			t.Error("the delivery has another id")
		}
	}
	if !got["k0"] || !got["k299"] {
		t.Errorf("%d paths", len(got))
	}
}

func TestDeliveriesAreBounded(t *testing.T) {
	c := newCallback(t, func(int) int { return 500 })
	h := startNew(t, "host", hooks.Options{Transport: c, Lookup: publicName, Deliveries: 10})
	o := newOwner(t, "alice").on(h)
	record := o.register(h, "")
	for i := range 50 {
		o.put(h, fmt.Sprint("k", i))
	}
	h.stop()
	h = start(t, "host", h.path, hooks.Options{Transport: c, Lookup: publicName, Deliveries: 10})
	o.put(h, "last")
	for { // until the feed has stored the last
		ds, err := hooks.Deliveries(t.Context(), h.hooks, record.ID, 100)
		must(t, err)
		if len(ds) > 10 {
			t.Fatalf("%d deliveries", len(ds))
		}
		if slices.ContainsFunc(ds, func(d hooks.Delivery) bool { return strings.Contains(string(d.Body), `"path":"last"`) }) {
			break
		}
	}
}

func TestRevokedWebhook(t *testing.T) {
	c := newCallback(t, ok)
	h := startNew(t, "host", hooks.Options{Transport: c, Lookup: publicName})
	o := newOwner(t, "alice").on(h)
	o.register(h, "")
	o.put(h, "k")
	<-c.got
	list := o.token("hooks", hooks.AbilityList)
	rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(list.Proofs[0]))
	must(t, err)
	must(t, h.store.Revoke(t.Context(), rev))
	again := newOwner(t, "alice")
	again.session = o.session
	again.header = o.wallet.SignDelegation(sessionOptions(o))
	again.on(h)
	again.put(h, "k2")
	for {
		records, err := h.hooks.List(t.Context(), again.token("hooks/kv", hooks.AbilityList), o.space, "kv", "")
		must(t, err)
		if len(records) != 1 {
			t.Fatalf("records %+v", records)
		}
		if !records[0].Active {
			break
		}
	}
	if len(c.got) > 0 {
		t.Errorf("after the revocation %+v", <-c.got)
	}
}

func TestWebhookLimits(t *testing.T) {
	h := startNew(t, "host", hooks.Options{Transport: newCallback(t, ok), Lookup: publicName})
	o, other := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	var first hooks.Record
	for i := range 5 {
		r := o.register(h, fmt.Sprint("docs/", i%2))
		if i == 0 {
			first = r
		}
	}
	_, err := h.hooks.Register(t.Context(), o.token("hooks", hooks.AbilityRegister), o.registration(""))
	if !errors.Is(err, tinycloud.ErrBusy) {
		t.Errorf("sixth: %v", err)
	}
	other.register(h, "")
	for _, tt := range []struct {
		path, service, prefix string
		n                     int // -1: refused
	}{
		{"hooks", "kv", "", 5},
		{"hooks/kv", "kv", "docs", 5},
		{"hooks/kv/docs", "kv", "docs/1", 2},
		{"hooks/webhooks", "", "", 5},
		{"hooks", "sql", "", 0},
		{"hooks/kv/docs", "kv", "", -1},
		{"hooks/kv", "", "", -1},
		{"kv", "kv", "", -1},
	} {
		ability := hooks.AbilityList
		if tt.path == "kv" {
			ability = "tinycloud.kv/put"
		}
		records, err := h.hooks.List(t.Context(), o.token(tt.path, ability), o.space, tt.service, tt.prefix)
		if (tt.n < 0) != errors.Is(err, tinycloud.ErrForbidden) || (tt.n >= 0 && len(records) != tt.n) {
			t.Errorf("%+v: %d records, %v", tt, len(records), err)
		}
	}
	for _, tt := range []struct {
		who   *owner
		path  string
		class error
	}{
		{other, "hooks", tinycloud.ErrNotFound},
		{o, "hooks/kv/docs/1", tinycloud.ErrForbidden},
		{o, "hooks/webhooks/other", tinycloud.ErrForbidden},
		{o, "hooks/kv/docs/0", nil},
		{o, "hooks/kv/docs/0", tinycloud.ErrNotFound},
	} {
		if err := h.hooks.Unregister(t.Context(), tt.who.token(tt.path, hooks.AbilityUnregister), first.ID); !errors.Is(err, tt.class) {
			t.Errorf("unregister by %s: %v, want %v", tt.path, err, tt.class)
		}
	}
}

// TestSlowTargetsOfASpace has all webhooks of a Space hang: they take two places, and others are called.
func TestSlowTargetsOfASpace(t *testing.T) {
	slow := newCallback(t, func(int) int { return 0 })
	h := startNew(t, "host", hooks.Options{Transport: slow, Lookup: publicName})
	alice, bob := newOwner(t, "alice").on(h), newOwner(t, "bob").on(h)
	for range hooks.DefaultWebhooks {
		alice.register(h, "")
	}
	bob.register(h, "")
	called := func(o *owner) {
		t.Helper()
		if q := <-slow.got; q.event.Space != o.space.String() {
			t.Errorf("a webhook of %s is called", q.event.Space)
		}
	}
	alice.put(h, "k")
	called(alice)
	called(alice)
	bob.put(h, "k")
	called(bob)
}
