package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
)

// Options of a [Node].
type Options struct {
	Log     *slog.Logger // nil: nothing is logged
	Version string       // of this program, as /info tells it
}

// Node is one host with all its parts.
type Node struct {
	cfg    config.Config
	o      Options
	log    *slog.Logger
	keys   *hostkeys.Static
	store  *capstore.Store
	blocks *blockstore.Store
	front  *p2p.Front
	lan    *p2p.LAN // nil without p2p.mdns
	where  *replication.Locator
	spaces *spaces
	api    *httpapi.API

	registry *prometheus.Registry
	public   net.Listener
	metrics  net.Listener
	admin    *socket // nil without datadir
}

// New opens everything a node needs; errors name the setting they come from. The caller calls Run, once,
// which also closes it.
func New(ctx context.Context, cfg config.Config, o Options) (_ *Node, err error) {
	n := &Node{cfg: cfg, o: o, log: o.Log}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := errors.Join(cfg.Unsupported(), unserved(cfg)); err != nil {
		return nil, err
	}
	if err := n.loadKeys(); err != nil {
		return nil, err
	}
	if err := n.openStores(ctx); err != nil {
		return nil, err
	}
	if err := n.openFront(); err != nil {
		return nil, err
	}
	n.api = httpapi.New(httpapi.Options{
		Store: n.store, Stage: n.stage, HostDID: n.hostDID,
		NodeID: hostkeys.DIDKey(n.nodeKey()), Version: o.Version,
		CORS: cfg.CORS, TraceHeader: cfg.Log.TraceHeader, CursorKey: n.keys.Derive(hostkeys.ContextListCursor),
		RatePerMinute: cfg.PublicSpaces.RatePerMinute, Burst: cfg.PublicSpaces.RateBurst,
		Log: n.log.With("part", "http"),
	})
	n.register()
	return n, n.listen()
}

// unserved names settings that promise a restriction this build would not keep.
func unserved(cfg config.Config) error {
	var errs []error
	if cfg.Spaces.Allowlist != "" {
		errs = append(errs, errors.New("spaces.allowlist: not served by this build, and without it anyone may host here"))
	}
	if cfg.QuotaURL != "" {
		errs = append(errs, errors.New("quota_url: not served by this build, set storage.limit"))
	}
	if cfg.P2P.Isolated {
		errs = append(errs, errors.New("p2p.isolated: not served by this build: Spaces would share a connection"))
	}
	return errors.Join(errs...)
}

func (n *Node) loadKeys() error {
	secret, warnings, err := n.cfg.ResolveSecret()
	if err != nil {
		return fmt.Errorf("keys.secret: %w", err)
	}
	for _, w := range warnings {
		n.log.Warn("configuration", "warning", w.String())
	}
	n.keys, err = hostkeys.New(secret.Bytes())
	if err != nil {
		return fmt.Errorf("keys.secret: %w", err)
	}
	return nil
}

// openStores opens the database first: its lock keeps a second process from the blocks too.
func (n *Node) openStores(ctx context.Context) (err error) {
	database := n.cfg.Storage.Database.Path()
	if n.cfg.Storage.Database.InMemory() {
		database = capstore.InMemory
	}
	n.spaces = newSpaces(n)
	n.store, err = capstore.Open(ctx, capstore.Options{
		Database: database, Keys: n.keys, Blocks: values{n}, MaxLifetime: n.cfg.MaxLifetime,
		Limit: n.limit, Committed: n.spaces.committed, Log: n.log.With("part", "database"),
	})
	if err != nil {
		return err
	}
	n.blocks, err = blockstore.Open(blockstore.Options{
		Dir: n.cfg.Storage.Blocks.Path, Staging: blockstore.Staging(n.cfg.Storage.Staging),
		Inline: n.inline, Log: n.log.With("part", "blocks"),
	})
	return err
}

// limit is how many bytes a Space may hold; a Space named public is readable by anyone and has a limit of
// its own.
func (n *Node) limit(space tinycloud.SpaceID) (int64, bool) {
	limit := n.cfg.Storage.Limit
	if space.Name() == "public" {
		limit = n.cfg.PublicSpaces.Limit
	}
	return limit.Int64(), limit > 0
}

func (n *Node) openFront() (err error) {
	o := p2p.Options{Key: n.keys.NodeKey(), Wake: n.spaces.wake, NAT: n.cfg.P2P.NAT, DHT: n.cfg.P2P.DHT, Log: n.log.With("part", "p2p")}
	if o.Listen, err = multiaddrs("p2p.listen", n.cfg.P2P.Listen); err != nil {
		return err
	}
	if o.Announce, err = multiaddrs("p2p.announce", n.cfg.P2P.Announce); err != nil {
		return err
	}
	for _, text := range n.cfg.P2P.Bootstrap {
		to, err := parseTarget(text)
		if err != nil {
			return fmt.Errorf("p2p.bootstrap: %w", err)
		}
		o.Seeds = append(o.Seeds, to.front)
	}
	if n.front, err = p2p.New(o); err != nil {
		return fmt.Errorf("p2p.listen: %w", err)
	}
	if n.cfg.P2P.MDNS {
		if n.lan, err = n.front.OpenLAN(); err != nil {
			return fmt.Errorf("p2p.mdns: %w", err)
		}
	}
	return n.openLocator()
}

func multiaddrs(setting string, texts []string) (out []ma.Multiaddr, err error) {
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", setting, text, err)
		}
		out = append(out, a)
	}
	return out, nil
}

func (n *Node) listen() (err error) {
	n.public, err = listenTCP(n.cfg.Address.String(), n.cfg.Port)
	if err != nil {
		return fmt.Errorf("address, port: %w", err)
	}
	n.metrics, err = listenTCP(n.cfg.Address.String(), n.cfg.PrometheusPort)
	if err != nil {
		return fmt.Errorf("prometheus.port: %w", err)
	}
	if n.cfg.Storage.Datadir == "" {
		return nil
	}
	n.admin, err = listenSocket(n.cfg.Storage.Datadir)
	if err != nil {
		return fmt.Errorf("storage.datadir: %w", err)
	}
	return nil
}

func listenTCP(address string, port uint16) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
}

func (n *Node) register() {
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.registry.MustRegister(n.api.Collectors()...)
	n.registry.MustRegister(n.spaces.collectors()...)
}

// URL is where the HTTP API is, with the port that was bound.
func (n *Node) URL() string { return "http://" + n.public.Addr().String() }

// MetricsURL is where the metrics are.
func (n *Node) MetricsURL() string { return "http://" + n.metrics.Addr().String() + "/metrics" }

func (n *Node) nodeKey() ed25519.PublicKey { return n.keys.NodeKey().Public().(ed25519.PublicKey) }

// spaceKey is the public key of this node in a Space.
func (n *Node) spaceKey(space tinycloud.SpaceID) ed25519.PublicKey {
	return n.keys.SpaceKey(space).Public().(ed25519.PublicKey)
}

func (n *Node) hostDID(space tinycloud.SpaceID) string { return hostkeys.DIDKey(n.spaceKey(space)) }

func (n *Node) spacePeer(space tinycloud.SpaceID) peer.ID {
	id, _ := p2p.PeerIDFromEd25519(n.spaceKey(space)) // a derived key has the right length
	return id
}

// Run serves until the context ends, then finishes what was accepted and closes everything. It returns
// nil after an orderly end.
func (n *Node) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	writer := begin(ctx, n.store.Run, fail)
	replicas := begin(ctx, n.spaces.run, fail)
	n.log.Info("serving", "url", n.URL(), "metrics", n.MetricsURL(), "node", n.front.ID(), "listen", texts(n.front.Addrs()))
	err := n.serve(ctx)
	fail(err)
	n.log.Info("stopping")
	err = errors.Join(err, replicas.end())
	err = errors.Join(err, n.closeFront())
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(err, n.store.SaveReplays(saving), writer.end(), n.close())
	n.log.Info("stopped")
	return err
}

// serve runs what ends first.
func (n *Node) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHTTP(ctx, n.public, n.publicHandler(), n.log) })
	g.Go(func() error { return serveHTTP(ctx, n.metrics, n.metricsHandler(), n.log) })
	if n.admin != nil {
		g.Go(func() error { return serveHTTP(ctx, n.admin, n.localHandler(), n.log) })
	}
	g.Go(func() error { return n.saveReplays(ctx) })
	g.Go(func() error {
		if err := n.blocks.Repair(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	return g.Wait()
}

// saveReplays writes the tokens of reads to the database now and then.
func (n *Node) saveReplays(ctx context.Context) error {
	const every = 5 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := n.store.SaveReplays(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("used tokens not saved, trying again", "error", err)
			}
		}
	}
}

// close releases what is still open, in the order of need.
func (n *Node) close() error {
	var errs []error
	if n.spaces != nil {
		n.spaces.end() // the front waits for whoever asks
	}
	for _, l := range []net.Listener{n.public, n.metrics} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if n.admin != nil {
		errs = append(errs, n.admin.remove())
	}
	errs = append(errs, n.closeFront())
	if n.blocks != nil {
		errs = append(errs, n.blocks.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

// closeFront leaves the network, once.
func (n *Node) closeFront() (err error) {
	if n.lan != nil {
		err = n.lan.Close()
		n.lan = nil
	}
	if n.front != nil {
		err = errors.Join(err, n.front.Close())
		n.front = nil
	}
	return err
}

// layer is a goroutine that ends after those above it, not with them.
type layer struct {
	cancel context.CancelFunc
	done   chan error // capacity 1: its end is never held up
}

// begin runs a layer; its failure ends all.
func begin(ctx context.Context, run func(context.Context) error, fail context.CancelCauseFunc) *layer {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &layer{cancel: cancel, done: make(chan error, 1)}
	go func() {
		err := run(own)
		if err != nil {
			fail(err)
		}
		l.done <- err
	}()
	return l
}

func (l *layer) end() error {
	l.cancel()
	return <-l.done
}

// Socket returns the path of the admin socket of the node that uses a data directory.
func Socket(datadir string) string {
	if recorded, err := os.ReadFile(filepath.Join(datadir, socketRecord)); err == nil {
		return string(recorded)
	}
	return filepath.Join(datadir, socketName)
}

func texts(addrs []ma.Multiaddr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}
