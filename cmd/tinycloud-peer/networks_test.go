package main

import (
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
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
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/admin"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

// vault is an owner's secrets in a group, used as the SDK does.
type vault struct {
	*group
	key    *captest.SessionKey
	header string // of the delegation on the network alone
	id     string
	dids   map[*cluster.Peer]string // of nodes
	data   [][]byte                 // data keys that were unsealed, to be found nowhere
	known  int64                    // version of the key that was advertised last

	answers []string // of hosts
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
	v.answers = append(v.answers, a.Body)
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
	t.Parallel()
	g := startGroup(t, 3, "secrets")
	a, b, c := g.nodes.Peers()[0], g.nodes.Peers()[1], g.nodes.Peers()[2]
	g.same()
	g.pairAll(a, b)
	v := g.newVault()
	v.says(a, "", "status")
	if got := v.create(a); got.Status != http.StatusOK {
		t.Fatalf("create: %d %s", got.Status, got.Body)
	}
	v.awaitMember(b, 2)
	v.awaitMember(a, 2)
	v.says(a, "", "status")
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
	v.rotateByHand(b)
	v.save(b, "THREE", "the third secret")
	g.same(b, c)
	v.opens(c, b, "THREE", "the third secret")
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
	v.says(c, "", "status")
	g.must2(b.Admin.ShareNetwork(g.ctx, v.network(), v.dids[c], true))
	g.must2(b.Admin.SetAlias(g.ctx, "spare", v.dids[c]))
	if out, err := b.Verb(g.ctx, "network", "show", v.id); err != nil || !strings.Contains(out, "approved: spare, "+v.dids[c]) {
		t.Errorf("show: %s, %v", out, err)
	}
	if out, err := b.Verb(g.ctx, "network", "share", v.id, "spare", "--off"); err != nil || strings.Contains(out, "approved:") {
		t.Errorf("share: %s, %v", out, err)
	}

	v.must(b.Admin.Revoke(g.ctx, g.owner.Wallet.SignRevocation(captest.ID(v.header))))
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		_, got := v.try(a, a, "ONE")
		return got.Status == http.StatusUnauthorized && strings.Contains(got.Body, "delegation-revoked"), nil
	}))
	v.nowhere()
}

// says has a verb warn of what is wrong with networks: of nothing with "".
func (v *vault) says(p *cluster.Peer, want string, verb ...string) {
	v.Helper()
	out, err := p.Verb(v.ctx, verb...)
	v.must(err)
	if warns := strings.Contains(out, "warning: "); warns != (want != "") || !strings.Contains(out, want) {
		v.Errorf("%s of %s says %q, want a warning %q", verb, p.Name, out, want)
	}
}

func (v *vault) network() tinycloud.NetworkID {
	v.Helper()
	id, err := tinycloud.ParseNetworkID(v.id)
	v.must(err)
	return id
}

func (g *group) must2(_ any, err error) {
	g.Helper()
	g.must(err)
}

// rotateByHand has the owner's wallet sign a text by which a host makes another version of the key.
func (v *vault) rotateByHand(p *cluster.Peer) {
	v.Helper()
	text, err := p.Verb(v.ctx, "network", "rotate", v.id)
	v.must(err)
	text = text[strings.Index(text, "localhost wants"):]
	text, _, _ = strings.Cut(text, "\nThen run")
	signature := fmt.Sprintf("0x%x", v.owner.Wallet.SignText([]byte(strings.TrimSuffix(text, "\n"))))
	out, err := p.Verb(v.ctx, "network", "rotate", v.id, "--signature", signature)
	if err != nil || !strings.Contains(out, "version 3 of "+v.id) {
		v.Errorf("rotate by hand: %s, %v", out, err)
	}
}

// private are the private keys that a host which is down has.
func (v *vault) private(p *cluster.Peer) (out [][]byte) {
	v.Helper()
	keys, err := hostkeys.New(p.Secret)
	v.must(err)
	seal := keys.Derive(hostkeys.ContextNetworkSeal)
	block, err := aes.NewCipher(seal[:])
	v.must(err)
	gcm, err := cipher.NewGCM(block)
	v.must(err)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(p.Dir, "data", "caps.db")+"?mode=ro")
	v.must(err)
	defer func() { v.must(db.Close()) }()
	rows, err := db.QueryContext(v.ctx, "SELECT sealed FROM network_keys")
	v.must(err)
	for rows.Next() {
		var b []byte
		v.must(rows.Scan(&b))
		k, err := gcm.Open(nil, b[1:13], b[13:], nil)
		v.must(err)
		out = append(out, k)
	}
	v.must(rows.Err())
	v.must(rows.Close())
	return out
}

// nowhere looks for private keys and data keys in all that hosts tell and log.
func (v *vault) nowhere() {
	v.Helper()
	for _, p := range v.nodes.Peers() {
		_, metrics, err := p.Metrics(v.ctx)
		v.must(err)
		log, err := os.ReadFile(p.LogFile())
		v.must(err)
		texts := map[string]string{"answers": strings.Join(v.answers, "\n"), "metrics": metrics, "log": string(log)}
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
		private := v.private(p)
		if len(private) != 3 || len(v.data) != 3 {
			v.Fatalf("%d private keys of %s, and %d data keys", len(private), p.Name, len(v.data))
		}
		for what, text := range texts {
			for i, data := range append(private, v.data...) {
				for _, form := range spellings(data) {
					if strings.Contains(text, form) {
						v.Errorf("%s of %s has key %d", what, p.Name, i)
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

// A host that alone has a key says so. Restored from a backup it decrypts once it may know who was revoked, and once it
// has waited long enough for the others; with another secret it has no keys.
func TestSecretsOfABackup(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2, "secrets")
	a, b := g.nodes.Peers()[0], g.nodes.Peers()[1]
	g.same()
	v := g.newVault()
	if got := v.create(a); got.Status != http.StatusOK {
		t.Fatalf("create: %d %s", got.Status, got.Body)
	}
	v.says(a, "warning: This node alone has the key", "status")
	v.says(a, "warning: This node alone has the key", "networks")
	g.pairAll(a, b)
	v.awaitMember(b, 2)
	v.awaitMember(a, 2)
	v.save(a, "ONE", "a secret")
	g.same()
	v.opens(b, b, "ONE", "a secret")
	wrapped, err := g.owner.Get(g.ctx, a, "vault/secrets/ONE")
	g.must(err)

	data, backup := filepath.Join(a.Dir, "data"), filepath.Join(a.Dir, "backup")
	local := admin.Local(data)
	defer local.Close()
	_, err = local.Backup(g.ctx, backup)
	g.must(err)
	g.must(b.Admin.Revoke(g.ctx, g.owner.Wallet.SignRevocation(captest.ID(v.header))))
	g.same()
	g.must(a.Stop())
	g.must(b.Stop())
	g.must(os.Rename(data, data+".lost"))
	g.must(os.Rename(backup, data))
	a.Set(joinTimeout + "2s")
	g.must(a.Start(g.ctx))
	decrypt := func(p *cluster.Peer) cluster.Answer {
		var e networktest.Envelope
		v.must(json.Unmarshal(wrapped, &e))
		q, _ := v.at(p).Decrypt(e.NetworkID, e.KeyVersion, e.EncryptedSymmetricKey)
		return v.call(p, http.MethodPost, v.path("/decrypt"), q.Header(), q.Text())
	}
	if got := decrypt(a); got.Status != http.StatusServiceUnavailable {
		t.Errorf("before another host was met: %d %s", got.Status, got.Body)
	}
	g.must(cluster.Poll(g.ctx, 50*time.Millisecond, func() (bool, error) {
		got := decrypt(a)
		if got.Status != http.StatusServiceUnavailable && got.Status != http.StatusOK {
			t.Fatalf("while no other host is in reach: %d %s", got.Status, got.Body)
		}
		return got.Status == http.StatusOK, nil
	}))
	g.must(b.Start(g.ctx))
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		got := decrypt(a)
		return got.Status == http.StatusUnauthorized && strings.Contains(got.Body, "delegation-revoked"), nil
	}))
	g.must(a.Stop())
	a.Set("TINYCLOUD_KEYS_SECRET=" + strings.Repeat("A", 43))
	if err := a.Start(g.ctx); err == nil || !strings.Contains(err.Error(), "--new-identity") {
		t.Errorf("with another secret: %v", err)
	}
	g.must(a.Start(g.ctx, "--new-identity"))
	v.says(a, "warning: 1 keys of the encryption network ", "networks")
}
