package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

// shift is how far a node's clock is ahead of the world's.
type shift struct{ atomic.Int64 }

func (s *shift) set(d time.Duration) { s.Store(int64(d)) }

func (s *shift) now() time.Time { return time.Now().Add(time.Duration(s.Load())) }

func (s *shift) option(c *capstore.Options, _ *httpapi.Options) { c.Now = s.now }

// holder is a key with a proof.
type holder struct {
	n     *node
	key   *captest.SessionKey
	proof hash
	clock *shift
}

// holder gives a new key abilities on the delegations of the owner's Space.
func (o *owner) holder(seed string, clock *shift, abilities ...string) *holder {
	o.n.t.Helper()
	h := &holder{n: o.n, key: captest.NewSession(seed), clock: clock}
	h.proof = o.delegate(h.key, captest.Caps{o.space.String() + "/delegation": abilities})
	return h
}

func (h *holder) sign(caps captest.Caps, proofs ...hash) string {
	return h.key.Invoke(captest.TokenOptions{Caps: caps, Proofs: proofs, Expires: h.clock.now().Add(time.Minute)})
}

func (n *node) ask(path, token, body string) answer {
	n.t.Helper()
	return n.do(n.request("POST", path, token, map[string]string{"Content-Type": "application/json"}, strings.NewReader(body)))
}

func statusCaps(id hash) captest.Caps {
	return captest.Caps{"urn:cid:" + id.EventID(): {"tinycloud.delegation/status"}}
}

func cidBody(id hash) string { return `{"cid":"` + id.EventID() + `"}` }

// status asks for the status of a delegation and returns it in one word.
func (h *holder) status(id hash, proofs ...hash) string {
	h.n.t.Helper()
	got := h.n.ask("/delegation/status", h.sign(statusCaps(id), proofs...), cidBody(id))
	var s struct {
		CID, Status                      string
		Exists, Active, Revoked, Expired *bool
	}
	must(h.n.t, json.Unmarshal([]byte(got.body), &s))
	if s.CID != id.EventID() || s.Exists == nil || s.Active == nil || s.Revoked == nil || s.Expired == nil {
		h.n.t.Fatalf("status: %d %s", got.status, got.body)
	}
	want := 200
	if s.Status == "not_found" {
		want = 404
	}
	if got.status != want || *s.Exists != (want == 200) || *s.Active != (s.Status == "active") ||
		*s.Revoked != (s.Status == "revoked") || *s.Expired != (s.Status == "expired") {
		h.n.t.Errorf("status: %d %s", got.status, got.body)
	}
	return s.Status
}

func TestWhoMayAskForStatus(t *testing.T) {
	n, clock := newNode(t), &shift{}
	o, other := n.owner("alice"), n.owner("bob")
	delegatee := &holder{n, o.session, o.proof, clock}
	stranger := &holder{n, captest.NewSession("stranger"), hash{}, clock}
	right := o.holder("right", clock, "tinycloud.delegation/status")
	wrong := o.holder("wrong", clock, "tinycloud.delegation/list")
	others := other.holder("others", clock, "tinycloud.delegation/status")
	child := o.session.Delegate(stranger.key.DID(), captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/get"}}, Proofs: o.proofs(), Expires: time.Now().Add(time.Minute).Truncate(time.Second),
	})
	if got := n.post("/delegate", child); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	grandchild := captest.ID(child)
	for _, tt := range []struct {
		what   string
		h      *holder
		target hash
		proofs []hash
		want   string
	}{
		{"delegatee", delegatee, o.proof, nil, "active"},
		{"delegatee with its proof", delegatee, o.proof, o.proofs(), "active"},
		{"delegator", delegatee, grandchild, nil, "active"},
		{"delegatee of the child", stranger, grandchild, nil, "active"},
		{"delegatee of the child about its parent", stranger, o.proof, []hash{grandchild}, "not_found"},
		{"stranger", stranger, right.proof, nil, "not_found"},
		{"stranger with another's proof", stranger, o.proof, []hash{right.proof}, "not_found"},
		{"holder of the right", right, o.proof, []hash{right.proof}, "active"},
		{"holder of the right about a delegation further down", right, grandchild, []hash{right.proof}, "active"},
		{"holder of the right, who does not cite it", right, o.proof, nil, "not_found"},
		{"holder of the right with an unknown proof besides", right, o.proof, []hash{right.proof, {1}}, "not_found"},
		{"holder of another right", wrong, o.proof, []hash{wrong.proof}, "not_found"},
		{"holder of the right on another Space", others, o.proof, []hash{others.proof}, "not_found"},
		{"nothing there", delegatee, hash{2}, o.proofs(), "not_found"},
	} {
		if got := tt.h.status(tt.target, tt.proofs...); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
	n.post("/revoke", o.wallet.SignRevocation(right.proof)).want(t, "revoke the right", 200, `{"revoked":true,"cid":"`+right.proof.EventID()+`"}`)
	if got := right.status(o.proof, right.proof); got != "not_found" {
		t.Errorf("holder of a revoked right: %s", got)
	}
	if got := right.status(right.proof); got != "revoked" {
		t.Errorf("about the revoked right: %s", got)
	}
}

func TestStatusRefusals(t *testing.T) {
	n, clock := newNode(t), &shift{}
	o := n.owner("alice")
	h := &holder{n, o.session, o.proof, clock}
	const unbound = "Status invocation is not bound to the requested CID"
	bad := hash{1}
	for _, tt := range []struct {
		what, token, body string
		status            int
		text              string
	}{
		{"another CID", h.sign(statusCaps(bad)), cidBody(o.proof), 403, unbound},
		{"another ability", h.sign(captest.Caps{"urn:cid:" + o.proof.EventID(): {"tinycloud.delegation/revoke"}}), cidBody(o.proof), 403, unbound},
		{"two capabilities", h.sign(captest.Caps{
			"urn:cid:" + o.proof.EventID(): {"tinycloud.delegation/status"}, o.space.String() + "/kv/k": {"tinycloud.kv/get"},
		}, o.proof), cidBody(o.proof), 403, unbound},
		{"a Space", h.sign(captest.Caps{o.space.String() + "/delegation": {"tinycloud.delegation/status"}}, o.proof), cidBody(o.proof), 403, unbound},
		{"caveats", h.key.Invoke(captest.TokenOptions{Caps: statusCaps(o.proof), Caveats: `[{"x":1}]`}), cidBody(o.proof), 403, unbound},
		{"no CID", h.sign(statusCaps(o.proof)), `{"cid":"nonsense"}`, 400, "Invalid delegation CID"},
		{"no body", h.sign(statusCaps(o.proof)), ``, 400, "Invalid delegation CID"},
		{"unknown member", h.sign(statusCaps(o.proof)), `{"cid":"` + o.proof.EventID() + `","x":1}`, 400, "Invalid delegation CID"},
		{"long body", h.sign(statusCaps(o.proof)), strings.Repeat(" ", 16<<10+1), 413, "Request body exceeds the limit of 16384 bytes"},
		{"expired", h.key.Invoke(captest.TokenOptions{Caps: statusCaps(o.proof), Expires: time.Now().Add(-time.Minute)}), cidBody(o.proof), 401, "Invalid status invocation"},
		{"lives too long", h.key.Invoke(captest.TokenOptions{Caps: statusCaps(o.proof), Expires: time.Now().Add(time.Hour)}), cidBody(o.proof), 401, "Invalid status invocation"},
		{"forged", h.key.Invoke(captest.TokenOptions{Caps: statusCaps(o.proof), Issuer: captest.NewSession("x").URI()}), cidBody(o.proof), 401, "Invalid status invocation"},
		{"a delegation's form", o.wallet.SignHost(o.space, "did:key:x"), cidBody(o.proof), 401, "The request requires user authentication."},
	} {
		n.ask("/delegation/status", tt.token, tt.body).want(t, tt.what, tt.status, tt.text)
	}
	token := h.sign(statusCaps(o.proof))
	n.ask("/delegation/status", token, "junk").want(t, "refused", 400, "Invalid delegation CID")
	if got := n.ask("/delegation/status", token, cidBody(o.proof)); got.status != 200 {
		t.Errorf("the same token: %d %s", got.status, got.body)
	}
	n.ask("/delegation/status", token, cidBody(o.proof)).want(t, "used", 409, "duplicate invocation")
	n.post("/invoke", token).want(t, "used elsewhere", 409, "duplicate invocation")
}

// record is an item of a page.
type record struct {
	CID, Direction, DelegatorDID, DelegateDID, Status, RevokedBy, RevokedAncestorCid string
	Resources                                                                        []struct {
		Resource string
		Actions  []string
		Caveats  []json.RawMessage
	}
	Parents                                   []string
	IssuedAt, NotBefore, ExpiresAt, RevokedAt *time.Time
}

type page struct {
	SchemaVersion int
	Items         []record
	NextCursor    string
}

func (o *owner) listCaps() captest.Caps {
	return captest.Caps{o.space.String() + "/delegation/": {"tinycloud.delegation/list"}}
}

func (h *holder) query(o *owner, body string) page {
	h.n.t.Helper()
	got := h.n.ask("/delegation/query", h.sign(o.listCaps(), h.proof), body)
	var p page
	if err := json.Unmarshal([]byte(got.body), &p); err != nil || got.status != 200 || p.SchemaVersion != 2 || p.Items == nil {
		h.n.t.Fatalf("query %s: %d %s", body, got.status, got.body)
	}
	return p
}

// names says which of the delegations are in a page.
func (p page) names(of map[hash]string) string {
	var out []string
	for _, r := range p.Items {
		id, err := tinycloud.ParseCID(r.CID)
		if err != nil || of[id] == "" {
			out = append(out, "?")
			continue
		}
		out = append(out, of[id]+" "+r.Direction+" "+r.Status)
	}
	return strings.Join(out, ", ")
}

func TestDelegationQuery(t *testing.T) {
	clock := &shift{}
	n := newNode(t, clock.option)
	o, bob := n.owner("alice"), n.owner("bob")
	h := o.holder("lister", clock, "tinycloud.delegation/list")
	day := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	sign := func(w *captest.Wallet, at int, to string, caps captest.Caps, nbf, exp time.Time) hash {
		header := w.SignDelegation(captest.DelegationOptions{Audience: to, Caps: caps, IssuedAt: day.AddDate(0, 0, at), NotBefore: nbf, Expires: exp})
		if got := n.post("/delegate", header); got.status != 200 {
			t.Fatal(got.status, got.body)
		}
		return captest.ID(header)
	}
	of := map[hash]string{o.proof: "session", h.proof: "lister"}
	space, elsewhere := o.space.String(), o.wallet.Space("elsewhere").String()
	friend := captest.NewSession("friend")
	kv := captest.Caps{space + "/kv/a": {"tinycloud.kv/put", "tinycloud.kv/get"}}
	hour := time.Now().Add(time.Hour)
	active := sign(o.wallet, 9, friend.URI(), kv, time.Time{}, hour)
	revoked := sign(o.wallet, 8, friend.URI(), kv, time.Time{}, hour)
	expired := sign(o.wallet, 7, friend.URI(), captest.Caps{elsewhere + "/kv": {"tinycloud.kv/get"}}, time.Time{}, time.Now().Add(10*time.Minute))
	received := sign(bob.wallet, 6, string(o.wallet.DID()), captest.Caps{bob.space.String() + "/kv": {"tinycloud.kv/get"}}, time.Time{}, hour.AddDate(1, 0, 0))
	others := sign(bob.wallet, 5, friend.URI(), captest.Caps{bob.space.String() + "/kv": {"tinycloud.kv/get"}}, time.Time{}, hour)
	clock.set(2 * time.Hour)
	later := captest.Caps{o.wallet.Space("later").String() + "/kv": {"tinycloud.kv/get"}} // not hosted: no history gets ahead
	pending := sign(o.wallet, 4, friend.URI(), later, time.Now().Add(90*time.Minute), time.Time{})
	clock.set(0)
	child := friend.Delegate(captest.NewSession("far").DID(), captest.TokenOptions{Caps: kv, Proofs: []hash{revoked}, Expires: time.Now().Add(time.Minute)})
	if got := n.post("/delegate", child); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	of[active], of[revoked], of[expired], of[received], of[others], of[pending], of[captest.ID(child)] = "active", "revoked", "expired", "received", "others", "pending", "child"
	if got := n.post("/revoke", o.wallet.SignRevocation(revoked)); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	clock.set(30 * time.Minute)
	// The host delegation, the session's and the lister's own are the latest.
	p := h.query(o, `{}`)
	if len(p.Items) < 3 || p.NextCursor != "" {
		t.Fatalf("%d items, cursor %q", len(p.Items), p.NextCursor)
	}
	for i := 1; i < len(p.Items); i++ {
		if p.Items[i-1].IssuedAt.Before(*p.Items[i].IssuedAt) {
			t.Errorf("item %d is older than the next", i-1)
		}
	}
	p.Items = p.Items[3:]
	const granted = "active granted active, revoked granted revoked, expired granted expired"
	if diff := cmp.Diff(granted+", received received active, pending granted pending", p.names(of)); diff != "" {
		t.Error(diff)
	}
	r := p.Items[1]
	if r.RevokedAt == nil || r.RevokedBy != string(o.wallet.DID()) || r.DelegatorDID != string(o.wallet.DID()) || r.DelegateDID != string(friend.DID()) ||
		!r.IssuedAt.Equal(day.AddDate(0, 0, 8)) || r.NotBefore != nil || r.ExpiresAt == nil || r.Parents == nil {
		t.Errorf("%+v", r)
	}
	if len(r.Resources) != 1 || r.Resources[0].Resource != space+"/kv/a" || fmt.Sprint(r.Resources[0].Actions) != "[tinycloud.kv/get tinycloud.kv/put]" ||
		fmt.Sprintf("%s", r.Resources[0].Caveats) != "[{} {}]" {
		t.Errorf("%+v", r.Resources)
	}
	for body, want := range map[string]string{
		`{"status":"revoked"}`:                            "revoked granted revoked",
		`{"status":"ancestor_revoked"}`:                   "",
		`{"status":"expired"}`:                            "expired granted expired",
		`{"status":"pending","direction":"granted"}`:      "pending granted pending",
		`{"direction":"received"}`:                        "received received active",
		`{"space":"elsewhere"}`:                           "expired granted expired",
		`{"space":"` + elsewhere + `","direction":"all"}`: "expired granted expired",
		`{"space":"` + bob.space.String() + `"}`:          "received received active",
		`{"space":"nowhere","status":null,"cursor":null}`: "",
		`{"status":"active","space":"` + elsewhere + `"}`: "",
		`{"direction":"received","space":"elsewhere"}`:    "",
	} {
		if got := h.query(o, body).names(of); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	// The friend's own account is nobody's: its key has no Space here. Bob sees his side.
	b := bob.holder("bob's lister", clock, "tinycloud.delegation/list")
	if got := b.query(bob, `{"space":"`+bob.space.String()+`","direction":"granted"}`).names(of); !strings.HasSuffix(got, "received granted active, others granted active") {
		t.Errorf("bob: %s", got)
	}

	var pages []string
	for body := `{"limit":2}`; ; {
		p := h.query(o, body)
		if len(p.Items) > 2 {
			t.Fatalf("%d items", len(p.Items))
		}
		for _, r := range p.Items {
			pages = append(pages, r.CID)
		}
		if p.NextCursor == "" {
			break
		}
		body = `{"limit":2,"cursor":"` + p.NextCursor + `"}`
	}
	var whole []string
	for _, r := range h.query(o, `{"limit":100}`).Items {
		whole = append(whole, r.CID)
	}
	if diff := cmp.Diff(whole, pages); diff != "" || len(whole) != 8 {
		t.Errorf("pages of 2, %d in all: %s", len(whole), diff)
	}
}

// TestQueryOfSessions follows grants that sessions made, and what they rest on.
func TestQueryOfSessions(t *testing.T) {
	clock := &shift{}
	n := newNode(t, clock.option)
	o, bob := n.owner("alice"), n.owner("bob")
	space := o.space.String()
	session := captest.NewSession("full session")
	proof := o.delegate(session, captest.Caps{space + "/kv": {"tinycloud.kv/get"}, space + "/delegation": {"tinycloud.delegation/list"}})
	post := func(header string) hash {
		t.Helper()
		if got := n.post("/delegate", header); got.status != 200 {
			t.Fatal(got.status, got.body)
		}
		return captest.ID(header)
	}
	soon := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	friend := captest.NewSession("friend")
	shared := post(session.Delegate(friend.DID(), captest.TokenOptions{Caps: captest.Caps{space + "/kv/x": {"tinycloud.kv/get"}}, Proofs: []hash{proof}, Expires: soon}))
	further := post(friend.Delegate("did:key:zFar", captest.TokenOptions{Caps: captest.Caps{space + "/kv/x": {"tinycloud.kv/get"}}, Proofs: []hash{shared}, Expires: soon}))
	// Bob's dealings with his session stay bob's, though alice declares its key one of hers.
	private := bob.delegate(friend, captest.Caps{bob.space.String() + "/kv": {"tinycloud.kv/get"}})
	annexed := o.delegate(friend, captest.Caps{space + "/delegation": {"tinycloud.delegation/list"}})
	of := map[hash]string{shared: "shared", further: "further", private: "private", annexed: "annexed"}
	h := &holder{n, session, proof, clock}
	list := func() map[string]bool {
		out := map[string]bool{}
		for _, name := range strings.Split(h.query(o, `{}`).names(of), ", ") {
			out[name] = true
		}
		return out
	}
	got := list()
	if !got["shared granted active"] || !got["further granted active"] || !got["annexed granted active"] || got["private received active"] {
		t.Errorf("%v", got)
	}
	if p := h.query(o, `{"limit":1,"direction":"granted","status":"active"}`); p.NextCursor == "" {
		t.Error("no second page")
	}
	friendly := &holder{n, friend, annexed, clock}
	if got := friendly.query(o, `{"direction":"received"}`).names(of); !strings.Contains(got, "private received active") {
		t.Errorf("the friend itself: %s", got)
	}
	hidden := base64.RawURLEncoding.EncodeToString([]byte(private.EventID()))
	n.ask("/delegation/query", h.sign(o.listCaps(), proof), `{"cursor":"`+hidden+`"}`).want(t, "cursor to what is not shown", 400,
		"Invalid delegation query: invalid delegation query cursor")

	far := &holder{n, friend, hash{}, clock}
	n.post("/revoke", session.Revoke(shared, captest.TokenOptions{})).want(t, "revoke", 200, `{"revoked":true,"cid":"`+shared.EventID()+`"}`)
	if got := list(); !got["shared granted revoked"] || !got["further granted ancestor_revoked"] {
		t.Errorf("after the revocation: %v", got)
	}
	for _, r := range h.query(o, `{"status":"ancestor_revoked"}`).Items {
		if r.CID != further.EventID() || r.RevokedAncestorCid != shared.EventID() || r.RevokedAt != nil || r.RevokedBy != "" {
			t.Errorf("%+v", r)
		}
	}
	if got := far.status(further); got != "revoked" {
		t.Errorf("status of the child: %s", got)
	}
	if got := h.query(o, `{"status":"revoked"}`).names(of); !strings.Contains(got, "shared") || !strings.Contains(got, "further") {
		t.Errorf("revoked: %s", got)
	}
	clock.set(30 * time.Minute)
	if got := (&holder{n, session, proof, clock}).status(shared); got != "revoked" {
		t.Errorf("revoked and expired: %s", got)
	}
	clock.set(2 * time.Hour)
	if got := friendly.status(private); got != "expired" {
		t.Errorf("expired: %s", got)
	}
	n.ask("/delegation/query", h.sign(o.listCaps(), proof), `{}`).want(t, "by an expired session", 403, "Delegation query proof is not authorized")
}

func TestQueryRefusals(t *testing.T) {
	n, clock := newNode(t), &shift{}
	o, bob := n.owner("alice"), n.owner("bob")
	h := o.holder("lister", clock, "tinycloud.delegation/list")
	const denied = "Delegation query proof is not authorized"
	list := "tinycloud.delegation/list"
	for _, tt := range []struct{ what, token string }{
		{"no proof", h.sign(o.listCaps())},
		{"another's account", h.sign(bob.listCaps(), h.proof)},
		{"a session without the right", o.session.Invoke(captest.TokenOptions{Caps: o.listCaps(), Proofs: o.proofs()})},
		{"another's proof", o.session.Invoke(captest.TokenOptions{Caps: o.listCaps(), Proofs: []hash{h.proof}})},
		{"forged", h.key.Invoke(captest.TokenOptions{Caps: o.listCaps(), Proofs: []hash{h.proof}, Issuer: o.session.URI()})},
		{"expired", h.key.Invoke(captest.TokenOptions{Caps: o.listCaps(), Proofs: []hash{h.proof}, Expires: time.Now().Add(-time.Hour)})},
		{"a path", h.sign(captest.Caps{o.space.String() + "/delegation/x": {list}}, h.proof)},
		{"a query", h.sign(captest.Caps{o.space.String() + "/delegation?x": {list}}, h.proof)},
		{"caveats", h.key.Invoke(captest.TokenOptions{Caps: o.listCaps(), Proofs: []hash{h.proof}, Caveats: `[{"x":1}]`})},
		{"no capability", h.sign(captest.Caps{})},
	} {
		n.ask("/delegation/query", tt.token, `{}`).want(t, tt.what, 403, denied)
	}
	n.ask("/delegation/query", "junk", `{}`).want(t, "junk", 401, "The request requires user authentication.")
	token := h.sign(o.listCaps(), h.proof)
	for body, text := range map[string]string{
		``: "expected a JSON object", `[]`: "expected a JSON object", `{`: "malformed JSON or a field of the wrong type",
		`{"x":1}`:                  "unknown field `x`, expected one of `direction`, `status`, `space`, `limit`, `cursor`",
		`{"Limit":1}`:              "unknown field `Limit`, expected one of `direction`, `status`, `space`, `limit`, `cursor`",
		`{"limit":1,"limit":2}`:    "duplicate field `limit`",
		`{"limit":0}`:              "limit must be between 1 and 100",
		`{"limit":101}`:            "limit must be between 1 and 100",
		`{"limit":-1}`:             "malformed JSON or a field of the wrong type",
		`{"limit":1}{}`:            "malformed JSON or a field of the wrong type",
		`{"direction":"sideways"}`: "direction must be granted, received or all",
		`{"direction":null}`:       "direction must be granted, received or all",
		`{"status":"unavailable"}`: "status must be active, pending, expired, revoked or ancestor_revoked",
		`{"space":" "}`:            "space must not be empty",
		`{"cursor":"%%%"}`:         "invalid delegation query cursor",
		`{"cursor":""}`:            "invalid delegation query cursor",
		`{"cursor":"` + base64.RawURLEncoding.EncodeToString([]byte(hash{7}.EventID())) + `"}`: "invalid delegation query cursor",
	} {
		n.ask("/delegation/query", token, body).want(t, body, 400, "Invalid delegation query: "+text)
	}
	n.ask("/delegation/query", token, strings.Repeat(" ", 16<<10+1)).want(t, "long body", 413, "Request body exceeds the limit of 16384 bytes")
	if got := n.ask("/delegation/query", token, `{}`); got.status != 200 {
		t.Errorf("the same token: %d %s", got.status, got.body)
	}
	n.ask("/delegation/query", token, `{}`).want(t, "used", 409, "duplicate invocation")
}

// TestOddTimes shows that nobody can spoil another's listing by a time that can't be written.
func TestOddTimes(t *testing.T) {
	for at, want := range map[time.Time]string{
		time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -3600*12)): `"9999-12-31T23:59:59Z"`,
		time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600)):           `"0000-01-01T00:00:00Z"`,
		time.Date(2026, 1, 1, 0, 0, 0, 5e6, time.FixedZone("", 3600)):      `"2025-12-31T23:00:00.005Z"`,
		{}: "null",
	} {
		if b, err := json.Marshal(httpapi.Said(at)); err != nil || string(b) != want {
			t.Errorf("%v: %s %v, want %s", at, b, err, want)
		}
	}
}

func FuzzDelegationBodies(f *testing.F) {
	for _, s := range []string{
		`{"cid":"` + hash{1}.EventID() + `"}`, `{}`, `{"direction":"all","status":"active","space":"x","limit":100,"cursor":"YQ"}`, `{"limit":1,"limit":1}`, `{"cid":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, text, err := httpapi.ParseStatusBody(b); err == nil {
			if again, err := tinycloud.ParseCID(text); err != nil || again != id || !json.Valid(b) {
				t.Errorf("%q: %s", b, text)
			}
		}
		if q, err := httpapi.ParseQuery(b); err == nil && (q.Limit < 1 || q.Limit > 100 || !json.Valid(b)) {
			t.Errorf("%q: %+v", b, q)
		}
	})
}
