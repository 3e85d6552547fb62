package replication_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

var (
	_ replication.Peer      = (*p2p.Peer)(nil)
	_ replication.Blocks    = (*p2p.Peer)(nil)
	_ replication.Publisher = (*p2p.Topic)(nil)
	_ replication.Assembly  = (*blockstore.Assembly)(nil)
)

// onDisk wires a replica to a real block store.
type onDisk struct {
	*blockstore.Store
	caps *capstore.Store
}

func (v onDisk) Locate(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, tinycloud.Hash, error) {
	b, err := v.caps.Inline(ctx, space, hash)
	if err != nil || b != nil {
		return int64(len(b)), tinycloud.Hash{}, err
	}
	m, err := v.Manifest(ctx, space, hash)
	if err != nil || len(m.Links) == 0 {
		return m.Size, tinycloud.Hash{}, err
	}
	return m.Size, tinycloud.Sum(m.Encode()), nil
}

func (v onDisk) Assemble(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64, manifest []byte) (replication.Assembly, error) {
	m, err := blockstore.DecodeManifest(manifest)
	if err == nil && m.Size != size {
		err = fmt.Errorf("manifest of %d bytes, not %d: %w", m.Size, size, tinycloud.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	return v.Store.Assemble(ctx, space, hash, m)
}

// real is a host with sockets and files.
type real struct {
	node
	peer   *p2p.Peer
	blocks *blockstore.Store
	came   chan struct{} // something became durable
}

func newReal(t *testing.T, o *owner, name string) *real {
	t.Helper()
	x := &real{node: node{t: t, o: o, name: keys(name), dir: t.TempDir()}, came: make(chan struct{}, 1)}
	var r atomic.Pointer[replication.Replica]
	x.store = must(capstore.Open(t.Context(), capstore.Options{
		Services: servicetest.Services(), Database: filepath.Join(x.dir, "caps.db"), Keys: x.name,
		Committed: func(c capstore.Commit) {
			if r := r.Load(); r != nil {
				r.Committed(c.Commit)
			}
			select {
			case x.came <- struct{}{}:
			default:
			}
		},
	}))
	x.blocks = must(blockstore.Open(t.Context(), blockstore.Options{
		Dir: filepath.Join(x.dir, "blocks"),
		Inline: func(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) ([]byte, error) {
			b, err := x.store.Inline(ctx, space, hash)
			if err == nil && b == nil {
				err = tinycloud.ErrNotFound
			}
			return b, err
		},
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var writer, replicas sync.WaitGroup
	writer.Go(func() { _ = x.store.Run(ctx) })
	x.delegate(o.hosting(x.key(), captest.DelegationOptions{IssuedAt: time.Now()}))
	front := must(p2p.New(p2p.Options{
		Key: keys(name + " front").SpaceKey(o.space), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
	}))
	front.Start(ctx)
	x.r = must(replication.New(replication.Options{
		Space: o.space, Key: x.key(), Store: x.store, Values: onDisk{x.blocks, x.store}, Hello: servicetest.Hello(),
		Addrs: func() []ma.Multiaddr {
			return front.SpaceAddrs(must(p2p.PeerIDFromEd25519(x.key().Public().(ed25519.PublicKey))))
		},
	}))
	r.Store(x.r)
	x.peer = must(front.Open(ctx, p2p.PeerOptions{
		Key: x.key(), HelloProtocols: wire.HelloProtocols(), Hello: x.r.ServeHello,
		Connected: x.r.Connected, Disconnected: x.r.Disconnected, Blocks: x.blocks.Blocks(o.space),
	}))
	x.peer.Handle(wire.SyncProtocol, func(s network.Stream) { x.r.ServeSync(s) })
	topic := must(x.peer.Join(wire.Topic, func(ctx context.Context, from peer.ID, data []byte) p2p.Verdict {
		switch err := x.r.Check(ctx, from, data); {
		case err == nil:
			return p2p.Accept
		case errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged):
			return p2p.Reject
		}
		return p2p.Ignore
	}))
	replicate, quit := context.WithCancel(context.Background())
	replicas.Go(func() {
		if err := x.r.Run(replicate, replication.Net{Peer: x.peer, Blocks: x.peer, Topic: topic}); err != nil {
			t.Error(err)
		}
	})
	x.stop = sync.OnceFunc(func() {
		quit()
		replicas.Wait()
		err := errors.Join(topic.Close(), front.Close())
		cancel()
		writer.Wait()
		if err := errors.Join(err, x.blocks.Close(), x.store.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(x.stop)
	return x
}

// equal waits until x has what other has.
func (x *real) equal(t *testing.T, other *real) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		if x.state() == other.state() && x.status().Wants == 0 {
			return
		}
		select {
		case <-x.came:
		case <-other.came:
		case <-time.After(20 * time.Millisecond): // a value that arrives is not announced
		case <-limit:
			t.Fatalf("%s: %s\n%s: %s", x.name, x.state(), other.name, other.state())
		}
	}
}

// Two hosts over TCP on loopback, with all that a node wires: history, live writes, values of every kind,
// and a revocation.
func TestSockets(t *testing.T) {
	o := newOwner("sockets")
	first := newReal(t, o, "first")
	first.delegate(o.header)
	sizes := []int{0, 100, 5000, 70_000, 64 << 10, 1<<20 + 5, 3 << 20}
	write := func(x *real, prefix string) {
		for i, n := range sizes {
			value := []byte(random(uint64(i), n))
			if n > 64<<10 {
				st := must(x.blocks.Stage(t.Context(), bytes.NewReader(value), 1<<30))
				if err := st.Commit(t.Context(), o.space); err != nil {
					t.Fatal(err)
				}
				x.values = newMemValues()
			}
			x.put(fmt.Sprint(prefix, "/", n), string(value))
		}
	}
	write(first, "before")
	second := newReal(t, o, "second")
	if err := second.store.AddJoin(t.Context(), o.space, []string{first.peer.Addrs()[0].String()}, false); err != nil {
		t.Fatal(err)
	}
	second.r.Kick()
	second.equal(t, first)
	write(second, "after")
	first.equal(t, second)
	for i, n := range sizes {
		for _, key := range []string{fmt.Sprint("before/", n), fmt.Sprint("after/", n)} {
			for _, x := range []*real{first, second} {
				if got := x.read(t, key); got != random(uint64(i), n) {
					t.Errorf("%s on %s: %d bytes are not the value", key, x.name, len(got))
				}
			}
		}
	}
	began := time.Now()
	first.revoke(o.wallet.SignRevocation(hostDelegation(t, &second.node)))
	for first.peer.Connected(second.peer.ID()) {
		if time.Since(began) > 30*time.Second { // the bound of a second is tested in virtual time
			t.Fatal("a revoked host stays connected")
		}
		<-time.After(time.Millisecond)
	}
}

func (x *real) read(t *testing.T, key string) string {
	t.Helper()
	rec, err := kv.Of(x.store).Get(t.Context(), x.o.space, key)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := x.store.Inline(t.Context(), x.o.space, rec.Value); err == nil && b != nil {
		return string(b)
	}
	v, _, err := x.blocks.Open(t.Context(), x.o.space, rec.Value)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	return string(must(io.ReadAll(v)))
}
