package p2p

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// Name is what nodes announce themselves under. To who does not know how it
// was made it is 32 random bytes.
type Name [32]byte

func newDHT(h host.Host, seeds []peer.AddrInfo) (*dht.IpfsDHT, error) {
	d, err := dht.New(h,
		dht.ProtocolPrefix("/tinycloud"), dht.Mode(dht.ModeAutoServer), dht.DisableValues(), dht.BootstrapPeers(seeds...),
		dht.ProviderDatastore(&providers{names: map[string]map[string][]byte{}}),
		dht.ProviderManagerOpts(records.ProvideValidity(providerLife), records.ProviderAddrTTL(providerLife)),
	)
	if err != nil {
		return nil, fmt.Errorf("dht: %w", err)
	}
	return d, nil
}

// Provide tells the DHT that this front is to be found under a name, for
// some hours. Errors: [ErrInvalid] without [Options].DHT, [ErrUnreachable]
// while no other server is known, or that of ctx.
func (f *Front) Provide(ctx context.Context, name Name) error {
	if f.link != nil {
		return f.link.provide(ctx, name)
	}
	if f.dht == nil {
		return fmt.Errorf("no dht: %w", ErrInvalid)
	}
	if f.dht.RoutingTable().Size() == 0 {
		return fmt.Errorf("dht is empty: %w", ErrUnreachable)
	}
	c, err := name.cid()
	if err != nil {
		return err
	}
	if err := f.dht.Provide(ctx, c, true); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("dht: %w: %w", ErrUnreachable, err)
	}
	return nil
}

// Providers yields other fronts that the DHT has under a name, a few at most,
// until ctx ends. Whoever knows the name may have put itself there.
func (f *Front) Providers(ctx context.Context, name Name) iter.Seq[peer.AddrInfo] {
	if f.link != nil {
		return f.link.providers(ctx, name)
	}
	return func(yield func(peer.AddrInfo) bool) {
		c, err := name.cid()
		if f.dht == nil || err != nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for ai := range f.dht.FindProvidersAsync(ctx, c, maxProviders) {
			if ai.ID != f.ID() && !yield(ai) {
				return
			}
		}
	}
}

func (n Name) cid() (cid.Cid, error) {
	h, err := multihash.Encode(n[:], multihash.SHA2_256)
	if err != nil {
		return cid.Undef, fmt.Errorf("name: %w: %w", ErrInvalid, err)
	}
	return cid.NewCidV1(cid.Raw, h), nil
}

// providers keeps what other nodes announce here, in memory: two levels, the
// name and the provider. When it is full anything goes, so that a flood
// can't keep newcomers out; who is still there announces itself again.
type providers struct {
	mu    sync.Mutex
	names map[string]map[string][]byte // guarded by mu
}

var _ ds.Batching = (*providers)(nil)

// split cuts /providers/<name>/<provider>; provider is "" for a whole name.
func split(key string) (name, provider string) {
	name = strings.TrimPrefix(key, records.ProvidersKeyPrefix)
	name, provider, _ = strings.Cut(name, "/")
	return name, provider
}

func (p *providers) Put(_ context.Context, key ds.Key, value []byte) error {
	name, provider := split(key.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.names[name]
	if of == nil {
		trim(p.names, providedNames)
		of = map[string][]byte{}
		p.names[name] = of
	}
	if _, ok := of[provider]; !ok {
		trim(of, providersPerName)
	}
	of[provider] = value
	return nil
}

// trim makes room for one more.
func trim[V any](m map[string]V, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}

func (p *providers) Get(_ context.Context, key ds.Key) ([]byte, error) {
	name, provider := split(key.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.names[name][provider]; ok {
		return v, nil
	}
	return nil, ds.ErrNotFound
}

func (p *providers) Has(ctx context.Context, key ds.Key) (bool, error) {
	_, err := p.Get(ctx, key)
	return err == nil, nil
}

func (p *providers) GetSize(ctx context.Context, key ds.Key) (int, error) {
	v, err := p.Get(ctx, key)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

func (p *providers) Delete(_ context.Context, key ds.Key) error {
	name, provider := split(key.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.names[name], provider)
	if len(p.names[name]) == 0 {
		delete(p.names, name)
	}
	return nil
}

// Query lists the providers of the name in the prefix, or all.
func (p *providers) Query(_ context.Context, q dsq.Query) (dsq.Results, error) {
	only, _ := split(q.Prefix)
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []dsq.Entry
	list := func(name string) {
		for provider, v := range p.names[name] {
			out = append(out, dsq.Entry{Key: records.ProvidersKeyPrefix + name + "/" + provider, Value: v, Size: len(v)})
		}
	}
	if only != "" {
		list(only)
	} else {
		for name := range p.names {
			list(name)
		}
	}
	return dsq.ResultsWithEntries(q, out), nil
}

func (p *providers) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(p), nil }
func (p *providers) Sync(context.Context, ds.Key) error      { return nil }
func (p *providers) Close() error                            { return nil }

// Bounds of the DHT.
const (
	providerLife     = 3 * time.Hour // after which an announcement is forgotten
	providedNames    = 16 << 10      // that this server keeps
	providersPerName = 64
	maxProviders     = 20 // of one search
)
