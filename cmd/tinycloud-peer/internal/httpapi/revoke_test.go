package httpapi_test

import (
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

func revoked(id hash) string { return `{"revoked":true,"cid":"` + id.EventID() + `"}` }

func TestWhoMayRevoke(t *testing.T) {
	n, clock := newNode(t), &shift{}
	o, bob := n.owner("alice"), n.owner("bob")
	friend, stranger := captest.NewSession("friend"), captest.NewSession("stranger")
	right := o.holder("right", clock, "tinycloud.delegation/revoke")
	wrong := o.holder("wrong", clock, "tinycloud.delegation/status", "tinycloud.delegation/list")
	others := bob.holder("others", clock, "tinycloud.delegation/revoke")
	none := captest.TokenOptions{}
	proof := func(ids ...hash) captest.TokenOptions { return captest.TokenOptions{Proofs: ids} }
	for _, tt := range []struct {
		what string
		sign func(target hash) string
		ok   bool
	}{
		{"delegator", func(h hash) string { return o.session.Revoke(h, none) }, true},
		{"delegatee", func(h hash) string { return friend.Revoke(h, none) }, true},
		{"owner by CACAO", func(h hash) string { return o.wallet.SignRevocation(h) }, true},
		{"holder of the right", func(h hash) string { return right.key.Revoke(h, proof(right.proof)) }, true},
		{"holder of the right, who does not cite it", func(h hash) string { return right.key.Revoke(h, none) }, false},
		{"holder of the right, who cites it twice", func(h hash) string { return right.key.Revoke(h, proof(right.proof, right.proof)) }, false},
		{"holder of the right with another proof", func(h hash) string { return right.key.Revoke(h, proof(right.proof, o.proof)) }, false},
		{"holder of other rights", func(h hash) string { return wrong.key.Revoke(h, proof(wrong.proof)) }, false},
		{"holder of the right on another Space", func(h hash) string { return others.key.Revoke(h, proof(others.proof)) }, false},
		{"delegator with a proof that lacks the right", func(h hash) string { return o.session.Revoke(h, proof(o.proof)) }, false},
		{"delegatee with the target as proof", func(h hash) string { return friend.Revoke(h, proof(h)) }, false},
		{"unknown proof", func(h hash) string { return stranger.Revoke(h, proof(hash{3})) }, false},
		{"another's proof", func(h hash) string { return stranger.Revoke(h, proof(right.proof)) }, false},
		{"stranger", func(h hash) string { return stranger.Revoke(h, none) }, false},
		{"another owner by CACAO", func(h hash) string { return bob.wallet.SignRevocation(h) }, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			path := "kv/" + tinycloud.Sum([]byte(tt.what)).String()
			target := o.share(friend, path, "tinycloud.kv/get", "")
			get := func() answer {
				return n.post("/invoke", friend.Invoke(captest.TokenOptions{
					Caps: captest.Caps{o.space.String() + "/" + path: {"tinycloud.kv/get"}}, Proofs: []hash{target},
				}))
			}
			token := tt.sign(target)
			if !tt.ok {
				n.post("/revoke", token).want(t, "revoke", 403, "Unauthorized Revoker")
				get().want(t, "get", 404, "Key not found")
				return
			}
			n.post("/revoke", token).want(t, "revoke", 200, revoked(target))
			n.post("/revoke", token).want(t, "again", 200, revoked(target))
			n.post("/revoke", tt.sign(target)).want(t, "by another token", 200, revoked(target))
			get().want(t, "get", 401, "delegation-revoked: "+target.EventID())
		})
	}
	n.post("/revoke", o.wallet.SignRevocation(right.proof)).want(t, "revoke the right", 200, revoked(right.proof))
	target := o.share(friend, "kv/last", "tinycloud.kv/get", "")
	n.post("/revoke", right.key.Revoke(target, proof(right.proof))).want(t, "by a revoked right", 403, "Unauthorized Revoker")
}

// TestProofIsNoTarget: a token that names no target revokes nothing, least of all its proof.
func TestProofIsNoTarget(t *testing.T) {
	n, clock := newNode(t), &shift{}
	o := n.owner("alice")
	right := o.holder("right", clock, "tinycloud.delegation/revoke")
	target := o.share(captest.NewSession("friend"), "kv/x", "tinycloud.kv/get", "")
	const revoke = "tinycloud.delegation/revoke"
	for what, token := range map[string]string{
		"path of the Space":  right.sign(captest.Caps{o.space.String() + "/delegation/" + target.EventID(): {revoke}}, right.proof),
		"whole Space":        right.sign(captest.Caps{o.space.String() + "/delegation": {revoke}}, right.proof),
		"no capability":      right.sign(captest.Caps{}, right.proof),
		"another ability":    right.sign(captest.Caps{"urn:cid:" + target.EventID(): {"tinycloud.delegation/status"}}, right.proof),
		"no CID":             right.sign(captest.Caps{"urn:cid:nonsense": {revoke}}, right.proof),
		"for another's eyes": right.key.Delegate(o.session.DID(), captest.TokenOptions{Caps: captest.Caps{"urn:cid:" + target.EventID(): {revoke}}, Proofs: []hash{right.proof}}),
	} {
		n.post("/revoke", token).want(t, what, 403, "Revocation names no target")
	}
	h := &holder{n, o.session, o.proof, clock}
	if got := h.status(target); got != "active" {
		t.Errorf("target: %s", got)
	}
	if got := right.status(right.proof); got != "active" {
		t.Errorf("proof: %s", got)
	}
	n.post("/revoke", right.key.Revoke(hash{9}, captest.TokenOptions{Proofs: []hash{right.proof}})).want(t, "unknown target", 403, "Cannot find parent delegation")
	n.post("/revoke", o.session.Revoke(target, captest.TokenOptions{Expires: time.Now().Add(-time.Minute)})).want(t, "expired", 403,
		"Revocation expired or not yet valid")
	n.post("/revoke", o.session.Revoke(target, captest.TokenOptions{Issuer: right.key.URI(), Audience: string(right.key.DID())})).want(t, "forged", 403, "Failed to verify signature")
}

func TestRevokedAncestor(t *testing.T) {
	n := newNode(t)
	o := n.owner("alice")
	friend, far := captest.NewSession("friend"), captest.NewSession("far")
	parent := o.share(friend, "kv/x", "tinycloud.kv/get", "")
	caps := captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/get"}}
	header := friend.Delegate(far.DID(), captest.TokenOptions{Caps: caps, Proofs: []hash{parent}, Expires: time.Now().Add(time.Minute)})
	child := captest.ID(header)
	if got := n.post("/delegate", header); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	n.post("/invoke", far.Invoke(captest.TokenOptions{Caps: caps, Proofs: []hash{child}})).want(t, "before", 404, "Key not found")
	n.post("/revoke", o.wallet.SignRevocation(o.proof)).want(t, "revoke", 200, revoked(o.proof))
	n.post("/invoke", far.Invoke(captest.TokenOptions{Caps: caps, Proofs: []hash{child}})).want(t, "invoke", 401,
		"delegation-ancestor-revoked: ancestor="+o.proof.EventID()+" invoked="+child.EventID())
	further := far.Delegate("did:key:zFurther", captest.TokenOptions{Caps: caps, Proofs: []hash{child}, Expires: time.Now().Add(30 * time.Second)})
	n.post("/delegate", further).want(t, "delegate", 401, "delegation-ancestor-revoked: ancestor="+o.proof.EventID()+" parent="+child.EventID())
	n.post("/delegate", header).want(t, "the child again", 401, "delegation-ancestor-revoked: ancestor="+o.proof.EventID()+" parent="+parent.EventID())
	n.post("/revoke", far.Revoke(child, captest.TokenOptions{})).want(t, "revoke what is dead", 200, revoked(child))
}

// TestHostedLater: a delegation waits for its Spaces.
func TestHostedLater(t *testing.T) {
	n, clock := newNode(t), &shift{}
	wallet, key := captest.NewWallet("later"), captest.NewSession("later")
	one, two := wallet.Space("one"), wallet.Space("two")
	header := wallet.SignDelegation(captest.DelegationOptions{Audience: key.URI(), Caps: captest.Caps{
		one.String() + "/kv": kvAbilities, two.String() + "/kv": kvAbilities,
	}})
	id := captest.ID(header)
	texts := func(spaces ...tinycloud.SpaceID) string {
		out := ""
		for i, s := range spaces {
			if i > 0 {
				out += ","
			}
			out += `"` + s.String() + `"`
		}
		return "[" + out + "]"
	}
	post := func(what string, activated, skipped []tinycloud.SpaceID) {
		t.Helper()
		n.post("/delegate", header).want(t, what, 200, `{"cid":"`+id.EventID()+`","activated":`+texts(activated...)+`,"skipped":`+texts(skipped...)+`}`)
	}
	get := func(s tinycloud.SpaceID) answer {
		return n.post("/invoke", key.Invoke(captest.TokenOptions{Caps: captest.Caps{s.String() + "/kv/k": {"tinycloud.kv/get"}}, Proofs: []hash{id}}))
	}
	post("at first", nil, []tinycloud.SpaceID{one, two})
	get(one).want(t, "before hosting", 404, "Space not found")
	h := &holder{n, key, id, clock}
	if got := h.status(id); got != "active" {
		t.Errorf("status before hosting: %s", got)
	}
	if got := n.post("/delegate", wallet.SignHost(one, n.hostDID(one))); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	get(one).want(t, "hosted, not posted again", 404, "Key not found")
	get(two).want(t, "the other", 404, "Space not found")
	post("one is hosted", nil, []tinycloud.SpaceID{two})
	if got := n.post("/delegate", wallet.SignHost(two, n.hostDID(two))); got.status != 200 {
		t.Fatal(got.status, got.body)
	}
	get(two).want(t, "both hosted", 404, "Key not found")
	post("both are hosted", nil, nil)
}
