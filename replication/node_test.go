package replication_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

var _ replication.Store = (*capstore.Store)(nil)

// keys derives Space keys from a node's name.
type keys string

func (k keys) SpaceKey(s tinycloud.SpaceID) ed25519.PrivateKey {
	h := tinycloud.Sum([]byte(string(k) + s.String()))
	return ed25519.NewKeyFromSeed(h[:])
}

// owner is a wallet with a Space and a session key.
type owner struct {
	wallet  *captest.Wallet
	space   tinycloud.SpaceID
	session *captest.SessionKey
	header  string
	n       atomic.Int64
}

func newOwner(seed string) *owner {
	w := captest.NewWallet(seed)
	o := &owner{wallet: w, space: w.Space("default"), session: captest.NewSession(seed)}
	o.header = w.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: time.Now().Add(240 * time.Hour), IssuedAt: time.Now(), Nonce: "nonce0000001",
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/del"}},
	})
	return o
}

func (o *owner) hosting(key ed25519.PrivateKey, d captest.DelegationOptions) string {
	h := captest.HostOptions(o.space, didOf(key))
	h.Expires, h.NotBefore, h.IssuedAt = d.Expires, d.NotBefore, d.IssuedAt
	return o.wallet.SignDelegation(h)
}

func didOf(key ed25519.PrivateKey) string {
	return string(captest.SessionOf([32]byte(key.Seed())).DID())
}

// node is one host of a Space: a real store, values in memory, a replica, an endpoint.
type node struct {
	t         testing.TB
	o         *owner
	name      keys
	f         *fabric
	dir       string
	id        peer.ID
	store     *capstore.Store
	databases *sql.Service // nil: none
	serveSQL  bool         // set before start
	values    *memValues
	r         *replication.Replica
	end       *endpoint
	log       *slog.Logger
	stop      func()
	leave     func()                              // ends the replica, and nothing else
	committed atomic.Pointer[replication.Replica] // that is told; nil after leave
	missed    atomic.Bool                         // there were commits since
	ahead     atomic.Int64                        // nanoseconds that the store's clock is fast
	commit    func(capstore.Commit)               // told what becomes durable; set before start
	// lie, unless nil, is what the others are told instead of the store; set before start.
	lie     func(*capstore.Store) replication.Store
	accused []hostlog.Key // of what no honest host sends, before it stopped
}

// accuses returns the hosts that the node holds to have sent what no honest host sends.
func (n *node) accuses() []hostlog.Key { return append(n.r.Offenders(), n.accused...) }

func (n *node) host() hostlog.Key {
	return hostlog.Key(n.key().Public().(ed25519.PublicKey))
}

// shown is the store as the others come to know it.
func (n *node) shown() replication.Store {
	if n.lie == nil {
		return n.store
	}
	return n.lie(n.store)
}

func (n *node) key() ed25519.PrivateKey { return n.name.SpaceKey(n.o.space) }

// newNode makes a host of the owner's Space and starts it.
func newNode(t testing.TB, f *fabric, o *owner, name string) *node {
	t.Helper()
	n := &node{t: t, o: o, name: keys(name), f: f, dir: t.TempDir(), values: newMemValues()}
	n.start(t)
	return n
}

// start opens the node's database and runs its replica.
func (n *node) start(t testing.TB) {
	t.Helper()
	n.startWith(t, captest.DelegationOptions{IssuedAt: time.Now()})
}

// startWith gives the node its host delegation if it has none.
func (n *node) startWith(t testing.TB, d captest.DelegationOptions) {
	t.Helper()
	pub, err := crypto.UnmarshalEd25519PublicKey(n.key().Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if n.id, err = peer.IDFromPublicKey(pub); err != nil {
		t.Fatal(err)
	}
	n.log = slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", string(n.name))
	var more []service.Service
	if n.serveSQL {
		n.databases = sql.New(sql.Options{Dir: filepath.Join(n.dir, "sql"), Open: 2, Log: n.log})
		more = append(more, n.databases)
	}
	n.store, err = capstore.Open(t.Context(), capstore.Options{
		Services: servicetest.Services(more...), Database: filepath.Join(n.dir, "caps.db"), Keys: n.name, Log: n.log,
		Now: func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) },
		Committed: func(c capstore.Commit) {
			if r := n.committed.Load(); r != nil {
				r.Committed(c.Commit)
			} else {
				n.missed.Store(true)
			}
			if n.commit != nil {
				n.commit(c)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		n.leave()
		cancel()
		running.Wait()
		if n.databases != nil {
			if err := n.databases.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	n.replicate(t, d)
}

// replicate makes a replica and runs it until leave is called.
func (n *node) replicate(t testing.TB, d captest.DelegationOptions) {
	t.Helper()
	var err error
	n.r, err = replication.New(replication.Options{
		Space: n.o.space, Key: n.key(), Store: n.shown(), Values: values{n.values, n.store}, Hello: n.store.Hello(), Log: n.log,
		Addrs: func() []ma.Multiaddr { return []ma.Multiaddr{ma.StringCast(n.addr())} },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.committed.Store(n.r)
	n.missed.Store(false)
	h := hooks{
		hello: n.r.ServeHello, sync: n.r.ServeSync, check: n.r.Check,
		connected: n.r.Connected, disconnected: n.r.Disconnected,
	}
	n.end = n.f.add(t, n.id, h, n.block)
	replicate, quit := context.WithCancel(context.Background())
	done := make(chan struct{})
	n.leave = sync.OnceFunc(func() {
		n.committed.Store(nil)
		n.end.close()
		quit()
		<-done
		n.accused = append(n.accused, n.r.Offenders()...)
	})
	if !n.store.Hosted(n.o.space) {
		n.delegate(n.o.hosting(n.key(), d))
	}
	go func() {
		defer close(done)
		if err := n.r.Run(replicate, replication.Net{Peer: n.end, Blocks: n.end, Topic: n.end}); err != nil {
			t.Error(err)
		}
	}()
}

func (n *node) addr() string {
	front, err := peer.IDFromPrivateKey(must(crypto.UnmarshalEd25519PrivateKey(keys(n.name + " front").SpaceKey(n.o.space))))
	if err != nil {
		panic(err)
	}
	return "/ip4/192.0.2.1/tcp/4001/p2p/" + front.String() + "/p2p-circuit/p2p/" + n.id.String()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (n *node) delegate(header string) {
	n.t.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err == nil {
		_, err = n.store.Delegate(context.Background(), tok)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) revoke(header string) {
	n.t.Helper()
	tok, err := capstore.ParseRevocation(header)
	if err == nil {
		err = n.store.Revoke(context.Background(), tok)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// bundles are all that the node has, with small values.
func (n *node) bundles() (all []hostlog.Bundle) {
	n.t.Helper()
	err := n.store.Missing(n.t.Context(), n.o.space, nil, 4096, func(b hostlog.Bundle) error {
		all = append(all, b)
		return nil
	})
	if err != nil || len(all) == 0 {
		n.t.Fatal(all, err)
	}
	return all
}

// join asks for another node's history.
func (n *node) join(others ...*node) {
	n.t.Helper()
	for _, x := range others {
		if err := n.store.AddJoin(context.Background(), n.o.space, []string{x.addr()}, false); err != nil {
			n.t.Fatal(err)
		}
	}
	n.r.Kick()
}

// put writes a key as a client of the node.
func (n *node) put(key, value string) {
	n.t.Helper()
	if err := n.tryPut(key, value); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tryPut(key, value string) error {
	o := n.o
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/kv/" + key: {"tinycloud.kv/put"}},
		Proofs: []tinycloud.Hash{captest.ID(o.header)}, Expires: time.Now().Add(time.Duration(n.ahead.Load()) + time.Minute), Nonce: fmt.Sprint("nonce ", o.n.Add(1)),
	}))
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := n.store.Admit(ctx, tok); err != nil {
		return err
	}
	op := kv.Op{Space: o.space, Key: key, Value: tinycloud.Sum([]byte(value)), Size: int64(len(value))}
	if len(value) <= 64<<10 {
		op.Inline = []byte(value)
	} else {
		n.values.put([]byte(value))
	}
	_, err = kv.Of(n.store).Write(ctx, tok, []kv.Op{op}, nil)
	return err
}

// get returns a value's length and digest prefix, or what is wrong.
func (n *node) get(key string) string {
	n.t.Helper()
	ctx := context.Background()
	r, err := kv.Of(n.store).Get(ctx, n.o.space, key)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return "(none)"
	}
	if err != nil {
		n.t.Fatal(err)
	}
	if b, err := n.store.Inline(ctx, n.o.space, r.Value); err == nil && b != nil {
		return string(b)
	}
	if b, ok := n.values.get(r.Value); ok {
		return string(b)
	}
	return "(on its way)"
}

func (n *node) status() capstore.Status {
	n.t.Helper()
	st, err := n.store.Status(context.Background(), n.o.space)
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

func (n *node) state() string {
	tips, err := n.store.Tips(context.Background(), n.o.space)
	if err != nil {
		n.t.Fatal(err)
	}
	st := n.status()
	return fmt.Sprintf("tips %x keys %d state %s wants %d void %d", tips, st.Keys, st.StateHash, st.Wants, st.Void)
}

// block serves the node's blocks.
func (n *node) block(c cid.Cid) ([]byte, bool) {
	hash := tinycloud.HashOf(c)
	if b, err := n.store.Inline(context.Background(), n.o.space, hash); err == nil && b != nil {
		return b, true
	}
	return n.values.block(hash)
}

// same waits until all nodes have the same history, state and values, and returns how long that took.
func same(t *testing.T, nodes ...*node) time.Duration {
	t.Helper()
	return sameBut(t, func(n *node) int { return int(n.status().Wants) }, nodes...)
}

// sameBut is same, with what counts the values that a node has to get yet.
func sameBut(t *testing.T, lacking func(*node) int, nodes ...*node) time.Duration {
	t.Helper()
	began := time.Now()
	for range 600 {
		synctest.Wait()
		equal := true
		for _, n := range nodes {
			equal = equal && n.state() == nodes[0].state() && lacking(n) == 0
		}
		if equal {
			return time.Since(began)
		}
		<-time.After(time.Second)
	}
	for _, n := range nodes {
		t.Errorf("%s: %s", n.name, n.state())
	}
	t.Fatal("the nodes do not converge")
	return 0
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		synctest.Wait()
		if ok() {
			return
		}
		<-time.After(time.Second)
	}
	t.Fatal("never: ", what)
}

// memValues are the values of one node that are too large for its database.
type memValues struct {
	mu   sync.Mutex
	m    map[tinycloud.Hash][]byte
	part map[tinycloud.Hash]*assembly
	// withhold keeps a block from being served.
	withhold func(tinycloud.Hash) bool
	// lie replaces a manifest.
	lie map[tinycloud.Hash]blockstore.Manifest
}

func newMemValues() *memValues {
	return &memValues{m: map[tinycloud.Hash][]byte{}, part: map[tinycloud.Hash]*assembly{}, lie: map[tinycloud.Hash]blockstore.Manifest{}}
}

func (v *memValues) put(b []byte) tinycloud.Hash {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := tinycloud.Sum(b)
	v.m[h] = b
	return h
}

func (v *memValues) get(h tinycloud.Hash) ([]byte, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, ok := v.m[h]
	return b, ok
}

func (v *memValues) manifest(h tinycloud.Hash) (blockstore.Manifest, int64, bool) {
	b, ok := v.get(h)
	if !ok {
		return blockstore.Manifest{}, 0, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if m, ok := v.lie[h]; ok {
		return m, m.Size, true
	}
	_, m, err := blockstore.BuildManifest(bytes.NewReader(b))
	return m, int64(len(b)), err == nil
}

// block finds a value, manifest or chunk.
func (v *memValues) block(h tinycloud.Hash) ([]byte, bool) {
	v.mu.Lock()
	hide := v.withhold != nil && v.withhold(h)
	var whole []tinycloud.Hash
	for k := range v.m {
		whole = append(whole, k)
	}
	v.mu.Unlock()
	if hide {
		return nil, false
	}
	for _, k := range whole {
		b, _ := v.get(k)
		if k == h && len(b) <= blockstore.ChunkSize {
			return b, true
		}
		m, _, _ := v.manifest(k)
		if len(m.Links) == 0 {
			continue
		}
		if enc := m.Encode(); tinycloud.Sum(enc) == h {
			return enc, true
		}
		for i := 0; i < len(b); i += blockstore.ChunkSize {
			if c := b[i:min(len(b), i+blockstore.ChunkSize)]; tinycloud.Sum(c) == h {
				return c, true
			}
		}
	}
	return nil, false
}

// values is what the node wires for its replica.
type values struct {
	*memValues
	store *capstore.Store
}

func (v values) PutValue(_ context.Context, _ tinycloud.SpaceID, hash tinycloud.Hash, b []byte) error {
	if v.put(b) != hash {
		return tinycloud.ErrForged
	}
	return nil
}

func (v values) Locate(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, tinycloud.Hash, error) {
	if b, err := v.store.Inline(ctx, space, hash); err == nil && b != nil {
		return int64(len(b)), tinycloud.Hash{}, nil
	}
	m, size, ok := v.manifest(hash)
	if !ok {
		return 0, tinycloud.Hash{}, tinycloud.ErrNotFound
	}
	if len(m.Links) == 0 {
		return size, tinycloud.Hash{}, nil
	}
	return size, tinycloud.Sum(m.Encode()), nil
}

func (v values) Assemble(_ context.Context, _ tinycloud.SpaceID, hash tinycloud.Hash, size int64, manifest []byte) (replication.Assembly, error) {
	m, err := blockstore.DecodeManifest(manifest)
	if err != nil {
		return nil, err
	}
	if m.Size != size {
		return nil, fmt.Errorf("manifest of %d bytes, not %d: %w", m.Size, size, tinycloud.ErrInvalid)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.part[hash]
	if a == nil || tinycloud.Sum(a.m.Encode()) != tinycloud.Sum(manifest) {
		a = &assembly{v: v.memValues, hash: hash, m: m, chunks: map[tinycloud.Hash][]byte{}}
		v.part[hash] = a
	}
	return a, nil
}

// assembly keeps chunks in memory.
type assembly struct {
	v      *memValues
	hash   tinycloud.Hash
	m      blockstore.Manifest
	chunks map[tinycloud.Hash][]byte
}

func (a *assembly) Missing() (out []tinycloud.Hash) {
	seen := map[tinycloud.Hash]bool{}
	for _, l := range a.m.Links {
		if _, ok := a.chunks[l]; !ok && !seen[l] {
			seen[l] = true
			out = append(out, l)
		}
	}
	return out
}

func (a *assembly) PutChunk(h tinycloud.Hash, b []byte) error {
	if tinycloud.Sum(b) != h {
		return tinycloud.ErrForged
	}
	a.chunks[h] = b
	return nil
}

func (a *assembly) Finish(context.Context) error {
	var whole []byte
	for _, l := range a.m.Links {
		whole = append(whole, a.chunks[l]...)
	}
	if tinycloud.Sum(whole) != a.hash {
		_ = a.Discard()
		return fmt.Errorf("another value: %w", tinycloud.ErrForged)
	}
	a.v.put(whole)
	return a.Discard()
}

func (a *assembly) Close() error { return nil }

func (a *assembly) Discard() error {
	a.v.mu.Lock()
	defer a.v.mu.Unlock()
	delete(a.v.part, a.hash)
	return nil
}
