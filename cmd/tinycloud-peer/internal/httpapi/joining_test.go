package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// newcomer is a wallet whose Spaces are not hosted yet; its session was posted.
func (n *node) newcomer(seed, space string) *owner {
	n.t.Helper()
	o := &owner{n: n, wallet: captest.NewWallet(seed), session: captest.NewSession(seed)}
	o.space = o.wallet.Space(space)
	id := o.space.String()
	o.proof = o.delegate(o.session, captest.Caps{
		id + "/kv": kvAbilities, id + "/capabilities": {"tinycloud.capabilities/read"}, id + "/delegation": {"tinycloud.delegation/list"},
		id + "/hooks": {hooks.AbilitySubscribe, hooks.AbilityRegister, hooks.AbilityList, hooks.AbilityUnregister},
	})
	return o
}

func (o *owner) hosting() string { return o.wallet.SignHost(o.space, o.n.hostDID(o.space)) }

// joins hosts the Space while it has a history elsewhere.
func (o *owner) joins() {
	o.n.t.Helper()
	o.n.post("/delegate", o.hosting()).status200(o.n.t)
	must(o.n.t, o.n.store.AddJoin(o.n.t.Context(), o.space, []string{"/ip4/192.0.2.1/tcp/1"}, false))
}

func (a answer) status200(t *testing.T) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
}

// never waits for its Space but for a test's end.
func never(co *capstore.Options, _ *httpapi.Options) { co.JoinTimeout = time.Hour }

// surface is a request about a Space and what it gets.
type surface struct {
	name                      string
	make                      func(o *owner) *http.Request
	joining, joined, unhosted int
}

// surfaces are all that has to do with a Space. The session's chain is known; a stranger cites what nobody has.
func surfaces() []surface {
	invoke := func(header map[string]string, body string, pairs ...string) func(*owner) *http.Request {
		return func(o *owner) *http.Request {
			return o.n.request(http.MethodPost, "/invoke", o.token(pairs...), header, strings.NewReader(body))
		}
	}
	post := func(path string, token func(*owner) string, body func(*owner) string) func(*owner) *http.Request {
		return func(o *owner) *http.Request {
			return o.n.request(http.MethodPost, path, token(o), map[string]string{"Content-Type": "application/json"}, strings.NewReader(body(o)))
		}
	}
	get := func(path func(o *owner) string) func(*owner) *http.Request {
		return func(o *owner) *http.Request { return o.n.request(http.MethodGet, path(o), "", nil, nil) }
	}
	text := func(s string) func(*owner) string { return func(*owner) string { return s } }
	none := text("")
	unknown := tinycloud.Sum([]byte("nobody has it"))
	stranger := func(o captest.TokenOptions, path, ability string) func(*owner) string {
		return func(w *owner) string {
			o.Caps, o.Proofs = captest.Caps{w.space.String() + "/" + path: {ability}}, []tinycloud.Hash{unknown}
			return captest.NewSession("stranger").Invoke(o)
		}
	}
	about := func(ability string) func(*owner) string {
		return func(o *owner) string {
			return o.session.Invoke(captest.TokenOptions{Caps: captest.Caps{"urn:cid:" + unknown.EventID(): {ability}}})
		}
	}
	as := func(path, ability string) func(*owner) string {
		return func(o *owner) string { return o.token(path, ability) }
	}
	subscription := func(o *owner) string { return o.subscription("") }
	past := captest.TokenOptions{Expires: time.Now().Add(-time.Minute)}
	forged := func(o *owner) string {
		token := o.token("kv/k", "tinycloud.kv/get")
		return token[:len(token)-8] + "AAAAAAAA"
	}
	return []surface{
		{name: "get", make: invoke(nil, "", "kv/k", "tinycloud.kv/get"), joining: 503, joined: 404, unhosted: 404},
		{name: "metadata", make: invoke(nil, "", "kv/k", "tinycloud.kv/metadata"), joining: 503, joined: 404, unhosted: 404},
		{name: "put", make: invoke(nil, "v", "kv/put", "tinycloud.kv/put"), joining: 503, joined: 200, unhosted: 404},
		{name: "create", make: invoke(map[string]string{"If-None-Match": "*"}, "v", "kv/new", "tinycloud.kv/put"), joining: 503, joined: 200, unhosted: 404},
		{
			name: "exchange", make: invoke(map[string]string{"If-Match": `"blake3-` + strings.Repeat("0", 64) + `"`}, "v", "kv/k", "tinycloud.kv/put"),
			joining: 503, joined: 412, unhosted: 404,
		},
		{name: "delete", make: invoke(nil, "", "kv/k", "tinycloud.kv/del"), joining: 503, joined: 404, unhosted: 404},
		{name: "list", make: invoke(nil, "", "kv/none/", "tinycloud.kv/list"), joining: 503, joined: 200, unhosted: 404},
		{name: "batch", make: invoke(nil, "", "kv/a", "tinycloud.kv/get", "kv/b", "tinycloud.kv/get"), joining: 503, joined: 200, unhosted: 404},
		{name: "capabilities", make: invoke(nil, "", "capabilities/all", "tinycloud.capabilities/read"), joining: 503, joined: 200, unhosted: 404},
		{name: "unknown chain", make: post("/invoke", stranger(captest.TokenOptions{}, "kv/k", "tinycloud.kv/get"), none), joining: 503, joined: 401, unhosted: 401},
		{name: "expired", make: post("/invoke", stranger(past, "kv/k", "tinycloud.kv/get"), none), joining: 401, joined: 401, unhosted: 401},
		{name: "forged", make: post("/invoke", forged, none), joining: 401, joined: 401, unhosted: 401},
		{name: "delegation", make: post("/delegate", func(o *owner) string {
			return o.wallet.SignDelegation(captest.DelegationOptions{
				Audience: captest.NewSession("friend").URI(), Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}}, Expires: time.Now().Add(time.Hour),
			})
		}, none), joining: 503, joined: 200, unhosted: 200},
		{name: "delegation of a stranger", make: post("/delegate", func(o *owner) string {
			return captest.NewSession("stranger").Delegate(captest.NewSession("friend").DID(), captest.TokenOptions{
				Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}}, Proofs: []tinycloud.Hash{unknown},
			})
		}, none), joining: 503, joined: 401, unhosted: 401},
		{name: "status", make: post("/delegation/status", about("tinycloud.delegation/status"), text(`{"cid":"`+unknown.EventID()+`"}`)), joining: 503, joined: 404, unhosted: 404},
		{name: "revocation", make: post("/revoke", func(o *owner) string { return o.wallet.SignRevocation(unknown) }, none), joining: 503, joined: 403, unhosted: 403},
		{name: "query", make: post("/delegation/query", as("delegation", "tinycloud.delegation/list"), text("{}")), joining: 503, joined: 200, unhosted: 200},
		{name: "signed URL", make: post("/signed/kv", as("kv/k", "tinycloud.kv/get"), func(o *owner) string {
			return fmt.Sprintf(`{"space":%q,"path":"k"}`, o.space)
		}), joining: 503, joined: 404, unhosted: 404},
		{name: "ticket", make: post("/hooks/tickets", as("hooks/kv", hooks.AbilitySubscribe), subscription), joining: 200, joined: 200, unhosted: 404},
		{name: "ticket of a stranger", make: post("/hooks/tickets", stranger(captest.TokenOptions{}, "hooks/kv", hooks.AbilitySubscribe), subscription), joining: 200, joined: 401, unhosted: 401},
		{name: "webhook", make: post("/hooks/webhooks", as("hooks/kv", hooks.AbilityRegister), func(o *owner) string {
			return fmt.Sprintf(`{"space":%q,"service":"kv","callbackUrl":"https://example.com/","secret":"x"}`, o.space)
		}), joining: 503, joined: 200, unhosted: 404},
		{name: "webhooks", make: func(o *owner) *http.Request {
			return o.n.request(http.MethodGet, "/hooks/webhooks", o.token("hooks/webhooks", hooks.AbilityList), nil, nil)
		}, joining: 503, joined: 200, unhosted: 404},
		{name: "public key", make: get(func(o *owner) string { return "/public/" + url.PathEscape(o.space.String()) + "/kv/k" }), joining: 503, joined: 404, unhosted: 404},
		{name: "public list", make: get(func(o *owner) string { return "/public/" + url.PathEscape(o.space.String()) + "/kv" }), joining: 503, joined: 200, unhosted: 200},
		{name: "health", make: get(func(o *owner) string { return "/healthz?space=" + url.QueryEscape(o.space.String()) }), joining: 503, joined: 200, unhosted: 503},
		{name: "other health", make: get(func(o *owner) string { return "/health?space=" + url.QueryEscape(o.space.String()) }), joining: 503, joined: 200, unhosted: 503},
		{name: "health of the node", make: get(text("/healthz")), joining: 200, joined: 200, unhosted: 200},
		{name: "health of nothing", make: get(text("/healthz?space=")), joining: 400, joined: 400, unhosted: 400},
		{name: "health of nonsense", make: get(text("/healthz?space=tinycloud%3Anonsense")), joining: 400, joined: 400, unhosted: 400},
	}
}

// survey sends all requests at once, so that those that wait do so together.
func (o *owner) survey(state string, all []surface, want func(surface) int) {
	o.n.t.Helper()
	var group sync.WaitGroup
	answers := make([]answer, len(all))
	for i, s := range all {
		r := s.make(o)
		group.Go(func() { answers[i] = o.n.do(r) })
	}
	group.Wait()
	for i, s := range all {
		got := answers[i]
		if got.status != want(s) {
			o.n.t.Errorf("%s, %s: %d %q, want %d", state, s.name, got.status, got.body, want(s))
		}
		if retry := got.header.Get("Retry-After"); (retry != "") != (got.status == 503) {
			o.n.t.Errorf("%s, %s: %d with Retry-After %q", state, s.name, got.status, retry)
		}
	}
}

// TestJoining asks all that has to do with a Space while that is joining, when it is here, and where it is not hosted.
func TestJoining(t *testing.T) {
	n, all := newNode(t, never), surfaces()
	o, elsewhere := n.newcomer("alice", "public"), n.newcomer("carol", "public")
	o.joins()
	whole := n.owner("bob")
	began := time.Now()
	o.survey("joining", all, func(s surface) int { return s.joining })
	if took := time.Since(began); took < time.Second {
		t.Errorf("nobody waited: all was answered in %s", took)
	}
	n.post("/delegate", o.hosting()).status200(t) // the host delegation, again
	// Another Space that is here is served as ever, and at once.
	began = time.Now()
	whole.put("k", "v", nil).want(t, "put", 200, "")
	whole.get("k", nil).want(t, "get", 200, "v")
	whole.get("missing", nil).want(t, "missing", 404, "Key not found")
	n.post("/invoke", captest.NewSession("stranger").Invoke(captest.TokenOptions{
		Caps: captest.Caps{whole.space.String() + "/kv/k": {"tinycloud.kv/get"}}, Proofs: []tinycloud.Hash{{1}},
	})).want(t, "stranger", 401, "Cannot find parent delegation")
	if took := time.Since(began); took > time.Second {
		t.Errorf("another Space waited too: %s", took)
	}
	must(t, n.store.Synced(t.Context(), o.space))
	o.survey("joined", all, func(s surface) int { return s.joined })
	elsewhere.survey("unhosted", all, func(s surface) int { return s.unhosted })
}

// TestSignedWhileJoining reads by a URL that was given before the Space was to be joined.
func TestSignedWhileJoining(t *testing.T) {
	n := newNode(t, never)
	o := n.newcomer("alice", "default")
	n.post("/delegate", o.hosting()).status200(t)
	value := tinycloud.Sum([]byte("v"))
	got := n.do(n.request(http.MethodPost, "/signed/kv", o.token("kv/k", "tinycloud.kv/get"), map[string]string{"Content-Type": "application/json"},
		strings.NewReader(fmt.Sprintf(`{"space":%q,"path":"k","contentHash":%q}`, o.space, value))))
	got.status200(t)
	_, path, _ := strings.Cut(got.body, `"url":"`)
	path, _, _ = strings.Cut(path, `"`)
	read := func() answer { return n.do(n.request(http.MethodGet, path, "", nil, nil)) }
	read().want(t, "before", 404, "Key not found")
	must(t, n.store.AddJoin(t.Context(), o.space, []string{"/ip4/192.0.2.1/tcp/1"}, false))
	if a := read(); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("joining: %d %s", a.status, a.body)
	}
	must(t, n.store.Synced(t.Context(), o.space))
	read().want(t, "joined", 404, "Key not found")
}

// TestSilentTicket is what a client sees that subscribes before the history is here.
func TestSilentTicket(t *testing.T) {
	n := newNode(t, never)
	o := n.newcomer("alice", "default")
	o.joins()
	next := n.events(o.ticket(), "")
	must(t, n.store.Synced(t.Context(), o.space))
	o.put("first", "1", nil).want(t, "put", 200, "")
	if _, data := next(); !strings.Contains(data, `"path":"first"`) {
		t.Error(data)
	}
}

// TestHealthOfRemoved asks for a Space whose owner has removed this host.
func TestHealthOfRemoved(t *testing.T) {
	n := newNode(t)
	o := n.newcomer("alice", "default")
	first, again := o.hosting(), o.wallet.SignDelegation(renewed(o, n.hostDID(o.space)))
	for _, header := range []string{first, again} {
		n.post("/delegate", header).status200(t)
	}
	healthy := func(want int) {
		t.Helper()
		got := n.do(n.request(http.MethodGet, "/healthz?space="+url.QueryEscape(o.space.String()), "", nil, nil))
		if got.status != want || got.body != "" {
			t.Errorf("%d %q, want %d", got.status, got.body, want)
		}
	}
	healthy(200)
	n.post("/revoke", o.wallet.SignRevocation(captest.ID(again))).status200(t) // the removal ends the first, too
	healthy(503)
	o.put("k", "v", nil)
	healthy(503)
}

func renewed(o *owner, did string) captest.DelegationOptions {
	d := captest.HostOptions(o.space, did)
	d.IssuedAt = time.Now().Add(time.Second)
	return d
}
