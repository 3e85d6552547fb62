package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// vault is an owner's secrets in a group, used as the SDK does.
type vault struct {
	*group
	key    *captest.SessionKey
	header string // of the delegation on the network alone
	id     string
	dids   map[*cluster.Peer]string // of nodes
	data   [][]byte                 // data keys that were unsealed, to be found nowhere
}

// newVault has the owner's session given what it needs on his network, told to the first host alone.
func (g *group) newVault() *vault {
	g.Helper()
	v := &vault{group: g, key: captest.RandomSession(), id: networktest.ID(g.owner.Wallet.DID(), "default"), dids: map[*cluster.Peer]string{}}
	v.header = g.owner.Wallet.SignDelegation(captest.DelegationOptions{Audience: v.key.URI(), Expires: time.Now().Add(time.Hour), Caps: captest.Caps{
		v.id: {"tinycloud.encryption/decrypt", "tinycloud.encryption/network.create", "tinycloud.encryption/network.rotate"},
	}})
	d, err := g.nodes.Peers()[0].Admin.Delegate(g.ctx, v.header)
	if err != nil || len(d.Activated)+len(d.Skipped) != 0 {
		g.Fatalf("delegation on the network alone: %+v, %v", d, err)
	}
	for _, p := range g.nodes.Peers() {
		info, err := p.Admin.Node(g.ctx)
		g.must(err)
		v.dids[p] = info.NodeID
	}
	return v
}

// at signs for a host.
func (v *vault) at(p *cluster.Peer) networktest.Client {
	return networktest.Client{Key: v.key, Proofs: []tinycloud.Hash{captest.ID(v.header)}, Node: v.dids[p]}
}

func (v *vault) call(p *cluster.Peer, method, path, token, body string) cluster.Answer {
	v.Helper()
	a, err := v.owner.Call(v.ctx, p, method, path, token, map[string]string{"Content-Type": "application/json"}, strings.NewReader(body))
	v.must(err)
	return a
}

func (v *vault) path(rest string) string {
	return "/encryption/networks/" + url.PathEscape(v.id) + rest
}

func (v *vault) create(p *cluster.Peer) cluster.Answer {
	v.Helper()
	q := v.at(p).Create(v.owner.Wallet.DID(), "default")
	return v.call(p, http.MethodPost, "/encryption/networks", q.Header(), q.Text())
}

func (v *vault) describe(p *cluster.Peer) cluster.Answer {
	v.Helper()
	return v.call(p, http.MethodGet, v.path(""), "", "")
}

// save encrypts a secret with what a host says of the network, and stores it there.
func (v *vault) save(p *cluster.Peer, name, secret string) {
	v.Helper()
	e, data, err := networktest.Encrypt(v.describe(p).Body, []byte(secret))
	v.must(err)
	v.data = append(v.data, data)
	v.must(v.owner.Put(v.ctx, p, "vault/secrets/"+name, networktest.Canonical(e)))
}

// try opens a secret by a host, with a request that is signed for another.
func (v *vault) try(p, to *cluster.Peer, name string) (string, cluster.Answer) {
	v.Helper()
	b, err := v.owner.Get(v.ctx, p, "vault/secrets/"+name)
	v.must(err)
	var e networktest.Envelope
	v.must(json.Unmarshal(b, &e))
	q, receiver := v.at(to).Decrypt(e.NetworkID, e.KeyVersion, e.EncryptedSymmetricKey)
	header := q.Header()
	a := v.call(p, http.MethodPost, v.path("/decrypt"), header, q.Text())
	if a.Status != http.StatusOK {
		return "", a
	}
	data, err := receiver.Open(q, header, a.Body)
	v.must(err)
	secret, err := e.Text(data)
	v.must(err)
	return secret, a
}

func (v *vault) opens(p, to *cluster.Peer, name, want string) {
	v.Helper()
	if got, a := v.try(p, to, name); got != want {
		v.Errorf("%s for %s: %q, %d %s", p.Name, to.Name, got, a.Status, a.Body)
	}
}

// awaitMember waits until a host describes the network with itself first and so many members.
func (v *vault) awaitMember(p *cluster.Peer, members int) {
	v.Helper()
	v.must(cluster.Poll(v.ctx, 20*time.Millisecond, func() (bool, error) {
		nodes := membersOf(v.describe(p))
		return len(nodes) == members && nodes[0] == v.dids[p], nil
	}))
}

func membersOf(a cluster.Answer) (out []string) {
	var d struct {
		Descriptor struct{ Members []struct{ NodeID string } }
	}
	if a.Status != http.StatusOK || json.Unmarshal([]byte(a.Body), &d) != nil {
		return nil
	}
	for _, m := range d.Descriptor.Members {
		out = append(out, m.NodeID)
	}
	return out
}

// pairAll pairs peers with each other, both ways.
func (g *group) pairAll(peers ...*cluster.Peer) {
	g.Helper()
	for _, p := range peers {
		for _, other := range peers {
			if p == other {
				continue
			}
			info, err := other.Admin.Node(g.ctx)
			g.must(err)
			i := slices.IndexFunc(info.Addrs, func(a string) bool { return strings.Contains(a, "/tcp/") })
			_, err = p.Admin.Pair(g.ctx, node.PairRequest{Addr: info.Addrs[max(i, 0)]})
			g.must(err)
		}
	}
}

// An owner whose secrets are on three hosts creates his network on the first, and opens what he encrypts on each that is
// paired, also when the first is gone; one that is not sends his requests on, and has no key.
func TestSecretsOnThreeHosts(t *testing.T) {
	g := startGroup(t, 3, "secrets")
	a, b, c := g.nodes.Peers()[0], g.nodes.Peers()[1], g.nodes.Peers()[2]
	g.same()
	g.pairAll(a, b)
	v := g.newVault()
	if got := v.create(a); got.Status != http.StatusOK {
		t.Fatalf("create: %d %s", got.Status, got.Body)
	}
	v.awaitMember(b, 2)
	v.awaitMember(a, 2)
	v.save(a, "ONE", "the first secret")
	g.same()
	if got := v.create(b); got.Status != http.StatusConflict {
		t.Errorf("create on the second: %d %s", got.Status, got.Body)
	}
	if got := v.describe(c); got.Status != http.StatusNotFound {
		t.Errorf("on a host that is not paired: %d %s", got.Status, got.Body)
	}
	v.opens(a, a, "ONE", "the first secret")
	v.opens(b, b, "ONE", "the first secret")
	v.opens(b, a, "ONE", "the first secret")
	v.opens(c, a, "ONE", "the first secret")
	v.opens(c, b, "ONE", "the first secret")
	if _, got := v.try(c, c, "ONE"); got.Status != http.StatusNotFound {
		t.Errorf("a host without the key: %d %s", got.Status, got.Body)
	}

	q := v.at(b).Rotate(v.id)
	if got := v.call(b, http.MethodPost, v.path("/rotate"), q.Header(), ""); got.Status != http.StatusOK || !strings.Contains(got.Body, `"keyVersion":2`) {
		t.Fatalf("rotate: %d %s", got.Status, got.Body)
	}
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		return strings.Contains(v.describe(a).Body, `"keyVersion":2`), nil
	}))
	v.save(a, "TWO", "the second secret")
	g.same()
	g.must(a.Kill())
	for name, secret := range map[string]string{"ONE": "the first secret", "TWO": "the second secret"} {
		v.opens(b, b, name, secret)
		v.opens(c, b, name, secret)
	}
	if _, got := v.try(c, a, "ONE"); got.Status != http.StatusServiceUnavailable {
		t.Errorf("for a host that is gone: %d %s", got.Status, got.Body)
	}

	g.pairAll(b, c)
	v.awaitMember(c, 2)
	v.opens(c, c, "ONE", "the first secret")
	v.opens(c, c, "TWO", "the second secret")
	g.must(a.Start(g.ctx))
	v.opens(a, a, "TWO", "the second secret")

	v.must(b.Admin.Revoke(g.ctx, g.owner.Wallet.SignRevocation(captest.ID(v.header))))
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		_, got := v.try(a, a, "ONE")
		return got.Status == http.StatusUnauthorized && strings.Contains(got.Body, "delegation-revoked"), nil
	}))
	v.nowhere()
}

// nowhere looks for private keys and data keys in all that hosts tell and log.
func (v *vault) nowhere() {
	v.Helper()
	for _, p := range v.nodes.Peers() {
		_, metrics, err := p.Metrics(v.ctx)
		v.must(err)
		log, err := os.ReadFile(p.LogFile())
		v.must(err)
		texts := map[string]string{"metrics": metrics, "log": string(log)}
		for _, verb := range [][]string{{"status"}, {"networks"}, {"network", "show", v.id}} {
			out, err := p.Verb(v.ctx, verb...)
			v.must(err)
			texts[strings.Join(verb, " ")] = out
		}
		v.must(p.Stop())
		car := filepath.Join(v.TempDir(), p.Name+".car")
		_, err = p.Verb(v.ctx, "export", v.owner.Space.String(), car)
		v.must(err)
		b, err := os.ReadFile(car)
		v.must(err)
		texts["export"] = string(b)
		for what, text := range texts {
			for i, data := range v.data {
				for _, form := range spellings(data) {
					if strings.Contains(text, form) {
						v.Errorf("%s of %s has data key %d", what, p.Name, i)
					}
				}
			}
		}
	}
}

// spellings are forms in which bytes may be written.
func spellings(b []byte) []string {
	return []string{string(b), fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), fmt.Sprint(b), string(networktest.Canonical(b))[1:43]}
}
