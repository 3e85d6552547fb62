package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
)

// attempt is a request on its way to be sent wrongly.
type attempt struct {
	*networktest.Request
	path, kind   string
	header, body *string // nil: as the request signs and says
}

func (a *attempt) send(n *node) answer {
	header, body := a.Header(), a.Text()
	if a.header != nil {
		header = *a.header
	}
	if a.body != nil {
		body = *a.body
	}
	return n.do(n.request(http.MethodPost, a.path, header, map[string]string{"Content-Type": a.kind}, strings.NewReader(body)))
}

// fault is one thing that is wrong with a request.
type fault struct {
	what   string
	status int
	text   string // in the answer
	change func(*attempt)
}

// next ends the faults that one step of the checks finds.
var next = fault{}

// testFaults sends requests with each fault alone, and with each two of different steps: the first step answers.
func testFaults(t *testing.T, n *node, begin func() *attempt, faults []fault) {
	t.Helper()
	expect := func(what string, a *attempt, f fault) {
		t.Helper()
		if got := a.send(n); got.status != f.status || !strings.Contains(got.body, f.text) {
			t.Errorf("%s: %d %q, want %d %q", what, got.status, got.body, f.status, f.text)
		}
	}
	for i, f := range faults {
		if f.change == nil {
			continue
		}
		a := begin()
		f.change(a)
		expect(f.what, a, f)
		step := false
		for _, later := range faults[i+1:] {
			if step = step || later.change == nil; !step || later.change == nil {
				continue
			}
			a := begin()
			later.change(a)
			f.change(a)
			expect(f.what+", and "+later.what, a, f)
		}
	}
}

// unsaid are the faults of requests with a body, before anything is judged.
func unsaid() []fault {
	return []fault{
		{"of another type", 404, "could not be found", func(a *attempt) { a.kind = "text/plain" }},
		{"of no type", 404, "could not be found", func(a *attempt) { a.kind = "" }},
		next,
		{"without a token", 401, "requires user authentication", func(a *attempt) { a.header = text("") }},
		{"with something else for a token", 401, "requires user authentication", func(a *attempt) { a.header = text("a.b.c") }},
		next,
		{"with a body that is too long", 413, "exceeds the limit of 65536 bytes", func(a *attempt) { a.body = text(`"` + strings.Repeat("x", 64<<10) + `"`) }},
		{"with a body that is no JSON", 400, "not JSON", func(a *attempt) { a.body = text("{") }},
		next,
	}
}

// unjudged are the faults that the one judge of invocations finds.
func unjudged(stranger *captest.SessionKey) []fault {
	return []fault{
		{"for another node", 401, "invocation audience does not match this node", func(a *attempt) { a.Token.Audience = string(stranger.DID()) }},
		next,
		{"expired", 401, "Invocation expired or not yet valid", func(a *attempt) { a.Token.Expires = time.Now().Add(-time.Second) }},
		{"not yet valid", 401, "Invocation expired or not yet valid", func(a *attempt) { a.Token.NotBefore = time.Now().Add(30 * time.Second) }},
		next,
		{"forged", 401, "Failed to verify signature", func(a *attempt) { a.Token.Issuer = stranger.URI() }},
		next,
		{"valid for too long", 401, "lifetime exceeds", func(a *attempt) { a.Token.Expires = time.Now().Add(302 * time.Second) }},
		next,
		{"without proofs", 401, "Cannot find parent delegation", func(a *attempt) { a.Token.Proofs = nil }},
		{"with an unknown proof", 401, "Cannot find parent delegation", func(a *attempt) { a.Token.Proofs = []hash{{1}} }},
	}
}

func TestCreateNetworkRefusals(t *testing.T) {
	n := newNode(t, networks)
	c, bob := n.custodian("alice"), n.custodian("bob")
	c.mustCreate("other")
	stranger := captest.NewSession("stranger")
	unhosted := captest.NewSession("unhosted")
	less := c.delegate(c.Key, captest.Caps{c.id: {encryption.AbilityRevoke}})
	faults := append(unsaid(), unjudged(stranger)...)
	faults = append(faults, []fault{
		{"with another's proof", 401, "Unauthorized Invoker", func(a *attempt) { a.Token.Proofs = []hash{c.proof} }},
		{"with a proof of other abilities", 401, "Unauthorized Action: ", func(a *attempt) { a.Token.Proofs = []hash{less} }},
		next,
		{"on another's network", 401, "Unauthorized Action: " + bob.id, func(a *attempt) { a.Token.Caps = captest.Caps{bob.id: {encryption.AbilityCreate}} }},
		{"naming a Space that is not hosted", 401, "Space not found", func(a *attempt) {
			a.Token.Caps = captest.Caps{c.id: {encryption.AbilityCreate}, c.wallet.Space("elsewhere").String() + "/kv/k": {"tinycloud.kv/get"}}
		}},
		next,
		{"with a member twice", 400, "twice", func(a *attempt) { a.body = text(`{"name":"default","name":"default","ownerDid":"x"}`) }},
		{"with a number that is no integer", 400, "no integer", func(a *attempt) { a.Body["x"] = 1.5 }},
		{"without a name", 400, "missing field `name`", func(a *attempt) { delete(a.Body, "name") }},
		{"without an owner", 400, "missing field `ownerDid`", func(a *attempt) { delete(a.Body, "ownerDid") }},
		{"with a number for a name", 400, "invalid type of field `name`", func(a *attempt) { a.Body["name"] = 1 }},
		{"with half a threshold", 400, "missing field `t`", func(a *attempt) { a.Body["threshold"] = map[string]any{"n": 1} }},
		{"with an empty name", 400, "empty network name", func(a *attempt) { a.Body["name"] = "" }},
		{"with a colon in the name", 400, "network name may not contain", func(a *attempt) { a.Body["name"] = "a:b" }},
		{"with capitals in the name", 400, "network name has to match", func(a *attempt) { a.Body["name"] = "Default" }},
		{"with an owner that is no DID", 400, "invalid owner principal", func(a *attempt) { a.Body["ownerDid"] = "did:pkh:eip155:1:0x1" }},
		next,
		{"without facts", 400, "missing encryption invocation facts", func(a *attempt) { a.Token.Facts = []json.RawMessage{[]byte(`{}`)} }},
		{"with facts of no network", 400, "missing encryption invocation facts", func(a *attempt) { a.Facts["networkId"] = "x" }},
		next,
		{"with facts without an action", 400, "missing encryption invocation facts", func(a *attempt) { delete(a.Facts, "action") }},
		next,
		{"with facts of another type", 401, "invocation type is not a decrypt invocation", func(a *attempt) { a.Facts["type"] = "x" }},
		next,
		{"with facts for another node", 401, "invocation target node does not match this node", func(a *attempt) { a.Facts["targetNode"] = string(stranger.DID()) }},
		next,
		{"with facts of another network", 401, "invocation references a different network", func(a *attempt) { a.Facts["networkId"] = bob.id }},
		next,
		{"with facts of another action", 401, "decrypt action not permitted", func(a *attempt) { a.Facts["action"] = encryption.AbilityRevoke }},
		next,
		{"without the capability", 401, "decrypt action not permitted", func(a *attempt) { a.Token.Caps = captest.Caps{c.id: {encryption.AbilityDecrypt}} }},
		next,
		{"with the capability on another network", 401, "invocation references a different network", func(a *attempt) {
			a.Token.Caps = captest.Caps{networktest.ID(c.wallet.DID(), "none"): {encryption.AbilityCreate}}
		}},
		{"with the capability on another network too", 401, "invocation references a different network", func(a *attempt) {
			a.Token.Caps = captest.Caps{c.id: {encryption.AbilityCreate}, networktest.ID(c.wallet.DID(), "none"): {encryption.AbilityCreate}}
		}},
		next,
		{"with another body", 401, "invocation hash mismatch: bodyHash", func(a *attempt) { a.Body["more"] = true }},
		next,
		{"without a nonce", 400, "missing nonce", func(a *attempt) { a.Token.NoNonce = true }},
		next,
		{"with a used nonce", 401, "nonce already used", func(a *attempt) {
			q := c.Create(c.wallet.DID(), "other")
			q.Token.Nonce = a.Token.Nonce
			if got := n.ask("/encryption/networks", q.Header(), q.Text()); got.status != 409 && got.body != "nonce already used" {
				t.Errorf("use a nonce: %d %s", got.status, got.body)
			}
		}},
	}...)
	serial := 0
	testFaults(t, n, func() *attempt {
		q := c.Create(c.wallet.DID(), "default")
		serial++
		q.Token.Nonce = "nonce " + string(rune('A'+serial/1000)) + time.Now().String()
		return &attempt{Request: q, path: "/encryption/networks", kind: "application/json"}
	}, faults)
	q := networktest.Client{Key: unhosted, Node: n.did}.Create(unhosted.DID(), "default")
	n.ask("/encryption/networks", q.Header(), q.Text()).want(t, "an owner who is not hosted", 401, "no space of the owner is hosted here")
	if got := c.create("default"); got.status != 200 {
		t.Errorf("a refused request created something: %d %s", got.status, got.body)
	}
	c.create("default").want(t, "again", 409, "network already exists")
	c.create("other").want(t, "the other again", 409, "network already exists")
	q = c.Create(c.wallet.DID(), "none")
	q.Token.Expires = time.Now().Add(time.Minute)
	header := q.Header()
	if got := n.ask("/encryption/networks", header, " "+strings.ReplaceAll(q.Text(), ",", " , ")); got.status != 200 {
		t.Errorf("spelled otherwise: %d %s", got.status, got.body)
	}
	n.ask("/encryption/networks", header, q.Text()).want(t, "the same token", 401, "nonce already used")
}

func TestDecryptRefusals(t *testing.T) {
	n := newNode(t, networks)
	c, bob := n.custodian("alice"), n.custodian("bob")
	e, _ := encryptFor(t, c.mustCreate("default"))
	foreign, _ := encryptFor(t, c.mustCreate("other"))
	c.mustCreate("ended")
	other, ended, none := networktest.ID(c.wallet.DID(), "other"), networktest.ID(c.wallet.DID(), "ended"), networktest.ID(c.wallet.DID(), "none")
	n.post(networkPath(ended, "/revoke"), c.Revoke(ended).Header()).want(t, "revoke", 204, "")
	stranger := captest.NewSession("stranger")
	less := c.delegate(c.Key, captest.Caps{c.id: {encryption.AbilityRevoke}})
	on := func(a *attempt, id string) {
		a.path = networkPath(id, "/decrypt")
		a.Body["networkId"] = id
		a.Token.Caps = captest.Caps{id: {encryption.AbilityDecrypt}}
		a.Bind()
	}
	// rebound changes the body, and what the token says of it.
	rebound := func(member string, value any) func(*attempt) {
		return func(a *attempt) {
			a.Body[member] = value
			a.Bind()
		}
	}
	fact := func(member string, value any) func(*attempt) { return func(a *attempt) { a.Facts[member] = value } }
	b64 := base64.StdEncoding.EncodeToString
	sealed, err := base64.StdEncoding.DecodeString(e.EncryptedSymmetricKey)
	must(t, err)
	changed := func(i int, to byte) string {
		b := append([]byte(nil), sealed...)
		b[i] = to
		return b64(b)
	}
	faults := append(unsaid(), unjudged(stranger)...)
	faults = append(faults, []fault{
		{"with another's proof", 401, "Unauthorized Invoker", func(a *attempt) { a.Token.Proofs = []hash{c.proof} }},
		{"with a proof of other abilities", 401, "Unauthorized Action: ", func(a *attempt) { a.Token.Proofs = []hash{less} }},
		next,
		{"for what is no network", 400, "missing urn:tinycloud:encryption: prefix", func(a *attempt) { a.path = "/encryption/networks/foo/decrypt" }},
		{"for a network without a name", 400, "empty network name", func(a *attempt) { a.path = "/encryption/networks/urn:tinycloud:encryption:did:key:z:/decrypt" }},
		next,
		{"with a member twice", 400, "twice", func(a *attempt) { a.body = text(`{"type":"a","type":"b"}`) }},
		{"with one more member", 400, "unknown field `x`", func(a *attempt) { a.Body["x"] = 1 }},
		{"with a member less", 400, "missing field `alg`", func(a *attempt) { delete(a.Body, "alg") }},
		{"with a version in a string", 400, "invalid type of field `keyVersion`", func(a *attempt) { a.Body["keyVersion"] = "1" }},
		{"of no network in the body", 400, "networkId", func(a *attempt) { a.Body["networkId"] = "x" }},
		{"that is a list", 400, "not a JSON object", func(a *attempt) { a.body = text("[]") }},
		next,
		{"without facts", 400, "missing encryption invocation facts", func(a *attempt) { a.Token.Facts = []json.RawMessage{[]byte(`1`)} }},
		{"with one fact more", 400, "missing encryption invocation facts", fact("x", "y")},
		{"with facts of no network", 400, "missing encryption invocation facts", fact("networkId", "x")},
		next,
		{"with facts of another type", 401, "invocation type is not a decrypt invocation", fact("type", "x")},
		next,
		{"of another type in the body", 401, "invocation type is not a decrypt invocation", rebound("type", "x")},
		next,
		{"with facts for another node", 401, "invocation target node does not match this node", fact("targetNode", string(stranger.DID()))},
		next,
		{"for another node in the body", 401, "invocation target node does not match this node", rebound("targetNode", string(stranger.DID()))},
		next,
		{"with facts of another network", 401, "invocation references a different network", fact("networkId", bob.id)},
		next,
		{"of another network in the body", 401, "invocation references a different network", rebound("networkId", bob.id)},
		next,
		{"without the capability", 401, "decrypt action not permitted", func(a *attempt) { a.Token.Caps = captest.Caps{c.id: {encryption.AbilityCreate}} }},
		next,
		{"with the capability on another network", 401, "invocation references a different network", func(a *attempt) { a.Token.Caps = captest.Caps{other: {encryption.AbilityDecrypt}} }},
		{"with the capability on another network too", 401, "invocation references a different network", func(a *attempt) {
			a.Token.Caps = captest.Caps{c.id: {encryption.AbilityDecrypt}, none: {encryption.AbilityDecrypt}}
		}},
		next,
		{"for a network that is not", 404, "network not found", func(a *attempt) { on(a, none) }},
		next,
		{"for a network that is revoked", 401, "network has been revoked", func(a *attempt) { on(a, ended) }},
		next,
		{"with facts of another algorithm", 401, "alg / key version does not match", fact("alg", "x")},
		{"by another algorithm in the body", 401, "alg / key version does not match", rebound("alg", "x")},
		{"with facts of another version", 401, "alg / key version does not match", fact("keyVersion", 2)},
		{"of another version in the body", 401, "alg / key version does not match", rebound("keyVersion", 2)},
		next,
		{"with a sealed key that is no base64", 400, "invalid base64", rebound("encryptedSymmetricKey", "*")},
		{"with a sealed key of two spellings", 400, "invalid base64", rebound("encryptedSymmetricKey", "AB==")},
		{"with a receiver in two lines", 400, "invalid base64", rebound("receiverPublicKey", "AAAA\n")},
		next,
		{"with facts of another receiver", 401, "invocation hash mismatch: receiverPublicKeyHash", fact("receiverPublicKeyHash", networktest.Hash("x"))},
		{"with the hash of another receiver", 401, "invocation hash mismatch: receiverPublicKeyHash", func(a *attempt) { a.Body["receiverPublicKeyHash"] = "x" }},
		next,
		{"with facts of another key", 401, "invocation hash mismatch: encryptedSymmetricKeyHash", fact("encryptedSymmetricKeyHash", networktest.Hash("x"))},
		{"with the hash of another key", 401, "invocation hash mismatch: encryptedSymmetricKeyHash", func(a *attempt) { a.Body["encryptedSymmetricKeyHash"] = "x" }},
		next,
		{"with facts of another body", 401, "invocation hash mismatch: bodyHash", fact("bodyHash", networktest.Hash("x"))},
		next,
		{"without a sealed key", 400, "no known form", rebound("encryptedSymmetricKey", "")},
		{"with a sealed key that is too short", 400, "no known form", rebound("encryptedSymmetricKey", b64(sealed[:60]))},
		{"with a sealed key without a version", 400, "no known form", rebound("encryptedSymmetricKey", changed(32, 0))},
		{"with a sealed key that is not whole", 400, "does not open", rebound("encryptedSymmetricKey", b64(sealed[:92]))},
		{"with a sealed key that was changed", 400, "does not open", rebound("encryptedSymmetricKey", changed(92, sealed[92]^1))},
		{"sealed to another network", 400, "does not open", rebound("encryptedSymmetricKey", foreign.EncryptedSymmetricKey)},
		{"sealed from a point of small order", 400, "invalid public key", rebound("encryptedSymmetricKey", b64(append(make([]byte, 32), sealed[32:]...)))},
		{"with a sealed key that is too long", 400, "at most 4096", rebound("encryptedSymmetricKey", b64(make([]byte, 4097)))},
	}...)
	begin := func() *attempt {
		q, _ := c.Decrypt(c.id, 1, e.EncryptedSymmetricKey)
		return &attempt{Request: q, path: networkPath(c.id, "/decrypt"), kind: "application/json; charset=utf-8"}
	}
	testFaults(t, n, begin, faults)
	for what, receiver := range map[string]string{"none": "", "short": b64(make([]byte, 31)), "of small order": b64(make([]byte, 32)), "long": b64(make([]byte, 33))} {
		a := begin()
		rebound("receiverPublicKey", receiver)(a)
		a.send(n).want(t, "receiver: "+what, 400, "invalid public key")
	}
	if got := begin().send(n); got.status != 200 {
		t.Errorf("without a fault: %d %s", got.status, got.body)
	}
}

func TestRevokeNetworkRefusals(t *testing.T) {
	n := newNode(t, networks)
	c, bob := n.custodian("alice"), n.custodian("bob")
	c.mustCreate("default")
	stranger := captest.NewSession("stranger")
	faults := append([]fault{
		{"without a token", 401, "requires user authentication", func(a *attempt) { a.header = text("") }},
	}, unjudged(stranger)...)
	faults = append(faults, []fault{
		{"for what is no network", 400, "missing urn:tinycloud:encryption: prefix", func(a *attempt) { a.path = "/encryption/networks/foo/revoke" }},
		{"without facts", 400, "missing encryption invocation facts", func(a *attempt) { a.Token.Facts = []json.RawMessage{[]byte(`{}`)} }},
		{"with facts of another type", 401, "invocation type is not a decrypt invocation", func(a *attempt) { a.Facts["type"] = "x" }},
		next,
		{"with facts for another node", 401, "invocation target node does not match this node", func(a *attempt) { a.Facts["targetNode"] = string(stranger.DID()) }},
		next,
		{"with facts of another network", 401, "invocation references a different network", func(a *attempt) { a.Facts["networkId"] = bob.id }},
		next,
		{"with facts of another action", 401, "decrypt action not permitted", func(a *attempt) { a.Facts["action"] = encryption.AbilityCreate }},
		next,
		{"without the capability", 401, "decrypt action not permitted", func(a *attempt) { a.Token.Caps = captest.Caps{c.id: {encryption.AbilityDecrypt}} }},
		next,
		{"with facts of another body", 401, "invocation hash mismatch: bodyHash", func(a *attempt) { a.Facts["bodyHash"] = networktest.Hash("x") }},
		next,
		{"without a nonce", 400, "missing nonce", func(a *attempt) { a.Token.NoNonce = true }},
		next,
	}...)
	testFaults(t, n, func() *attempt {
		return &attempt{Request: c.Revoke(c.id), path: networkPath(c.id, "/revoke")}
	}, faults)
	none := networktest.ID(c.wallet.DID(), "none")
	n.post(networkPath(none, "/revoke"), c.Revoke(none).Header()).want(t, "what is not", 404, "network not found")
	if got := n.do(n.request("GET", networkPath(c.id, ""), "", nil, nil)); !strings.Contains(got.body, `"state":"active"`) {
		t.Errorf("a refused request revoked: %s", got.body)
	}
	q := c.Revoke(c.id)
	q.Token.Nonce, q.Token.Expires = "once", time.Now().Add(time.Minute)
	n.post(networkPath(c.id, "/revoke"), q.Header()).want(t, "revoke", 204, "")
	n.post(networkPath(c.id, "/revoke"), q.Header()).want(t, "the same again", 401, "nonce already used")
	n.post(networkPath(c.id, "/revoke"), c.Revoke(c.id).Header()).want(t, "again", 204, "")
	if got := n.do(n.request("GET", networkPath(c.id, ""), "", nil, nil)); got.status != 200 || !strings.Contains(got.body, `"state":"revoked"`) {
		t.Errorf("revoked: %d %s", got.status, got.body)
	}
	c.create("default").want(t, "create again", 409, "network already exists")
}
