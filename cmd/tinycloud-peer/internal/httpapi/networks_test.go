package httpapi_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
)

func networks(_ *capstore.Options, o *httpapi.Options) { o.Networks = withNetworks }

// custodian is an owner's session that may do everything with some networks.
type custodian struct {
	*owner
	networktest.Client
	id string // of the network "default"
}

var networkAbilities = []string{encryption.AbilityCreate, encryption.AbilityDecrypt, encryption.AbilityRevoke}

func (n *node) custodian(seed string) *custodian {
	n.t.Helper()
	o := n.owner(seed)
	caps := captest.Caps{o.wallet.Space("elsewhere").String() + "/kv": kvAbilities}
	for _, name := range []string{"default", "none", "other", "ended"} {
		caps[networktest.ID(o.wallet.DID(), name)] = networkAbilities
	}
	key := captest.NewSession(seed + " networks")
	c := &custodian{owner: o, Client: networktest.Client{Key: key, Node: n.did}, id: networktest.ID(o.wallet.DID(), "default")}
	c.Proofs = []hash{o.delegate(key, caps)}
	return c
}

func (c *custodian) create(name string) answer {
	c.n.t.Helper()
	q := c.Create(c.wallet.DID(), name)
	return c.n.ask("/encryption/networks", q.Header(), q.Text())
}

func (c *custodian) mustCreate(name string) string {
	c.n.t.Helper()
	got := c.create(name)
	if got.status != 200 {
		c.n.t.Fatalf("create: %d %s", got.status, got.body)
	}
	return got.body
}

func networkPath(id, does string) string { return "/encryption/networks/" + url.PathEscape(id) + does }

func encryptFor(t *testing.T, descriptor string) (networktest.Envelope, []byte) {
	t.Helper()
	e, data, err := networktest.Encrypt(descriptor, []byte("s3cret"))
	must(t, err)
	return e, data
}

func TestDescribeNetwork(t *testing.T) {
	n := newNode(t, networks)
	c := n.custodian("alice")
	made := c.mustCreate("default")
	get := func(path string) answer { return n.do(n.request("GET", path, "", nil, nil)) }
	get(networkPath(c.id, "")).want(t, "percent-encoded", 200, made)
	get("/encryption/networks/"+c.id).want(t, "as it is", 200, made)
	get("/encryption/networks/"+strings.ToLower(c.id)).want(t, "the address in lower case", 200, made)
	var d struct{ Descriptor map[string]any }
	must(t, json.Unmarshal([]byte(made), &d))
	x := d.Descriptor
	for name, want := range map[string]any{
		"networkId": c.id, "ownerDid": string(c.wallet.DID()), "name": "default", "state": "active", "alg": "x25519-aes256gcm/v1",
		"keyVersion": 1.0, "keyBackend": "local-one-of-one",
	} {
		if x[name] != want {
			t.Errorf("%s: %v, want %v", name, x[name], want)
		}
	}
	if len(x) != 12 || !strings.Contains(made, `"members":[{"nodeId":"`+n.did+`","role":"primary"}],"threshold":{"n":1,"t":1}`) {
		t.Errorf("descriptor %s", made)
	}
	record := `{"networkId":"` + c.id + `","ownerDid":"` + string(c.wallet.DID()) + `","name":"default","alg":"x25519-aes256gcm/v1","keyVersion":1,"publicEncryptionKey":"` +
		x["publicEncryptionKey"].(string) + `","state":"active","keyBackend":"local-one-of-one"}`
	well := "/.well-known/encryption/network/default"
	get(well+"?ownerDid="+url.QueryEscape(string(c.wallet.DID()))).want(t, "discover", 200, record)
	for _, tt := range []struct {
		path   string
		status int
		text   string
	}{
		{well, 404, "network not found"},
		{well + "?ownerDid=did:key:z6Mkother", 404, "network not found"},
		{well + "?ownerDid=", 400, "empty owner DID"},
		{well + "?ownerDid=did:pkh:eip155:1:0x1", 400, "invalid owner principal: not a DID"},
		{"/.well-known/encryption/network/a%3Ab?ownerDid=did:key:z6Mk", 400, "network name may not contain ':' or '/'"},
		{"/.well-known/encryption/network/a%2Fb?ownerDid=did:key:z6Mk", 400, "network name may not contain ':' or '/'"},
		{"/.well-known/encryption/network/?ownerDid=did:key:z6Mk", 400, "empty network name"},
		{networkPath(networktest.ID(c.wallet.DID(), "none"), ""), 404, "network not found"},
		{"/encryption/networks/foo", 400, "missing urn:tinycloud:encryption: prefix"},
		{"/encryption/networks/urn:tinycloud:encryption:foo", 400, "missing owner DID/name separator"},
		{"/encryption/networks/urn:tinycloud:encryption::foo", 400, "empty owner DID"},
		{"/encryption/networks/urn:tinycloud:encryption:did:key:z6M:", 400, "empty network name"},
		{"/encryption/networks/urn:tinycloud:encryption:did:key:z6M:a%2Fb", 400, "network name may not contain ':' or '/'"},
		{"/encryption/networks/urn:tinycloud:encryption:bare:foo", 404, "network not found"},
		{"/encryption/networks/urn:tinycloud:encryption:did:key:z%20:foo", 400, "invalid owner principal: not a DID"},
		{"/encryption/networks/", 404, "The requested resource could not be found."},
		{"/encryption/networks", 404, "The requested resource could not be found."},
		{"/encryption/networksx", 404, "The requested resource could not be found."},
		{networkPath(c.id, "/other"), 404, "The requested resource could not be found."},
		{networkPath(c.id, "/decrypt"), 404, "The requested resource could not be found."},
		{networkPath(c.id, "/decrypt/x"), 404, "The requested resource could not be found."},
	} {
		get(tt.path).want(t, tt.path, tt.status, tt.text)
	}
	if got := get("/encryption/networks/urn:tinycloud:encryption:did:key:" + strings.Repeat("z", 2000) + ":a"); got.status != 400 {
		t.Errorf("long id: %d %s", got.status, got.body)
	}
	n.do(n.request("HEAD", networkPath(c.id, ""), "", nil, nil)).want(t, "HEAD", 200, "")
	n.do(n.request("OPTIONS", networkPath(c.id, "/decrypt"), "", nil, nil)).want(t, "OPTIONS", 200, "")
	get("/attestation").want(t, "attestation", 200, `{"mode":"classic","message":"This instance is not running in a TEE"}`)
	get("/attestation?nonce=1").want(t, "attestation with a nonce", 200, `{"mode":"classic","message":"This instance is not running in a TEE"}`)
	if got := get("/info"); !strings.Contains(got.body, `"signed-urls","encryption"],"nodeId":"`+n.did+`"`) {
		t.Errorf("info: %s", got.body)
	}
}

func TestInvokeDecrypt(t *testing.T) {
	n := newNode(t, networks)
	c := n.custodian("alice")
	e, data := encryptFor(t, c.mustCreate("default"))
	ask := func(q *networktest.Request) answer { return n.ask("/invoke", q.Header(), q.Text()) }
	begin := func() (*networktest.Request, networktest.Receiver) {
		return c.Decrypt(c.id, 1, e.EncryptedSymmetricKey)
	}

	q, receiver := begin()
	q.Token.Expires, q.Token.Nonce = time.Now().Add(time.Minute), "same"
	n.ask("/invoke", q.Header(), "{").want(t, "no JSON", 400, "The body is not JSON")
	n.ask("/invoke", q.Header(), "{}").want(t, "no request", 403, "request body is malformed: missing field `type`")
	got := ask(q)
	if opened, err := receiver.Open(q, q.Header(), got.body); err != nil || string(opened) != string(data) {
		t.Errorf("what was refused before: %d %s, %v", got.status, got.body, err)
	}
	ask(q).want(t, "again", 409, "duplicate invocation")

	for _, tt := range []struct {
		what   string
		status int
		text   string
		change func(q *networktest.Request)
	}{
		{"valid for too long", 401, "lifetime exceeds", func(q *networktest.Request) { q.Token.Expires = time.Now().Add(302 * time.Second) }},
		{"expired", 401, "Invocation expired", func(q *networktest.Request) { q.Token.Expires = time.Now().Add(-time.Second) }},
		{"forged", 401, "verify signature", func(q *networktest.Request) { q.Token.Issuer = captest.NewSession("x").URI() }},
		{"for another", 403, "audience", func(q *networktest.Request) { q.Token.Audience = string(c.Key.DID()) }},
		{"without proofs", 403, "Cannot find parent delegation", func(q *networktest.Request) { q.Token.Proofs = nil }},
		{"on two networks", 403, "decrypt invocation contains multiple networks", func(q *networktest.Request) {
			q.Token.Caps[networktest.ID(c.wallet.DID(), "none")] = []string{encryption.AbilityDecrypt}
		}},
		{"on none that is here", 403, "network not found", func(q *networktest.Request) {
			id := networktest.ID(c.wallet.DID(), "none")
			q.Token.Caps, q.Body["networkId"] = captest.Caps{id: {encryption.AbilityDecrypt}}, id
			q.Bind()
		}},
		{"of another network in the body", 403, "different network", func(q *networktest.Request) {
			q.Body["networkId"] = networktest.ID(c.wallet.DID(), "none")
			q.Bind()
		}},
		{"with another body", 403, "hash mismatch: bodyHash", func(q *networktest.Request) { q.Facts["bodyHash"] = "x" }},
		{"without facts", 403, "missing encryption invocation facts", func(q *networktest.Request) { q.Token.Facts = []json.RawMessage{[]byte("{}")} }},
		{"with a sealed key that does not open", 403, "no known form", func(q *networktest.Request) {
			q.Body["encryptedSymmetricKey"] = "AAAA"
			q.Bind()
		}},
		{"naming a Space that is not hosted", 403, "Space not found", func(q *networktest.Request) {
			q.Token.Caps[c.wallet.Space("elsewhere").String()+"/kv/k"] = []string{"tinycloud.kv/get"}
		}},
	} {
		q, _ := begin()
		tt.change(q)
		if got := ask(q); got.status != tt.status || !strings.Contains(got.body, tt.text) {
			t.Errorf("%s: %d %q, want %d %q", tt.what, got.status, got.body, tt.status, tt.text)
		}
	}
}

func TestNetworksOff(t *testing.T) {
	n := newNode(t)
	for _, path := range []string{"/encryption/networks/urn:tinycloud:encryption:did:key:z6M:a", "/.well-known/encryption/network/default?ownerDid=did:key:z6M"} {
		n.do(n.request("GET", path, "", nil, nil)).want(t, path, 404, "The requested resource could not be found.")
	}
}

// TestNetworksWithoutDatabase: what can't be written down is refused for now, and not as if it were not permitted.
func TestNetworksWithoutDatabase(t *testing.T) {
	n := newNode(t, networks)
	c := n.custodian("alice")
	e, _ := encryptFor(t, c.mustCreate("default"))
	n.stop()
	q, _ := c.Decrypt(c.id, 1, e.EncryptedSymmetricKey)
	for _, path := range []string{networkPath(c.id, "/decrypt"), "/invoke"} {
		if got := n.ask(path, q.Header(), q.Text()); got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := c.create("other"); got.status != 503 {
		t.Errorf("create: %d %s", got.status, got.body)
	}
	if got := n.post(networkPath(c.id, "/revoke"), c.Revoke(c.id).Header()); got.status != 503 {
		t.Errorf("revoke: %d %s", got.status, got.body)
	}
}
