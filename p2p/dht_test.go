package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

func frontInfo(f *p2p.Front) peer.AddrInfo {
	return peer.AddrInfo{ID: f.ID(), Addrs: f.Host().Addrs()}
}

// Two fronts that know only a third find each other under a name.
func TestDHT(t *testing.T) {
	server := newFront(t, p2p.Options{DHT: true})
	seeds := []peer.AddrInfo{frontInfo(server)}
	a := newFront(t, p2p.Options{DHT: true, Seeds: seeds})
	b := newFront(t, p2p.Options{DHT: true, Seeds: seeds})
	name := p2p.Name{1, 2, 3}
	eventually(t, "provided", func() bool { return a.Provide(testContext(t), name) == nil })
	if got, err := a.Host().Peerstore().GetProtocols(server.ID()); err != nil || !slices.Contains(got, "/tinycloud/kad/1.0.0") {
		t.Fatalf("protocols %v, %v", got, err)
	}
	find := func(name p2p.Name) (found []peer.ID) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for ai := range b.Providers(ctx, name) {
			if len(ai.Addrs) == 0 {
				t.Errorf("%s without an address", ai.ID)
			}
			found = append(found, ai.ID)
			break
		}
		return found
	}
	eventually(t, "found", func() bool { return slices.Equal(find(name), []peer.ID{a.ID()}) })
	if found := find(p2p.Name{1, 2, 4}); len(found) != 0 {
		t.Errorf("under a name that nobody has: %v", found)
	}
}

func TestDHTIsOff(t *testing.T) {
	f := newFront(t, p2p.Options{})
	if err := f.Provide(t.Context(), p2p.Name{}); !errors.Is(err, p2p.ErrInvalid) {
		t.Errorf("provide: %v", err)
	}
	for ai := range f.Providers(t.Context(), p2p.Name{}) {
		t.Errorf("found %v", ai)
	}
	if slices.Contains(f.Host().Mux().Protocols(), "/tinycloud/kad/1.0.0") {
		t.Error("dht without being asked for")
	}
	alone := newFront(t, p2p.Options{DHT: true})
	if err := alone.Provide(t.Context(), p2p.Name{}); !errors.Is(err, p2p.ErrUnreachable) {
		t.Errorf("provide to nobody: %v", err)
	}
}

func TestProvidersAreBounded(t *testing.T) {
	store, ctx := p2p.NewProviders(), t.Context()
	count := func(prefix string) int {
		t.Helper()
		res, err := store.Query(ctx, dsq.Query{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		all, err := res.Rest()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	put := func(name, provider int) {
		t.Helper()
		key := ds.NewKey(fmt.Sprintf("/providers/N%d/P%d", name, provider))
		if err := store.Put(ctx, key, []byte("at")); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Get(ctx, key); err != nil {
			t.Fatal("the newest is gone: ", err)
		}
	}
	for i := range 2 * p2p.ProvidersPerName {
		put(0, i)
	}
	if n := count("/providers/N0"); n != p2p.ProvidersPerName {
		t.Errorf("%d providers of a name", n)
	}
	for i := range p2p.ProvidedNames + 1000 {
		put(i, 0)
	}
	if n := count("/providers/"); n < p2p.ProvidedNames || n > p2p.ProvidedNames+p2p.ProvidersPerName {
		t.Errorf("%d providers", n)
	}
	for i := range p2p.ProvidedNames + 1000 {
		if err := store.Delete(ctx, ds.NewKey(fmt.Sprintf("/providers/N%d/P0", i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := count("/providers/"); n > p2p.ProvidersPerName {
		t.Errorf("%d providers after all were deleted", n)
	}
}
