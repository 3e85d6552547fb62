package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
)

// vault is what an app does with secrets, as the SDK does it.
type vault struct {
	n      *node
	wallet *captest.Wallet
	space  string
	id     string // of the owner's network
	networktest.Client
}

// signIn has a wallet sign its session for its Space of secrets and its network at once, and host the Space.
func (n *node) signIn(seed string) *vault {
	n.t.Helper()
	w, key := captest.NewWallet(seed), captest.NewSession(seed)
	space := w.Space("secrets")
	v := &vault{n: n, wallet: w, space: space.String(), id: networktest.ID(w.DID(), "default"), Client: networktest.Client{Key: key, Node: n.did}}
	session := w.SignDelegation(captest.DelegationOptions{Audience: key.URI(), Expires: time.Now().Add(time.Hour), Caps: captest.Caps{
		v.space + "/kv": kvAbilities, v.id: {encryption.AbilityDecrypt, encryption.AbilityCreate},
	}})
	if got := n.post("/delegate", w.SignHost(space, n.hostDID(space))); got.status != 200 {
		n.t.Fatal(got.status, got.body)
	}
	n.post("/delegate", session).want(n.t, "sign in", 200, `{"cid":"`+captest.ID(session).EventID()+`","activated":["`+v.space+`"],"skipped":[]}`)
	v.Proofs = []hash{captest.ID(session)}
	return v
}

// as is the same vault for another key with its proof.
func (v *vault) as(key *captest.SessionKey, proof hash) *vault {
	other := *v
	other.Client = networktest.Client{Key: key, Proofs: []hash{proof}, Node: v.Node}
	return &other
}

func (v *vault) kv(ability, name, body string) answer {
	v.n.t.Helper()
	header := v.Key.Invoke(captest.TokenOptions{Caps: captest.Caps{v.space + "/kv/vault/secrets/" + name: {ability}}, Proofs: v.Proofs})
	return v.n.do(v.n.request(http.MethodPost, "/invoke", header, map[string]string{"Content-Type": "text/plain;charset=UTF-8"}, strings.NewReader(body)))
}

func (v *vault) put(name, secret string) {
	v.n.t.Helper()
	descriptor := v.n.do(v.n.request("GET", networkPath(v.id, ""), "", nil, nil))
	e, _, err := networktest.Encrypt(descriptor.body, []byte(secret))
	must(v.n.t, err)
	if got := v.kv("tinycloud.kv/put", name, string(networktest.Canonical(e))); got.status != 200 {
		v.n.t.Fatal(got.status, got.body)
	}
}

// open reads and decrypts a secret by a route.
func (v *vault) open(name, path string) (string, answer) {
	v.n.t.Helper()
	got := v.kv("tinycloud.kv/get", name, "")
	if got.status != 200 {
		return "", got
	}
	var e networktest.Envelope
	must(v.n.t, json.Unmarshal([]byte(got.body), &e))
	q, receiver := v.Decrypt(e.NetworkID, e.KeyVersion, e.EncryptedSymmetricKey)
	q.Token.Expires = time.Now().Add(time.Minute)
	header := q.Header()
	got = v.n.ask(path, header, q.Text())
	if got.status != 200 {
		return "", got
	}
	data, err := receiver.Open(q, header, got.body)
	must(v.n.t, err)
	secret, err := e.Text(data)
	must(v.n.t, err)
	return secret, got
}

func (v *vault) opens(t *testing.T, what, want string) {
	t.Helper()
	for _, path := range []string{networkPath(v.id, "/decrypt"), "/invoke"} {
		if secret, got := v.open("API_KEY", path); secret != want {
			t.Errorf("%s by %s: %q, %d %s", what, path, secret, got.status, got.body)
		}
	}
}

func (v *vault) isRefused(t *testing.T, what, text string) {
	t.Helper()
	for path, status := range map[string]int{networkPath(v.id, "/decrypt"): 401, "/invoke": 403} {
		_, got := v.open("API_KEY", path)
		got.want(t, what+" by "+path, status, text)
	}
}

// grant delegates for a while; activated are the Spaces that the delegation names, as JSON.
func (v *vault) grant(key *captest.SessionKey, life time.Duration, caps captest.Caps, activated string) hash {
	v.n.t.Helper()
	header := v.Key.Delegate(key.DID(), captest.TokenOptions{Caps: caps, Proofs: v.Proofs, Expires: time.Now().Add(life)})
	id := captest.ID(header)
	v.n.post("/delegate", header).want(v.n.t, "delegate", 200, `{"cid":"`+id.EventID()+`","activated":[`+activated+`],"skipped":[]}`)
	return id
}

func TestSecrets(t *testing.T) {
	n := newNode(t, networks)
	alice := n.signIn("alice")
	n.do(n.request("GET", networkPath(alice.id, ""), "", nil, nil)).want(t, "before", 404, "network not found")
	q := alice.Create(alice.wallet.DID(), "default")
	created := n.ask("/encryption/networks", q.Header(), q.Text())
	if created.status != 200 {
		t.Fatal(created.status, created.body)
	}
	q = alice.Create(alice.wallet.DID(), "default")
	n.ask("/encryption/networks", q.Header(), q.Text()).want(t, "again", 409, "network already exists")
	n.do(n.request("GET", networkPath(alice.id, ""), "", nil, nil)).want(t, "after 409", 200, created.body)
	const secret = `{"value":"s3cret <&>","createdAt":"2026-08-21T00:00:00.000Z"}`
	alice.put("API_KEY", secret)
	alice.opens(t, "the owner", secret)

	get := alice.space + "/kv/vault/secrets/API_KEY"
	backend, partner := captest.NewSession("backend"), captest.NewSession("partner")
	granted := alice.grant(backend, 30*time.Minute, captest.Caps{get: {"tinycloud.kv/get"}, alice.id: {encryption.AbilityDecrypt}}, `"`+alice.space+`"`)
	b := alice.as(backend, granted)
	b.opens(t, "a delegate", secret)
	p := alice.as(partner, b.grant(partner, 20*time.Minute, captest.Caps{get: {"tinycloud.kv/get"}, alice.id: {encryption.AbilityDecrypt}}, `"`+alice.space+`"`))
	p.opens(t, "who has it of a delegate", secret)

	reader := captest.NewSession("reader")
	r := alice.as(reader, alice.grant(reader, time.Minute, captest.Caps{get: {"tinycloud.kv/get"}}, `"`+alice.space+`"`))
	r.isRefused(t, "who may only read", "Unauthorized Action: "+alice.id+" / tinycloud.encryption/decrypt")
	alone := alice.grant(reader, time.Minute, captest.Caps{alice.id: {encryption.AbilityDecrypt}}, "")
	both := alice.as(reader, alone)
	both.Proofs = append(both.Proofs, r.Proofs...)
	both.opens(t, "who has two delegations", secret)

	limited := captest.NewSession("limited")
	header := alice.Key.Delegate(limited.DID(), captest.TokenOptions{
		Caps: captest.Caps{alice.id: {encryption.AbilityDecrypt}}, Caveats: `[{"only":"x"}]`, Proofs: alice.Proofs, Expires: time.Now().Add(time.Minute),
	})
	if got := n.post("/delegate", header); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	l := alice.as(limited, captest.ID(header))
	ask, _ := l.Decrypt(alice.id, 1, "AAAA")
	n.ask(networkPath(alice.id, "/decrypt"), ask.Header(), ask.Text()).want(t, "beyond a caveat", 401,
		"invocation-caveats-not-subset-of-chain: "+alice.id+" / tinycloud.encryption/decrypt")

	n.post("/revoke", alice.wallet.SignRevocation(granted)).want(t, "revoke", 200, revoked(granted))
	for what, x := range map[string]*vault{"delegation-revoked: " + granted.EventID(): b, "delegation-ancestor-revoked: ancestor=" + granted.EventID() + " invoked=" + p.Proofs[0].EventID(): p} {
		d, _ := x.Decrypt(alice.id, 1, "AAAA")
		n.ask(networkPath(alice.id, "/decrypt"), d.Header(), d.Text()).want(t, "revoked", 401, what)
		d, _ = x.Decrypt(alice.id, 1, "AAAA")
		n.ask("/invoke", d.Header(), d.Text()).want(t, "revoked, by /invoke", 403, what)
	}
	n.post("/revoke", alice.Key.Revoke(alone, captest.TokenOptions{})).want(t, "revoke what names the network alone", 200, revoked(alone))
	d, _ := both.Decrypt(alice.id, 1, "AAAA")
	n.ask(networkPath(alice.id, "/decrypt"), d.Header(), d.Text()).want(t, "by a revoked delegation of the network alone", 401, "delegation-revoked: "+alone.EventID())
	alice.opens(t, "the owner still", secret)

	// Another's secrets stay his, though both have a network of the same name here.
	bob := n.signIn("bob")
	q = bob.Create(bob.wallet.DID(), "default")
	if got := n.ask("/encryption/networks", q.Header(), q.Text()); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	d, _ = bob.Decrypt(alice.id, 1, "AAAA")
	n.ask(networkPath(alice.id, "/decrypt"), d.Header(), d.Text()).want(t, "another owner", 401, "Unauthorized Action: "+alice.id+" / tinycloud.encryption/decrypt")
	q = bob.Create(alice.wallet.DID(), "second")
	n.ask("/encryption/networks", q.Header(), q.Text()).want(t, "create for another", 401,
		"Unauthorized Action: "+networktest.ID(alice.wallet.DID(), "second")+" / tinycloud.encryption/network.create")
}

// TestDecryptRepeats answers the same request the same way until it has ended, and to nobody else.
func TestDecryptRepeats(t *testing.T) {
	n := newNode(t, networks)
	c := n.custodian("alice")
	e, data := encryptFor(t, c.mustCreate("default"))
	q, receiver := c.Decrypt(c.id, 1, e.EncryptedSymmetricKey)
	q.Token.Expires = time.Now().Add(time.Minute)
	q.Token.Nonce = "one"
	header := q.Header()
	for range 3 {
		got := n.ask(networkPath(c.id, "/decrypt"), header, " "+q.Text()+"\n")
		opened, err := receiver.Open(q, header, got.body)
		if err != nil || string(opened) != string(data) {
			t.Errorf("%d %s: %v", got.status, got.body, err)
		}
		_, thief := c.Decrypt(c.id, 1, e.EncryptedSymmetricKey)
		if stolen, err := thief.Open(q, header, got.body); err == nil {
			t.Errorf("opened with another key: %x", stolen)
		}
	}
}

func TestConcurrentCreates(t *testing.T) {
	n := newNode(t, networks)
	c := n.custodian("alice")
	var group sync.WaitGroup
	var won, lost atomic.Int32
	for range 12 {
		q := c.Create(c.wallet.DID(), "default")
		header, body := q.Header(), q.Text()
		group.Go(func() {
			r, err := http.NewRequest(http.MethodPost, n.server.URL+"/encryption/networks", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", header)
			r.Header.Set("Content-Type", "application/json")
			resp, err := n.server.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			check(t, resp.Body.Close())
			switch resp.StatusCode {
			case 200:
				won.Add(1)
			case 409:
				lost.Add(1)
			default:
				t.Error(resp.Status)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 || lost.Load() != 11 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
}
