package encryption_test

import (
	"crypto/ed25519"
	"path/filepath"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
)

func (h *host) nodeKey() hostlog.Key {
	return hostlog.Key(h.keys.NodeKey().Public().(ed25519.PublicKey))
}

func (h *host) spaceKey(space tinycloud.SpaceID) hostlog.Key {
	return hostlog.Key(h.keys.SpaceKey(space).Public().(ed25519.PublicKey))
}

// group are hosts of one owner's secrets that know each other.
type group struct {
	t      testing.TB
	key    *captest.SessionKey // the owner
	space  tinycloud.SpaceID
	hosts  []*host
	paired map[[2]hostlog.Key]bool
	grants map[*host]*capstore.Token // host delegations
}

// newGroup makes so many hosts, all paired with each other.
func newGroup(t testing.TB, n int) *group {
	t.Helper()
	return newGroupOf(t, n, func(*encryption.Options, int) {})
}

func newGroupOf(t testing.TB, n int, change func(o *encryption.Options, i int)) *group {
	t.Helper()
	g := &group{t: t, key: captest.RandomSession(), paired: map[[2]hostlog.Key]bool{}, grants: map[*host]*capstore.Token{}}
	g.space, _ = tinycloud.SecretsOf(g.key.DID())
	for i := range n {
		var h *host
		o := encryption.Options{Paired: func(node hostlog.Key) bool { return g.paired[[2]hostlog.Key{h.nodeKey(), node}] }}
		change(&o, i)
		h = openAs(t, secret+string(rune('a'+i)), filepath.Join(t.TempDir(), "caps.db"), begin, o)
		g.hosts = append(g.hosts, h)
	}
	for _, h := range g.hosts {
		g.grants[h] = g.hostDelegation(h, g.key)
		for _, x := range g.hosts {
			g.pair(h, x, true)
		}
	}
	for i, h := range g.hosts {
		for j := range g.hosts {
			g.tell(h, g.grants[g.hosts[(i+j)%n]]) // its own first
		}
	}
	return g
}

func (g *group) pair(a, b *host, yes bool) {
	g.paired[[2]hostlog.Key{a.nodeKey(), b.nodeKey()}] = yes
	g.paired[[2]hostlog.Key{b.nodeKey(), a.nodeKey()}] = yes
}

// hostDelegation makes a host of the owner's secrets.
func (g *group) hostDelegation(h *host, by *captest.SessionKey, proofs ...tinycloud.Hash) *capstore.Token {
	g.t.Helper()
	tok, err := capstore.ParseDelegation(by.Delegate(tinycloud.Principal(h.spaceKey(g.space).String()), captest.TokenOptions{
		Caps: captest.Caps{g.space.String() + "/space": {"tinycloud.space/host"}}, Expires: begin.Add(1000 * time.Hour), Proofs: proofs,
	}))
	if err != nil {
		g.t.Fatal(err)
	}
	return tok
}

func (g *group) tell(h *host, toks ...*capstore.Token) {
	g.t.Helper()
	for _, tok := range toks {
		if _, err := h.store.Delegate(g.t.Context(), tok); err != nil {
			g.t.Fatal(err)
		}
	}
}

func (g *group) client(h *host) networktest.Client { return h.client(g.key) }

func (g *group) id() string { return networktest.ID(g.key.DID(), "default") }

func (g *group) network() tinycloud.NetworkID {
	id, err := tinycloud.ParseNetworkID(g.id())
	if err != nil {
		g.t.Fatal(err)
	}
	return id
}

// records are those that one host lacks of another's.
func (g *group) records(from, to *host) [][]byte {
	g.t.Helper()
	has, err := to.Have(g.t.Context(), g.space)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := from.Have(g.t.Context(), g.space); err != nil {
		g.t.Fatal(err)
	}
	out, err := from.Records(g.t.Context(), g.space, has)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// send has a host take another's records over, and returns how many were news.
func (g *group) send(from, to *host) int {
	g.t.Helper()
	n, err := to.Accept(g.t.Context(), g.space, g.records(from, to))
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

func (g *group) wants(to, from *host) []hostlog.KeyWant {
	g.t.Helper()
	wants, err := to.Wants(g.t.Context(), g.space, from.spaceKey(g.space))
	if err != nil {
		g.t.Fatal(err)
	}
	return wants
}

// sync does what hosts do that are connected: records both ways, then keys.
func (g *group) sync(from, to *host) error {
	g.t.Helper()
	g.send(from, to)
	g.send(to, from)
	for _, w := range g.wants(to, from) {
		given, err := from.Give(g.t.Context(), g.space, to.spaceKey(g.space), w.Ask())
		if err != nil {
			return err
		}
		if err := w.Take(g.t.Context(), given); err != nil {
			return err
		}
	}
	g.send(to, from)
	return nil
}

func (g *group) mustSync(from, to *host) {
	g.t.Helper()
	if err := g.sync(from, to); err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) describe(h *host) encryption.Descriptor {
	g.t.Helper()
	d, err := h.Describe(g.t.Context(), g.network())
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

func nodesOf(d encryption.Descriptor) (out []string) {
	for _, m := range d.Members {
		out = append(out, m.Role+" "+m.NodeID)
	}
	return out
}
