package encryption_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/keys"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// mesh connects the hosts of a group by pipes.
type mesh struct {
	*group
	ctx     context.Context
	running sync.WaitGroup
	keepers map[*host]*keys.Keeper

	mu  sync.Mutex
	cut map[[2]*host]bool // guarded by mu
}

// pipe is a stream in memory.
type pipe struct{ net.Conn }

func (p pipe) Reset() error { return p.Close() }

var errCut = errors.New("no connection")

// node is what a host's networks know of the others.
type node struct {
	m *mesh
	h *host
}

func (n *node) Ask(ctx context.Context, _ tinycloud.SpaceID) ([]hostlog.Key, error) {
	return n.m.keepers[n.h].Ask(ctx)
}

func (n *node) Forward(ctx context.Context, _ tinycloud.SpaceID, to hostlog.Key, q hostlog.DecryptRequest) ([]byte, error) {
	return n.m.keepers[n.h].Forward(ctx, to, q)
}

// newMesh connects so many hosts, whose keepers run. A silent host is waited for so long.
func newMesh(t testing.TB, n int, timeout time.Duration, share ...encryption.Share) *mesh {
	t.Helper()
	m := &mesh{keepers: map[*host]*keys.Keeper{}, cut: map[[2]*host]bool{}}
	nodes := make([]*node, n)
	m.group = newGroupOf(t, n, func(o *encryption.Options, i int) {
		nodes[i] = &node{m: m}
		o.Others, o.AnyPaired = nodes[i], func() bool { return true }
		o.Changed = func(tinycloud.Principal) { m.keepers[nodes[i].h].Stir() }
		if i < len(share) {
			o.Share = share[i]
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	m.ctx = ctx
	for i, h := range m.hosts {
		nodes[i].h = h
		k, err := keys.New(keys.Options{Space: m.space, Store: h.Networks, JoinTimeout: timeout, Dial: func(_ context.Context, id peer.ID) (keys.Stream, error) { return m.dial(h, id) }})
		if err != nil {
			t.Fatal(err)
		}
		m.keepers[h] = k
	}
	for _, h := range m.hosts {
		m.running.Go(func() { m.keepers[h].Run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		m.running.Wait()
	})
	return m
}

func (m *mesh) id(h *host) peer.ID { return wire.PeerOf(h.spaceKey(m.space)) }

// connect has two hosts be connected, or not.
func (m *mesh) connect(a, b *host, yes bool) {
	m.mu.Lock()
	m.cut[[2]*host{a, b}], m.cut[[2]*host{b, a}] = !yes, !yes
	m.mu.Unlock()
	if yes {
		m.keepers[a].Greeted(m.id(b))
		m.keepers[b].Greeted(m.id(a))
	} else {
		m.keepers[a].Lost(m.id(b))
		m.keepers[b].Lost(m.id(a))
	}
}

func (m *mesh) dial(from *host, id peer.ID) (keys.Stream, error) {
	for _, to := range m.hosts {
		if m.id(to) != id {
			continue
		}
		m.mu.Lock()
		cut := m.cut[[2]*host{from, to}]
		m.mu.Unlock()
		if cut {
			return nil, errCut
		}
		x, y := net.Pipe()
		m.running.Go(func() { m.keepers[to].Serve(m.ctx, m.id(from), pipe{y}) })
		return pipe{x}, nil
	}
	return nil, errCut
}

// Hosts that are connected have each other's networks when they are asked, and one that is not trusted sends on what is
// for another.
func TestKeeper(t *testing.T) {
	m := newMesh(t, 3, time.Hour)
	a, b, c := m.hosts[0], m.hosts[1], m.hosts[2]
	m.group.pair(a, c, false)
	m.group.pair(b, c, false)
	for _, x := range [][2]*host{{a, b}, {a, c}, {b, c}} {
		m.connect(x[0], x[1], true)
	}
	made := a.mustCreate(m.client(a).Create(m.key.DID(), "default"))
	e, data := encrypt(t, made)
	if d := m.describe(b); len(d.Members) != 2 || d.Members[0].NodeID != b.node {
		t.Errorf("members %q", nodesOf(d))
	}
	if _, err := b.create(m.client(b).Create(m.key.DID(), "default")); !errors.Is(err, tinycloud.ErrConflict) {
		t.Errorf("made twice: %v", err)
	}
	if got, err := b.decrypt(m.client(b), e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("decrypt: %v", err)
	}
	if _, err := c.Describe(t.Context(), m.network()); !errors.Is(err, tinycloud.ErrNotFound) {
		t.Errorf("a network of hosts that are not trusted: %v", err)
	}
	for _, to := range []*host{a, b} { // by way of c
		if got, err := c.decrypt(m.client(to), e); err != nil || !bytes.Equal(got, data) {
			t.Errorf("sent on: %v", err)
		}
		if got, err := c.decryptInvoked(m.client(to), e); err != nil || !bytes.Equal(got, data) {
			t.Errorf("sent on, invoked: %v", err)
		}
	}
	if n := c.count("SELECT count(*) FROM network_keys"); n != 0 {
		t.Errorf("%d keys where none should be", n)
	}
	if n := len(a.outcomes(m.network())); n == 0 {
		t.Error("what was sent on is not remembered")
	}
	stranger := captest.RandomSession()
	_, err := c.decrypt(networktest.Client{Key: stranger, Node: a.node}, e)
	refused(t, "a stranger's", err, tinycloud.ErrUnauthorized, "Cannot find parent delegation")
	_, err = c.decrypt(networktest.Client{Key: m.key, Node: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"}, e)
	refused(t, "for nobody", err, tinycloud.ErrUnauthorized, "audience")
	m.connect(a, c, false)
	_, err = c.decrypt(m.client(a), e)
	refused(t, "out of reach", err, tinycloud.ErrUnavailable, "")
}

// decryptInvoked is decrypt on the way of other invocations.
func (h *host) decryptInvoked(c networktest.Client, e networktest.Envelope) ([]byte, error) {
	h.t.Helper()
	q, receiver := c.Decrypt(e.NetworkID, e.KeyVersion, e.EncryptedSymmetricKey)
	q.Token.Expires = h.now().Add(time.Minute)
	header := q.Header()
	a, err := h.DecryptInvoked(h.t.Context(), token(h.t, header), []byte(q.Text()))
	if err != nil {
		return nil, err
	}
	return receiver.Open(q, header, string(networktest.Canonical(a)))
}

// While a host that may have the network is silent nothing is known of it; after a time it is not waited for, and what it
// has then comes later.
func TestSilentHost(t *testing.T) {
	const timeout = 300 * time.Millisecond // asking takes half of it
	m := newMesh(t, 2, timeout)
	a, b := m.hosts[0], m.hosts[1]
	m.connect(a, b, true)
	m.describe0(a)
	m.connect(a, b, false)
	b.pass(time.Second)
	create := func(h *host) error {
		_, err := h.create(m.client(h).Create(m.key.DID(), "default"))
		return err
	}
	refused(t, "create", create(a), tinycloud.ErrUnavailable, "does not answer yet")
	_, err := a.Describe(t.Context(), m.network())
	refused(t, "describe", err, tinycloud.ErrUnavailable, "does not answer yet")
	for errors.Is(err, tinycloud.ErrUnavailable) {
		_, err = a.Describe(t.Context(), m.network())
	}
	refused(t, "describe, later", err, tinycloud.ErrNotFound, "")
	if err := create(a); err != nil {
		t.Error(err)
	}
	for err = create(b); errors.Is(err, tinycloud.ErrUnavailable); err = create(b) {
		continue
	}
	if err != nil {
		t.Error(err)
	}
	m.connect(a, b, true)
	if _, err := m.keepers[b].Ask(t.Context()); err != nil {
		t.Error(err)
	}
	if d := m.describe(b); !bytes.Equal(d.PublicKey, m.describe(a).PublicKey) || len(d.Members) != 2 {
		t.Errorf("members %q", nodesOf(d))
	}
}

// describe0 waits until a host has asked the others, who have nothing.
func (m *mesh) describe0(h *host) {
	m.t.Helper()
	if _, err := h.Describe(m.t.Context(), m.network()); !errors.Is(err, tinycloud.ErrNotFound) {
		m.t.Fatalf("describe: %v", err)
	}
}

// A trusted host that hands no keys over answers by way of the others, which make no network beside its.
func TestHolderThatSharesNothing(t *testing.T) {
	m := newMesh(t, 2, time.Hour, encryption.ShareOff)
	a, b := m.hosts[0], m.hosts[1]
	m.connect(a, b, true)
	e, data := encrypt(t, a.mustCreate(m.client(a).Create(m.key.DID(), "default")))
	d := m.describe(b)
	if len(d.Members) != 1 || d.Members[0].NodeID != a.node || !bytes.Equal(d.PublicKey, m.describe(a).PublicKey) {
		t.Errorf("%+v", d)
	}
	if _, err := b.create(m.client(b).Create(m.key.DID(), "default")); !errors.Is(err, tinycloud.ErrConflict) {
		t.Errorf("create: %v", err)
	}
	if got, err := b.decrypt(m.client(a), e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("decrypt: %v", err)
	}
}

// history is what happens to a group at random.
type history struct {
	*group
	t         *testing.T
	rand      *rand.Rand
	envelopes []networktest.Envelope
	data      [][]byte
	revoked   bool
}

// However networks are made, handed over, rotated and revoked, while records and keys are lost on their way, hosts are
// cut off and die: in the end every envelope is readable on every paired host and on no other, and all say the same.
func TestAnyHistory(t *testing.T) {
	seeds := 4
	if text := os.Getenv("NETWORKS_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			h := &history{group: newGroup(t, 4), t: t, rand: rand.New(rand.NewPCG(uint64(seed), 16))}
			for _, x := range h.hosts[:3] {
				h.pair(h.hosts[3], x, false)
			}
			for range 40 {
				h.step()
			}
			h.settle()
			h.check()
		})
	}
}

func (h *history) step() {
	a, b := h.hosts[h.rand.IntN(3)], h.hosts[h.rand.IntN(4)]
	a.pass(time.Duration(h.rand.IntN(1000)) * time.Millisecond)
	switch n := h.rand.IntN(20); {
	case n == 19 && h.rand.IntN(2) == 0:
		b.restart()
	case n < 3:
		if _, err := a.create(h.client(a).Create(h.key.DID(), "default")); err != nil && !errors.Is(err, tinycloud.ErrConflict) {
			h.t.Errorf("create: %v", err)
		}
	case n < 5:
		h.rotate(a)
	case n == 5 && h.rand.IntN(8) == 0:
		err := a.Revoke(h.t.Context(), a.signed(h.client(a).Revoke(h.id())), h.id())
		h.revoked = h.revoked || err == nil
	case n < 9:
		h.encrypt(a)
	default:
		h.meet(a, b)
	}
}

func (h *history) rotate(a *host) {
	_, err := a.Rotate(h.t.Context(), a.signed(h.client(a).Rotate(h.id())), h.id())
	if err != nil && !errors.Is(err, tinycloud.ErrNotFound) && !errors.Is(err, tinycloud.ErrUnauthorized) {
		h.t.Errorf("rotate: %v", err)
	}
}

func (h *history) encrypt(a *host) {
	d, err := a.Describe(h.t.Context(), h.network())
	if err != nil || d.State != "active" {
		return
	}
	e, data := encrypt(h.t, string(networktest.Canonical(map[string]any{"descriptor": d})))
	h.envelopes, h.data = append(h.envelopes, e), append(h.data, data)
}

// meet has two hosts talk, and something be lost.
func (h *history) meet(from, to *host) {
	if from == to {
		return
	}
	h.send(from, to)
	if h.rand.IntN(4) == 0 {
		return
	}
	for _, w := range h.wants(to, from) {
		if h.rand.IntN(4) == 0 {
			continue // the announcement is lost
		}
		given, err := from.Give(h.t.Context(), h.space, to.spaceKey(h.space), w.Ask())
		if err != nil {
			if !errors.Is(err, tinycloud.ErrNotFound) { // revoked there
				h.t.Errorf("give: %v", err)
			}
			continue
		}
		if h.rand.IntN(4) == 0 {
			continue // the receiver dies before it keeps the key
		}
		if err := w.Take(h.t.Context(), given); err != nil {
			h.t.Errorf("take: %v", err)
		}
	}
	if h.rand.IntN(4) == 0 {
		h.send(to, from)
	}
}

// settle has all meet until there is no more news.
func (h *history) settle() {
	for range 3 {
		for _, a := range h.hosts {
			for _, b := range h.hosts {
				if a != b {
					h.mustSync(a, b)
				}
			}
		}
	}
}

func (h *history) check() {
	if n := h.hosts[3].count("SELECT count(*) FROM network_keys"); n != 0 {
		h.t.Errorf("%d keys on a host that is not paired", n)
	}
	if n := h.hosts[0].count("SELECT count(*) FROM network_keys"); n == 0 {
		return // it never came to that
	}
	first := h.describe(h.hosts[0])
	for _, x := range h.hosts[:3] {
		d := h.describe(x)
		// The keys of a revoked network go nowhere any more.
		if d.State != first.State || !h.revoked && (!bytes.Equal(d.PublicKey, first.PublicKey) || d.KeyVersion != first.KeyVersion || len(d.Members) != 3) {
			h.t.Errorf("described as %+v and %+v", d, first)
		}
		if h.revoked != (d.State == "revoked") {
			h.t.Errorf("state %s, revoked %v", d.State, h.revoked)
		}
		for i, e := range h.envelopes {
			got, err := x.decrypt(h.client(x), e)
			switch {
			case h.revoked && !errors.Is(err, tinycloud.ErrUnauthorized):
				h.t.Errorf("envelope %d of a revoked network: %v", i, err)
			case !h.revoked && (err != nil || !bytes.Equal(got, h.data[i])):
				h.t.Errorf("envelope %d of version %d: %v", i, e.KeyVersion, err)
			}
		}
	}
}

// A key that was handed over is durable when that is said, and a restart changes nothing.
func TestHandedOverIsDurable(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.hosts[0], g.hosts[1]
	e, data := encrypt(t, b.mustCreate(g.client(b).Create(g.key.DID(), "default")))
	g.mustSync(b, a)
	a.restart()
	if got, err := a.decrypt(g.client(a), e); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after a restart: %v", err)
	}
}
