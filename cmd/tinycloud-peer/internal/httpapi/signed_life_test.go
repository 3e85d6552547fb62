package httpapi_test

import (
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// ticking is a clock that tests turn on.
type ticking struct{ ahead atomic.Int64 }

func (c *ticking) now() time.Time      { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *ticking) add(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *ticking) use(co *capstore.Options, _ *httpapi.Options) {
	co.Now = c.now
}

func TestSignedExpiry(t *testing.T) {
	clock := new(ticking)
	n := newNode(t, clock.use)
	o := n.owner("expiry")
	o.put("k", "v", nil).want(t, "put", 200, "")
	ends := func(url issued) time.Duration {
		end, err := time.Parse("2006-01-02T15:04:05Z", url.ExpiresAt)
		must(t, err)
		return end.Sub(clock.now())
	}
	near := func(what string, url issued, most time.Duration) {
		t.Helper()
		// The end is a whole second, and the clock runs.
		if left := ends(url); left > most || left < most-5*time.Second {
			t.Errorf("%s: expires in %v", what, left)
		}
	}
	long := func(o *owner, proof tinycloud.Hash) string {
		return o.session.Invoke(captest.TokenOptions{
			Caps:   captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}},
			Proofs: []tinycloud.Hash{proof}, Expires: clock.now().Add(290 * time.Second),
		})
	}
	near("the token ends first", o.issue("k", `,"ttlSeconds":200`), time.Minute)
	near("none asked for", o.urlOf(o.ask(long(o, o.proof), o.signedBody("k", ""))), 290*time.Second)
	near("too much asked for", o.urlOf(o.ask(long(o, o.proof), o.signedBody("k", `,"ttl_seconds":18446744073709551615`))), 290*time.Second)
	header := o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}}, Expires: clock.now().Add(40 * time.Second),
	})
	n.post("/delegate", header)
	near("a delegation ends first", o.urlOf(o.ask(long(o, captest.ID(header)), o.signedBody("k", ""))), 40*time.Second)

	token := o.token("kv/k", "tinycloud.kv/get")
	o.ask(token, o.signedBody("k", `,"ttlSeconds":0`)).want(t, "no life", 401, "signed URL expired immediately")
	url := o.urlOf(o.ask(token, o.signedBody("k", `,"ttlSeconds":20`))) // the same token: nothing burns it
	o.n.do(n.request("POST", "/invoke", token, nil, nil)).want(t, "and it can be invoked", 200, "v")
	n.fetch("GET", url.URL, nil).want(t, "alive", 200, "v")
	clock.add(ends(url) + time.Millisecond)
	n.fetch("GET", url.URL, nil).want(t, "expired", 401, "signed URL expired")
	n.fetch("HEAD", url.URL, nil).want(t, "expired, head", 401, "")
	clock.add(time.Minute)
	o.ask(token, o.signedBody("k", "")).want(t, "the token has expired", 401, "Invocation expired or not yet valid")
}

func TestSignedRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "caps.db")
	var co capstore.Options
	var ao httpapi.Options
	n := newNode(t, func(c *capstore.Options, a *httpapi.Options) { c.Database, co, ao = path, *c, *a })
	o := n.owner("restart")
	o.put("k", "v", nil).want(t, "put", 200, "")
	url := o.issue("k", "")
	n.fetch("GET", url.URL, nil).want(t, "before", 200, "v")
	n.stop()
	must(t, n.store.Close())

	co.Database = path
	var err error
	n.store, err = capstore.Open(t.Context(), co)
	must(t, err)
	n.run()
	ao.Store = n.store
	n.api = httpapi.New(ao)
	n.server = httptest.NewServer(n.api.Handler())
	t.Cleanup(n.server.Close)
	n.fetch("GET", url.URL, nil).want(t, "after", 200, "v")
	n.post("/revoke", o.wallet.SignRevocation(o.proof)).want(t, "revoke", 200, `{"revoked":true,"cid":"`+o.proof.EventID()+`"}`)
	n.fetch("GET", url.URL, nil).want(t, "revoked", 401, "signed URL revoked")
}

// TestSignedRevocation: revoking what a URL rests on, at whatever distance, ends it at once, and no other.
func TestSignedRevocation(t *testing.T) {
	n := newNode(t)
	o := n.owner("revocation")
	o.put("k", "v", nil).want(t, "put", 200, "")
	bob := captest.NewSession("bob")
	caps := captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}}
	header := o.session.Delegate(bob.DID(), captest.TokenOptions{
		Caps: caps, Proofs: o.proofs(), Expires: time.Now().Add(30 * time.Minute),
	})
	if got := n.post("/delegate", header); got.status != 200 {
		t.Fatal(got)
	}
	ofBob := func() answer {
		token := bob.Invoke(captest.TokenOptions{Caps: caps, Proofs: []tinycloud.Hash{captest.ID(header)}})
		return o.ask(token, o.signedBody("k", ""))
	}
	mine, his, again := o.issue("k", ""), o.urlOf(ofBob()), captest.NewSession("again")
	n.fetch("GET", his.URL, nil).want(t, "his", 200, "v")
	n.post("/revoke", o.session.Revoke(captest.ID(header), captest.TokenOptions{})).want(t, "revoke", 200,
		`{"revoked":true,"cid":"`+captest.ID(header).EventID()+`"}`)
	n.fetch("GET", his.URL, nil).want(t, "his", 401, "signed URL revoked")
	n.fetch("GET", mine.URL, nil).want(t, "mine", 200, "v")
	if got := ofBob(); got.status != 401 || !strings.HasPrefix(got.body, "delegation-revoked") {
		t.Errorf("another of his: %d %s", got.status, got.body)
	}

	header = o.session.Delegate(again.DID(), captest.TokenOptions{Caps: caps, Proofs: o.proofs(), Expires: time.Now().Add(20 * time.Minute)})
	bob = again
	if got := n.post("/delegate", header); got.status != 200 {
		t.Fatal(got)
	}
	his = o.urlOf(ofBob())
	n.post("/revoke", o.wallet.SignRevocation(o.proof))
	n.fetch("GET", his.URL, nil).want(t, "an ancestor", 401, "signed URL revoked")
	n.fetch("GET", mine.URL, nil).want(t, "mine", 401, "signed URL revoked")
}

// TestSignedBound: a Space has so many URLs at once; those that expired make room, and other Spaces don't mind.
func TestSignedBound(t *testing.T) {
	clock := new(ticking)
	n := newNode(t, clock.use, func(_ *capstore.Options, o *httpapi.Options) { o.MaxTickets = 3 })
	o, other := n.owner("bound"), n.owner("other")
	o.put("k", "v", nil).want(t, "put", 200, "")
	other.put("k", "w", nil).want(t, "put", 200, "")
	o.issue("k", `,"ttlSeconds":10`)
	kept := []issued{o.issue("k", ""), o.issue("k", "")}
	full := o.ask(o.token("kv/k", "tinycloud.kv/get"), o.signedBody("k", ""))
	if full.want(t, "one more", 429, "Too many signed URLs; retry the request"); full.header.Get("Retry-After") != "1" {
		t.Error(full.header)
	}
	n.fetch("GET", other.issue("k", "").URL, nil).want(t, "another Space's", 200, "w")
	clock.add(11 * time.Second)
	kept = append(kept, o.issue("k", ""))
	o.ask(o.token("kv/k", "tinycloud.kv/get"), o.signedBody("k", "")).wantStatus(t, "one more again", 429)
	for i, url := range kept {
		n.fetch("GET", url.URL, nil).want(t, fmt.Sprint("kept ", i), 200, "v")
	}
}

// TestSignedReplica: a host that took a Space over from another issues and serves its URLs, until it hears from the
// other that what they rest on is revoked. A ticket itself stays where it was issued.
func TestSignedReplica(t *testing.T) {
	one := newNode(t)
	otherKeys, err := hostkeys.New([]byte(strings.Repeat("another secret of a test ", 3)))
	must(t, err)
	two := newNode(t, func(c *capstore.Options, _ *httpapi.Options) { c.Keys = otherKeys })
	two.keys = otherKeys
	o := one.owner("replica")
	o.put("k", "v", map[string]string{"Content-Type": "text/x"}).want(t, "put", 200, "")
	o.put("far", "away", nil).want(t, "put", 200, "")
	at := issuedAt(o, one)
	two.post("/delegate", o.wallet.SignHost(o.space, two.hostDID(o.space))).wantStatus(t, "host", 200)
	two.take(one, o.space, 2)

	there := *o
	there.n = two
	url := there.issue("k", "")
	got := two.fetch("GET", url.URL, map[string]string{"Range": "bytes=0-0"})
	if got.want(t, "range there", 206, "v"); got.header.Get("Content-Type") != "text/x" {
		t.Error(got.header)
	}
	two.fetch("GET", at.URL, nil).want(t, "a ticket of the other host", 401, "signed URL ticket not found")
	if away := two.fetch("GET", there.issue("far", "").URL, nil); away.status != 503 || away.header.Get("Retry-After") != "1" {
		t.Errorf("a value that has not arrived: %d %s", away.status, away.body)
	}
	one.post("/revoke", o.wallet.SignRevocation(o.proof)).wantStatus(t, "revoke", 200)
	two.fetch("GET", url.URL, nil).want(t, "not heard of yet", 200, "v")
	two.take(one, o.space, 2)
	two.fetch("GET", url.URL, nil).want(t, "heard of", 401, "signed URL revoked")
}

func issuedAt(o *owner, n *node) issued {
	c := *o
	c.n = n
	return c.issue("k", "")
}

// take copies what another node has of a Space, with values of up to maxValue bytes.
func (n *node) take(from *node, space tinycloud.SpaceID, maxValue int) {
	n.t.Helper()
	var bundles []hostlog.Bundle
	must(n.t, from.store.Missing(n.t.Context(), space, nil, maxValue, func(b hostlog.Bundle) error {
		bundles = append(bundles, b)
		return nil
	}))
	a, err := n.store.Apply(n.t.Context(), space, bundles)
	if err != nil || a.Covered != len(bundles) {
		n.t.Fatalf("%d of %d: %v", a.Covered, len(bundles), err)
	}
}
