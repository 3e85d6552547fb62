package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// TestCaveatsInMessage is about CACAOs: their caveats can only say nothing.
func TestCaveatsInMessage(t *testing.T) {
	n := newNode(t)
	tr := newTranslation(t)
	space := "tinycloud:pkh:eip155:1:" + alice + ":default"
	wallet := tr.wallets[alice]
	if got := n.post("/delegate", wallet.SignHost(wallet.Space("default"), n.hostDID(wallet.Space("default")))); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	for list, status := range map[string]int{
		`[{}]`: 200, `[{},{}]`: 200, `[{"maxBytes":null}]`: 200, `[{"maxBytes":10}]`: 401, `[{},{"a":{}}]`: 401, `[]`: 401, `{}`: 401, `[1]`: 401,
	} {
		key := captest.NewSession("message " + list)
		recap := `{"att":{"` + space + `/kv":{"tinycloud.kv/get":` + list + `}},"prf":[]}`
		header := tr.cacao(exchange{Signed: "a.example wants you to sign in with your Ethereum account:\n" + alice +
			"\n\nI further authorize the stated URI to perform the following actions on my behalf: (1) 'tinycloud.kv': 'get' for '" + space + "/kv'." +
			"\n\nURI: " + key.URI() + "\nVersion: 1\nChain ID: 1\nNonce: n0123456789\nIssued At: " + recordedAt +
			"\nResources:\n- urn:recap:" + base64.RawURLEncoding.EncodeToString([]byte(recap))})
		if got := n.post("/delegate", header); got.status != status {
			t.Errorf("%s: %d %s, want %d", list, got.status, got.body, status)
		}
		if status != 200 {
			continue
		}
		n.post("/invoke", key.Invoke(captest.TokenOptions{
			Caps: captest.Caps{wallet.Space("default").String() + "/kv/k": {"tinycloud.kv/get"}}, Proofs: []hash{captest.ID(header)},
		})).want(t, "get under "+list, 404, "Key not found")
	}
}

const (
	kvCaveat  = `[{"maxBytes":10,"note":"a"}]`
	kvRespelt = `[ {"note":"\u0061", "maxBytes":10} ]` // the same
	sqlCaveat = `[{"statements":[{"name":"top","sql":"SELECT 1"}]}]`
)

// share passes an ability on under caveats.
func (o *owner) share(to *captest.SessionKey, path, ability, list string) hash {
	o.n.t.Helper()
	header := o.session.Delegate(to.DID(), captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/" + path: {ability}}, Caveats: list, Proofs: o.proofs(),
		Expires: time.Now().Add(30 * time.Minute).Truncate(time.Second),
	})
	if got := o.n.post("/delegate", header); got.status != 200 {
		o.n.t.Fatal(got.status, got.body)
	}
	return captest.ID(header)
}

func TestCaveatsOfParent(t *testing.T) {
	n := newNode(t)
	o := n.owner("caveats")
	o.put("x", "v", nil).want(t, "put", 200, "")
	for _, tt := range []struct {
		name, path, ability, parent string
		status                      int
		body                        string // of an invocation that is let through
	}{
		{"kv", "kv/x", "tinycloud.kv/get", kvCaveat, 200, "v"},
		{"sql", "sql/db", "tinycloud.sql/read", sqlCaveat, 501, "SQL support is not enabled on this node"},
		{"none", "kv/x", "tinycloud.kv/get", `[{}]`, 200, "v"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			friend, far := captest.NewSession("friend "+tt.name), captest.NewSession("far "+tt.name)
			proof := o.share(friend, tt.path, tt.ability, tt.parent)
			resource := o.space.String() + "/" + tt.path
			same := []string{tt.parent}
			if tt.parent == kvCaveat {
				same = append(same, kvRespelt)
			}
			other := []string{`[{}]`, `[{},{}]`, `[{"maxBytes":9,"note":"a"}]`, `[{"maxBytes":10.0,"note":"a"}]`, `[{"maxBytes":10}]`, strings.TrimSuffix(tt.parent, "]") + `,{}]`}
			if tt.name == "none" {
				same, other = append(other[:5:5], kvCaveat, sqlCaveat), nil // anything is narrower than nothing
			}
			ask := func(list string) (delegated, invoked answer) {
				o := captest.TokenOptions{
					Caps: captest.Caps{resource: {tt.ability}}, Caveats: list, Proofs: []hash{proof}, Expires: time.Now().Add(time.Minute),
				}
				return n.post("/delegate", friend.Delegate(far.DID(), o)), n.post("/invoke", friend.Invoke(o))
			}
			for _, list := range same {
				delegated, invoked := ask(list)
				if delegated.status != 200 {
					t.Errorf("child with %s: %d %s", list, delegated.status, delegated.body)
				}
				invoked.want(t, "invocation with "+list, tt.status, tt.body)
			}
			for _, list := range other {
				delegated, invoked := ask(list)
				delegated.want(t, "child with "+list, 401, "child-caveats-not-subset-of-parent: "+resource+" / "+tt.ability)
				invoked.want(t, "invocation with "+list, 401, "invocation-caveats-not-subset-of-chain: "+resource+" / "+tt.ability)
			}
		})
	}
}

// TestListUnderCaveats shows that a proof whose caveats an invocation does not repeat widens nothing.
func TestListUnderCaveats(t *testing.T) {
	n := newNode(t)
	o := n.owner("list caveats")
	for _, key := range []string{"x", "x/1", "xy"} {
		o.put(key, "v", nil).want(t, "put", 200, "")
	}
	friend := captest.NewSession("friend")
	narrow := o.share(friend, "kv/x", "tinycloud.kv/list", `[{}]`)
	wide := o.share(friend, "kv", "tinycloud.kv/list", kvCaveat)
	list := func(caveats string, proofs ...hash) answer {
		return n.post("/invoke", friend.Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/list"}}, Caveats: caveats, Proofs: proofs,
		}))
	}
	list(`[{}]`, narrow).want(t, "narrow", 200, `["x","x/1"]`)
	list(`[{}]`, narrow, wide).want(t, "narrow beside the wide", 200, `["x","x/1"]`)
	list(kvRespelt, wide).want(t, "wide with its caveats", 200, `["x","x/1","xy"]`)
	list(`[{}]`, wide).want(t, "wide without", 401, "invocation-caveats-not-subset-of-chain: "+o.space.String()+"/kv/x / tinycloud.kv/list")
}

func TestCaveatsAreShown(t *testing.T) {
	n, clock := newNode(t), &shift{}
	o := n.owner("shown")
	friend, far := captest.NewSession("friend"), captest.NewSession("far")
	parent := o.share(friend, "kv/x", "tinycloud.kv/get", `[{"b":[1],"a":"<&>"},{"c":true}]`)
	header := friend.Delegate(far.DID(), captest.TokenOptions{
		Caps: captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/get"}}, Caveats: `[{"b":[1],"a":"<&>"},{"c":true}]`, Proofs: []hash{parent},
		Expires: time.Now().Add(time.Minute).Truncate(time.Second),
	})
	if got := n.post("/delegate", header); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	child := captest.ID(header)
	type delegation struct {
		Delegate     string
		Capabilities []struct {
			Resource, Ability string
			Caveats           json.RawMessage
		}
	}
	read := func(params string, out any) {
		t.Helper()
		got := n.post("/invoke", o.session.Invoke(captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/capabilities/all": {"tinycloud.capabilities/read"}}, Proofs: o.proofs(),
			Facts: []json.RawMessage{json.RawMessage(`{"capabilitiesReadParams":` + params + `}`)},
		}))
		if err := json.Unmarshal([]byte(got.body), out); err != nil || got.status != 200 {
			t.Fatalf("%s: %d %s", params, got.status, got.body)
		}
	}
	const shown = `{"0":{"a":"<&>","b":[1]},"1":{"c":true}}`
	all := map[string]delegation{}
	read(`{"type":"list","filters":{"path":"x","actions":["tinycloud.kv/get"]}}`, &all)
	for _, id := range []hash{parent, child} {
		d := all[id.EventID()]
		if len(d.Capabilities) != 1 || string(d.Capabilities[0].Caveats) != shown {
			t.Errorf("%+v", d)
		}
	}
	if len(all) != 2 {
		t.Errorf("%d delegations below x", len(all))
	}
	var chain []delegation
	read(`{"type":"chain","delegation_cid":"`+child.EventID()+`"}`, &chain)
	var delegates []string
	for _, d := range chain {
		delegates = append(delegates, d.Delegate)
	}
	if diff := cmp.Diff([]string{string(far.DID()), string(friend.DID()), string(o.session.DID())}, delegates); diff != "" {
		t.Error(diff)
	}
	if len(chain) == 3 && (string(chain[0].Capabilities[0].Caveats) != shown || string(chain[2].Capabilities[0].Caveats) != `{}`) {
		t.Errorf("%+v", chain)
	}
	h := o.holder("lister", clock, "tinycloud.delegation/list")
	for _, r := range h.query(o, `{}`).Items {
		if r.CID == parent.EventID() && (len(r.Resources) != 1 || len(r.Resources[0].Caveats) != 1 || string(r.Resources[0].Caveats[0]) != shown) {
			t.Errorf("%+v", r.Resources)
		}
	}
	n.post("/revoke", friend.Revoke(parent, captest.TokenOptions{})).want(t, "revoke", 200, `{"revoked":true,"cid":"`+parent.EventID()+`"}`)
	read(`{"type":"chain","delegation_cid":"`+child.EventID()+`"}`, &chain)
	if len(chain) != 1 {
		t.Errorf("chain of %d beyond a revoked parent", len(chain))
	}
}
