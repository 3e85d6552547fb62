package node

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/certs"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/page"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/policy"
	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
	"github.com/TinyCloudLabs/tinycloud-peer/replication"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/locate"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Options of a [Node].
type Options struct {
	Log     *slog.Logger // nil: nothing is logged
	Version string       // of this program, as /info tells it

	// NewIdentity has the node go on with data that are of a node with another secret, as another host of the Spaces.
	NewIdentity bool

	// Now is the clock by which tokens are judged and entries are dated; nil means time.Now.
	Now func() time.Time

	// Busy is told when the node begins to take in a long history, and when it is done; see [capstore.Options].
	Busy func(on bool)

	// AnyMetricsPort and AnyListenPort let the system choose another port where prometheus.port, or those of p2p.listen, is
	// taken: nobody asked for it.
	AnyMetricsPort, AnyListenPort bool

	// PagePortAsked says that the operator set admin.port: where it is taken, the node does not start. Else it takes another.
	PagePortAsked bool

	// Services stand beside key-value. Those that are an [io.Closer] are closed with the node.
	Services []service.HTTP

	// Rest is how long a Space stays open without another host; 0 means a quarter of an hour.
	Rest time.Duration

	// Awake is how many Spaces stay open although nothing happens in them, and Quiet for how long nothing has to
	// happen in one before it may rest; 0 means 128 and a minute, negative none.
	Awake int
	Quiet time.Duration
}

// Node is one host with all its parts.
type Node struct {
	cfg       config.Config
	o         Options
	log       *slog.Logger
	keys      *hostkeys.Static
	store     *capstore.Store
	keyValue  *kv.Keys // in store
	blocks    *blockstore.Store
	front     atomic.Pointer[p2p.Front] // nil while another process leads and this one is not linked to it
	dealer    atomic.Pointer[dealer]    // nil unless this process leads others
	lan       atomic.Pointer[p2p.LAN]   // nil without p2p.mdns, too
	where     *locate.Locator
	pairing   *replication.Pairing
	entrances entrances // with p2p.isolated
	spaces    *spaces
	hooks     *hooks.Hooks
	networks  *encryption.Networks
	api       *httpapi.API
	room      *room
	probed    *probe            // whether the bucket can be reached
	files     sync.Mutex        // held while values are freed, or copied for a backup
	quota     *policy.Quota     // nil without quota_url
	allow     *policy.Allowlist // nil without spaces.allowlist

	listed map[peer.ID]struct{} // nodes of p2p.bootstrap

	registry *prometheus.Registry
	proxies  *callers.Proxies
	callers  *callers.Metrics
	public   net.Listener
	tls      *tls.Config  // of public; nil: it speaks plain HTTP
	acme     *certs.ACME  // nil without tls.domain
	plain    net.Listener // redirects to public; nil without TLS, or with tls.plain_port = false
	metrics  net.Listener
	admin    *socket      // nil without datadir
	pageOn   net.Listener // nil with admin.port = false
	page     *page.Page   // likewise

	// What is shown of the node.
	began   time.Time
	recent  *recent
	live    *live
	samples samples
	alerts  alerts
	aliases aliases
}

// New opens everything a node needs; errors name the setting they come from. The caller calls Run, once,
// which also closes it.
func New(ctx context.Context, cfg config.Config, o Options) (_ *Node, err error) {
	n := &Node{cfg: cfg, o: o, log: o.Log, began: time.Now(), recent: &recent{}, live: newLive(), callers: callers.NewMetrics(), entrances: entrances{open: map[tinycloud.SpaceID]entrance{}}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.recent.added = n.live.event
	n.log = slog.New(recorder{Handler: n.log.Handler(), recent: n.recent})
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := checkIsolated(cfg.P2P); err != nil {
		return nil, err
	}
	if err := n.loadKeys(ctx); err != nil {
		return nil, err
	}
	if o.NewIdentity {
		n.log.WarnContext(ctx, "started with --new-identity: leave it out from now on, for it takes whatever data there are")
	}
	n.listBootstrap()
	n.openPolicies()
	n.warnOpen()
	if n.proxies, err = callers.NewProxies(cfg.TrustedProxies, cfg.ProxyHeaders); err != nil {
		return nil, fmt.Errorf("ip_header: %w", err)
	}
	if err := n.openStores(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(n.openLocator(), n.openPairing(ctx)); err != nil {
		return nil, err
	}
	if err := n.checkFront(ctx); err != nil {
		return nil, err
	}
	n.api = httpapi.New(httpapi.Options{
		Store: n.store, Stage: n.stage, Health: n.health, HostDID: n.hostDID, Fetch: n.spaces.fetch, Hooks: n.hooks, Services: o.Services, Networks: n.networks,
		NodeID: didOf(n.keys), Version: o.Version,
		CORS: cfg.CORS, TraceHeader: cfg.Log.TraceHeader, CursorKey: n.keys.Derive(hostkeys.ContextListCursor),
		Quota: n.learnQuota, QuotaURL: publicURL(cfg.QuotaURL),
		RatePerMinute: cfg.PublicSpaces.RatePerMinute, Burst: cfg.PublicSpaces.RateBurst,
		Log: n.log.With("part", "http"),
	})
	n.register(ctx)
	return n, n.listen()
}

// openStores opens the database first: its lock keeps a second process from the blocks too.
func (n *Node) openStores(ctx context.Context) (err error) {
	n.spaces = newSpaces(n)
	n.room = newRoom(n.cfg, n.log)
	n.store, err = capstore.Open(ctx, capstore.Options{
		Database: databaseOf(n.cfg), Keys: n.keys, Identity: n.identity(), Blocks: values{n}, MaxLifetime: n.cfg.MaxLifetime,
		Policy: capstore.Policy(n.cfg.P2P.Values), Limit: n.limit, Room: n.room.check, Allow: n.allowed, Named: n.nodesConfigured, Unpaired: n.cfg.P2P.Isolated || n.alone(), JoinTimeout: n.cfg.P2P.JoinTimeout, Committed: n.committed, Heeds: n.heeds, Busy: n.o.Busy, Now: n.o.Now, Services: historyOf(n.o.Services), Log: n.log.With("part", "database"),
	})
	if err != nil {
		return n.otherNode(err)
	}
	n.keyValue = kv.Of(n.store)
	n.hooks = hooks.New(hooks.Options{
		Store: n.store, TicketKey: n.keys.Derive(hostkeys.ContextHookTickets),
		SecretKey: n.keys.Derive(hostkeys.ContextWebhookSecrets), Lead: n.leadWebhooks(), Now: n.o.Now, Log: n.log.With("part", "hooks"),
	})
	n.networks = encryption.New(encryption.Options{
		Store: n.store, Node: n.keys.NodeKey(), Seal: n.keys.Derive(hostkeys.ContextNetworkSeal),
		Share: encryption.Share(n.cfg.Encryption.Share), Paired: n.pairedWith, AnyPaired: func() bool { return n.store.PairedCount() > 0 && !n.cfg.P2P.Isolated },
		Others: secretsHosts{n.spaces}, Changed: n.spaces.secretsChanged,
	})
	o := blockstore.Options{
		Dir: n.cfg.BlocksDir(), Staging: blockstore.Staging(n.cfg.Storage.Staging),
		Inline: n.inline, Room: n.room.check, Log: n.log.With("part", "blocks"),
	}
	if b := n.cfg.Storage.Blocks; b.Type == config.BlocksS3 {
		o.S3 = blockstore.S3FromEnv(b.Endpoint, b.Bucket, os.Getenv)
	}
	n.blocks, err = blockstore.Open(ctx, o)
	if err == nil {
		n.probed = &probe{question: n.blocks.Ping, now: time.Now}
	}
	return err
}

// historyOf are services as the history knows them, with key-value, which every node has.
func historyOf(all []service.HTTP) []service.Service {
	out := []service.Service{kv.Service{}}
	for _, x := range all {
		out = append(out, x)
	}
	return out
}

// committed tells of a commit. It runs on the database's writer and does not block.
func (n *Node) committed(c capstore.Commit) {
	n.spaces.committed(c)
	n.hooks.Committed(c)
	n.live.space(c.Space)
	for _, f := range n.followers() {
		f.Changed(c.Space)
	}
}

// heeds reports what of another process's commits in a Space is used here: a replica sends entries on, and streams tell of changes.
func (n *Node) heeds(space tinycloud.SpaceID) (entries, changes bool) {
	return n.spaces.get(space) != nil, n.hooks.Heeds(space)
}

// followers are the services that keep up with the history beside what they are asked.
func (n *Node) followers() (all []service.Follower) {
	for _, x := range n.o.Services {
		if f, ok := x.(service.Follower); ok {
			all = append(all, f)
		}
	}
	return all
}

// checkFront opens the front, or checks its settings when it is for the process that leads.
func (n *Node) checkFront(ctx context.Context) error {
	if n.shared() {
		_, err := n.frontOptions()
		return err
	}
	return n.openFront(ctx)
}

func (n *Node) openFront(ctx context.Context) error {
	o, err := n.frontOptions()
	if err != nil {
		return err
	}
	if n.cfg.P2P.Isolated {
		o.Listen, o.NAT = nil, false
	}
	f, err := p2p.New(o)
	if err != nil && n.o.AnyListenPort && !n.shared() {
		n.log.WarnContext(ctx, "the ports for other hosts are taken, others are used until the next start: set p2p.listen", "error", err)
		o.Listen = anyPort(o.Listen)
		f, err = p2p.New(o)
	}
	if err != nil {
		return fmt.Errorf("p2p.listen: %w", err)
	}
	if n.cfg.P2P.MDNS && !n.alone() {
		lan, err := f.OpenLAN()
		if err != nil {
			return errors.Join(fmt.Errorf("p2p.mdns: %w", err), f.Close())
		}
		n.lan.Store(lan)
	}
	if !n.cfg.P2P.Isolated && !n.alone() {
		f.Handle(ctx, wire.PairProtocol, n.servePair)
		f.HandleTrusted(ctx, locate.Protocol, n.spaces.asker.trusts, n.toAdmitted(n.where.Serve))
	}
	n.front.Store(f)
	return nil
}

// anyPort has the system choose the ports of addresses.
func anyPort(addrs []ma.Multiaddr) (out []ma.Multiaddr) {
	for _, a := range addrs {
		var b ma.Multiaddr
		for _, c := range a {
			if code := c.Protocol().Code; code == ma.P_TCP || code == ma.P_UDP {
				if any, err := ma.NewComponent(c.Protocol().Name, "0"); err == nil {
					c = *any
				}
			}
			b = append(b, c)
		}
		out = append(out, b)
	}
	return out
}

func (n *Node) frontOptions() (o p2p.Options, err error) {
	o = p2p.Options{Key: n.keys.NodeKey(), Process: n.processKey(), Wake: n.spaces.wake, Known: n.spaces.known, Admits: n.admits, Lost: n.spaces.lost, Refused: n.spaces.metrics.Refused, NAT: n.cfg.P2P.NAT, DHT: n.cfg.P2P.DHT, Log: n.log.With("part", "p2p")}
	for _, text := range n.cfg.P2P.Bootstrap {
		to, err := parseTarget(text)
		if err != nil {
			return o, fmt.Errorf("p2p.bootstrap: %w", err)
		}
		o.Seeds = append(o.Seeds, to.front)
	}
	if n.alone() { // the front is a name only
		o.NAT, o.DHT, o.Seeds = false, false, nil
		return o, nil
	}
	if o.Listen, err = multiaddrs("p2p.listen", n.cfg.P2P.Listen); err != nil {
		return o, err
	}
	o.Announce, err = multiaddrs("p2p.announce", n.cfg.P2P.Announce)
	return o, err
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

// Addrs are where other hosts reach this node, as far as that is known yet.
func (n *Node) Addrs() []string { return p2p.AddrTexts(n.frontAddrs()) }

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
	replicas := begin(ctx, n.replicate, fail)
	n.log.InfoContext(ctx, "serving", "url", n.URL(), "metrics", n.MetricsURL(), "page", n.PageURL(), "node", n.frontID(), "did", didOf(n.keys), "addrs", p2p.AddrTexts(n.frontAddrs()))
	err := n.serve(ctx)
	fail(err)
	n.log.InfoContext(ctx, "stopping")
	err = errors.Join(err, replicas.end())
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(err, n.store.SaveReplays(saving), writer.end(), n.close())
	n.log.InfoContext(ctx, "stopped")
	return err
}

// serve runs what ends first.
func (n *Node) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	side := newHTTPSide(n.proxies.Trusts, n.callers, n.log)
	g.Go(func() error {
		turns := callers.NewTurns(side.limits, clientRequests)
		return side.serve(ctx, n.public, n.proxies.Handler(turns.Handler(n.publicHandler())), n.tls)
	})
	n.serveTLS(ctx, g, side)
	g.Go(func() error { return side.serve(ctx, n.metrics, n.metricsHandler(), nil) })
	if n.page != nil {
		g.Go(func() error { return side.serve(ctx, n.pageOn, n.page.Handler(), nil) })
		g.Go(func() error {
			n.sample(ctx)
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		close(n.live.ended)
		return nil
	})
	if n.admin != nil {
		g.Go(func() error { return side.serve(ctx, n.admin, n.localHandler(), nil) })
	}
	g.Go(func() error { return n.hooks.Run(ctx) }) // its end is that of the streams
	g.Go(func() error { return n.saveReplays(ctx) })
	g.Go(func() error { return n.collect(ctx) })
	g.Go(func() error {
		if err := n.store.FollowPolicies(ctx); err != nil && ctx.Err() == nil {
			n.log.WarnContext(ctx, "what is kept of the history does not follow p2p.values yet", "error", err)
		}
		return nil
	})
	g.Go(func() error {
		n.repair(ctx)
		return nil
	})
	for _, f := range n.followers() {
		g.Go(func() error {
			f.Follow(ctx, n.store)
			return nil
		})
	}
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
				n.log.WarnContext(ctx, "used tokens not saved, trying again", "error", err)
			}
			if err := n.networks.Expire(ctx); err != nil && ctx.Err() == nil {
				n.log.WarnContext(ctx, "old requests about encryption networks not forgotten, trying again", "error", err)
			}
		}
	}
}

// close releases what is still open, in the order of need.
func (n *Node) close() error {
	var errs []error
	for _, l := range []net.Listener{n.public, n.plain, n.metrics, n.pageOn} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if n.acme != nil {
		n.acme.Close()
	}
	if n.admin != nil {
		errs = append(errs, n.admin.remove())
	}
	errs = append(errs, n.closeFront())
	n.closePolicies()
	if n.blocks != nil {
		errs = append(errs, n.blocks.Close())
	}
	for _, x := range n.o.Services {
		if c, ok := x.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
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
