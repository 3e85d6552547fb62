package replication

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Peer is this Space's presence in the network; *p2p.Peer is one.
type Peer interface {
	Connect(ctx context.Context, ai peer.AddrInfo) error
	// NewStream opens a stream for the first of protos that the other side speaks, which the stream tells.
	NewStream(ctx context.Context, id peer.ID, protos ...protocol.ID) (network.Stream, error)
	Authorise(id peer.ID)
	AuthorisedBy(id peer.ID) // by what it said in the handshake
	IsAuthorised(id peer.ID) bool
	Evict(id peer.ID)
}

// Blocks fetches blocks from the authorised peers, each checked against its CID; *p2p.Peer does. The
// channel is closed when all came or ctx, which has a deadline, ends.
type Blocks interface {
	Fetch(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error)
	// Series returns a Fetch for calls that belong together; it works until ctx ends.
	Series(ctx context.Context) (func(ctx context.Context, cids []cid.Cid) (<-chan blocks.Block, error), error)
}

// Publisher sends a gossip message to the authorised peers; *p2p.Topic does.
type Publisher interface {
	Publish(ctx context.Context, data []byte) error
}

// Net is the network of a running [Replica].
type Net struct {
	Peer   Peer
	Blocks Blocks
	Topic  Publisher
}

// Log is the history of Spaces.
type Log interface {
	// Tips returns every branch's last entry.
	Tips(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Tip, error)
	// OlderTips are those as far as a host may be given its logs that knows no services.
	OlderTips(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Tip, error)
	// Have returns what to tell a peer whose tips are theirs: each of them that is stored here and, for a
	// log with one that is not, this node's own tips of that log and entries before them at growing
	// distances, so that a fork costs no more than a part of what follows it. early says that one of theirs is
	// stored and not due yet.
	Have(ctx context.Context, space tinycloud.SpaceID, theirs []hostlog.Tip) (have []hostlog.Tip, early bool, err error)
	// Knows reports whether all of some epochs are stored here.
	Knows(ctx context.Context, space tinycloud.SpaceID, epochs []tinycloud.Hash) (bool, error)
	// Missing yields the entries that have does not cover, parents first. Tips of have that are unknown
	// here are ignored. Values up to maxInline bytes come with the entries that still need them.
	Missing(ctx context.Context, space tinycloud.SpaceID, have []hostlog.Tip, maxInline int, yield func(hostlog.Bundle) error) error
	// ApplyChecked makes bundles durable that [hostlog.CheckAll] saw.
	ApplyChecked(ctx context.Context, v hostlog.Checked) (hostlog.Applied, error)
	// AwaitOwn keeps this node from making entries until the returned function is called, or for half a minute.
	AwaitOwn(space tinycloud.SpaceID) (arrived func())
	// Takes is nil while entries of other hosts are taken; else it says why not.
	Takes(ctx context.Context, space tinycloud.SpaceID) error
	// Comparing has this process's first entry wait until the returned function is called, or for two seconds.
	Comparing(space tinycloud.SpaceID) (compared func())
}

// Hosts is what is known of the hosts of a Space.
type Hosts interface {
	// HostChain returns this node's host delegation and its proofs.
	HostChain(ctx context.Context, space tinycloud.SpaceID) ([][]byte, error)
	// VerifyHost checks a chain offline and returns when it ends; a zero time means never.
	VerifyHost(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, chain [][]byte) (time.Time, error)
	Hosts(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Host, error)
	// SaveAddrs keeps how to reach a host; a record with a lower seq than the stored one is ignored.
	SaveAddrs(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, addrs []string, seq uint64) error
	Seen(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key) error
	// SaveHello keeps what a host told of its release, and reports whether it is something else than before.
	SaveHello(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, hello hostlog.Hello) (changed bool, err error)
	// Rendezvous returns the secret that the Space's names are made of, zero when there is none. With renew
	// a missing or outdated one is made.
	Rendezvous(ctx context.Context, space tinycloud.SpaceID, renew bool) (hostlog.Rendezvous, error)
	// SaveRendezvous takes over another host's if all hosts come to prefer it.
	SaveRendezvous(ctx context.Context, space tinycloud.SpaceID, from hostlog.Key, theirs hostlog.Rendezvous) error
}

// Wants are the values that are known but not here.
type Wants interface {
	// Wants returns those that are due.
	Wants(ctx context.Context, space tinycloud.SpaceID, limit int) ([]hostlog.Want, error)
	// Arrived ends a want: the value is inline, or, when that is nil, in the block store.
	Arrived(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64, inline []byte) error
	// Wanting reports whether values are still to be fetched, due or not.
	Wanting(ctx context.Context, space tinycloud.SpaceID) (bool, error)
	WantFailed(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, wait time.Duration) error
	// Hurry makes all of them due.
	Hurry(ctx context.Context, space tinycloud.SpaceID) error
}

// Membership is how this node came to a Space, and whether it has its history.
type Membership interface {
	Joins(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Join, error)
	SetJoin(ctx context.Context, space tinycloud.SpaceID, join hostlog.Join) error
	// Joining reports whether the Space waits for the history of other hosts.
	Joining(ctx context.Context, space tinycloud.SpaceID) (bool, error)
	// Restored reports whether it does because it was restored from a backup.
	Restored(space tinycloud.SpaceID) bool
	// EndJoin ends that, if it is still right: by [hostlog.EndedByLeast] only while the tips are the given ones.
	EndJoin(ctx context.Context, space tinycloud.SpaceID, why hostlog.Ending, tips []hostlog.Tip) (bool, error)
}

// Comparison is of what hosts made of the same history.
type Comparison interface {
	// Sums are this host's; it may take long.
	Sums(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Sum, error)
	// SumOf is this host's for one that another asks of, if it has one of the same operations. It costs nothing.
	SumOf(space tinycloud.SpaceID, asked hostlog.Sum) (hostlog.Sum, bool)
	// Compared takes those of another host.
	Compared(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, theirs []hostlog.Sum) error
}

// Store is the authority; *capstore.Store, of which this package knows nothing, is one.
type Store interface {
	Log
	Hosts
	Wants
	Membership
	Comparison
}

// Values stores what was fetched; the node makes one of its block store.
type Values interface {
	// PutValue stores a value of one block.
	PutValue(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, b []byte) error
	// Assemble begins, or takes up, a value listed by a manifest block. The error is of class
	// [tinycloud.ErrInvalid] when the block is no manifest, or one of another size.
	Assemble(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64, manifest []byte) (Assembly, error)
	// Locate returns the size and manifest of a value that is here, a zero manifest for a value of one
	// block; the error is of class [tinycloud.ErrNotFound] when it is not.
	Locate(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, tinycloud.Hash, error)
}

// Assembly is a value on its way; *blockstore.Assembly is one.
type Assembly interface {
	// Missing returns the chunks still to come, in order.
	Missing() []tinycloud.Hash
	PutChunk(chunk tinycloud.Hash, b []byte) error
	// Finish is of class [tinycloud.ErrForged] when the whole is another value; it is discarded then.
	Finish(ctx context.Context) error
	Close() error
	Discard() error
}

// Options of a [Replica]. Space, Key, Store, Values and Hello are required.
type Options struct {
	Space  tinycloud.SpaceID
	Key    ed25519.PrivateKey // this node's key of the Space
	Store  Store
	Values Values
	Hello  hostlog.Hello // what this node tells of its release
	// InlineLimit is the size in bytes up to which a value is kept by the store; 0 means 64 KiB.
	InlineLimit int
	// Addrs returns the Space's own addresses, each with the Space peer at its end. Nil or none: this host
	// is not dialed.
	Addrs func() []ma.Multiaddr
	// Locate asks a node for its peer of the Space, as [locate.Locator.Ask] does. Nil: a join that names only a
	// node is invalid.
	Locate func(ctx context.Context, front peer.AddrInfo, private bool) (peer.ID, error)
	// Named returns the nodes that are named, and what they said of the Space; nil: there are none. It is asked
	// while the Space is joining, and a change is told by [Replica.Consider].
	Named func(ctx context.Context) ([]NamedNode, error)
	// JoinTimeout is after how long the silence of such a node is an answer.
	JoinTimeout time.Duration
	// Peers is told who is authorised, and who is connected no more; nil: nobody. It must not block or call back.
	Peers interface {
		Greeted(id peer.ID)
		Lost(id peer.ID)
	}
	Memory  *Budget  // shared by all Spaces of a node; nil: one of its own of [MemoryLimit]
	Metrics *Metrics // nil: not counted
	Log     *slog.Logger
}

// Bounds of what waits.
const (
	maxRemotes     = 256
	maxJobs        = 1024
	streamsPerPeer = 16
	streamsPerSec  = 50
)

// Replica is one Space on this node. Its methods may be called from several goroutines, before, while and
// after Run runs; none but Run and Fetch blocks.
type Replica struct {
	o     Options
	space tinycloud.SpaceID
	self  peer.ID
	host  hostlog.Key
	log   *slog.Logger

	started chan struct{} // closed when net is set
	stopped chan struct{} // closed when Run ends
	tried   chan struct{} // closed when a host was met, or did not answer
	once    sync.Once     // closes tried
	net     Net

	jobs     jobs
	live     outbox
	inbox    inbox
	dialer   dialer
	wants    wanted
	offences offences
	heard    heard
	records  ownRecord
	pause    atomic.Bool // nothing is taken from other hosts

	mu      sync.Mutex          // guards what follows
	remotes map[peer.ID]*remote // connected ones
	proofs  map[peer.ID]proven  // of authorised ones
	seen    map[hostlog.Key]sighting
	claims  map[hostlog.Key]time.Time // when a host said that it has later entries of this node
	arrival chan struct{}             // closed, and another, when a host is connected
	stirs   uint64                    // how often there was something new
	stirred time.Time                 // when last, or when it began
	joining bool
	agreed  bool                 // guarded by mu; all that a host had was here, since this replica began
	turnOf  *remote              // whose stream is catching us up
	waiting map[*remote]struct{} // whose turn has not come
	caught  progress
}

type sighting struct {
	at    time.Time // last time it was connected or answered
	saved time.Time // last time that was stored
	skew  time.Duration
	trip  time.Duration // of the last question to it and its answer
	equal time.Time     // when all it had was here last
}

// New returns a replica that does nothing until it runs.
func New(o Options) (*Replica, error) {
	if o.Space.IsZero() || len(o.Key) != ed25519.PrivateKeySize || o.Store == nil || o.Values == nil || o.Hello.Rules == 0 {
		return nil, fmt.Errorf("replica without space, key, store, values or rules: %w", tinycloud.ErrInvalid)
	}
	if o.InlineLimit == 0 {
		o.InlineLimit = 64 << 10
	}
	if o.Memory == nil {
		o.Memory = NewBudget(MemoryLimit)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	host := hostlog.Key(o.Key.Public().(ed25519.PublicKey))
	return &Replica{
		o: o, space: o.Space, self: wire.PeerOf(host), host: host, log: o.Log.With("space", o.Space),
		started: make(chan struct{}), stopped: make(chan struct{}), tried: make(chan struct{}),
		jobs: jobs{wake: wait.NewSignal()}, live: outbox{wake: wait.NewSignal()},
		inbox: inbox{wake: wait.NewSignal()}, dialer: newDialer(), wants: newWanted(),
		offences: offences{m: map[hostlog.Key]*offence{}},
		remotes:  map[peer.ID]*remote{}, proofs: map[peer.ID]proven{},
		seen: map[hostlog.Key]sighting{}, claims: map[hostlog.Key]time.Time{}, waiting: map[*remote]struct{}{},
		arrival: make(chan struct{}), stirred: time.Now(),
	}, nil
}

// Run replicates until the context ends, and returns when every goroutine is gone. It may be called once.
// The caller has joined [Topic] with [Replica.Check] and registered [Replica.ServeSync],
// [Replica.ServeHello], [Replica.Connected] and [Replica.Disconnected].
func (r *Replica) Run(ctx context.Context, n Net) error {
	if n.Peer == nil || n.Blocks == nil || n.Topic == nil {
		return fmt.Errorf("replica without a network: %w", tinycloud.ErrInvalid)
	}
	joining, err := r.o.Store.Joining(ctx, r.space)
	if err != nil {
		close(r.stopped)
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	r.mu.Lock()
	r.net = n
	r.mu.Unlock()
	r.setJoining(joining)
	close(r.started)
	defer close(r.stopped)

	g, ctx := errgroup.WithContext(ctx)
	for _, loop := range []func(context.Context) error{r.dial, r.fetchWants} {
		g.Go(func() error { return loop(ctx) })
	}
	r.supervise(ctx, g)
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// supervise starts what callbacks asked for, until the context ends.
func (r *Replica) supervise(ctx context.Context, g *errgroup.Group) {
	publish, apply := newWorker(r.live.wake, r.publish), newWorker(r.inbox.wake, r.applyLive)
	for {
		for _, job := range r.jobs.take() {
			g.Go(func() error {
				job(ctx)
				return nil
			})
		}
		select {
		case <-ctx.Done():
			for _, job := range r.jobs.end() {
				job(ctx) // which is over: it cleans up
			}
			return
		case <-r.jobs.wake:
		case <-publish.wake():
			publish.start(ctx, g)
		case <-publish.done:
			publish.ended()
		case <-apply.wake():
			apply.start(ctx, g)
		case <-apply.done:
			apply.ended()
		}
	}
}

// spawn has Run start a goroutine; it reports false when Run has ended or too many wait.
func (r *Replica) spawn(job func(context.Context)) bool { return r.jobs.add(job) }

// jobs are the goroutines to start.
type jobs struct {
	wake wait.Signal

	mu    sync.Mutex
	list  []func(context.Context) // guarded by mu
	ended bool                    // guarded by mu
}

func (j *jobs) add(job func(context.Context)) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended || len(j.list) >= maxJobs {
		return false
	}
	j.list = append(j.list, job)
	j.wake.Give()
	return true
}

func (j *jobs) take() []func(context.Context) {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.list
	j.list = nil
	return list
}

func (j *jobs) end() []func(context.Context) {
	j.mu.Lock()
	j.ended = true
	j.mu.Unlock()
	return j.take()
}

// Committed tells what the store made durable. It never blocks.
func (r *Replica) Committed(c hostlog.Commit) {
	if c.Space != r.space {
		return
	}
	if len(c.Local)+c.Remote+c.Parked+c.Wants+len(c.Revoked) > 0 {
		r.stir()
	}
	if len(c.Local) > 0 {
		r.live.add(slices.DeleteFunc(slices.Clone(c.Local), r.kept))
		if !r.anyAuthorised() {
			r.dialer.now(false)
		}
	}
	if c.Wants > 0 {
		r.wants.wake.Give()
	}
	if c.Opened {
		r.setJoining(false)
	}
	for _, host := range c.Revoked {
		r.revoke(host)
	}
}

// Kick says that joins or addresses changed: they are read again and hosts that are not connected are
// dialed at once.
func (r *Replica) Kick() {
	r.spawn(func(ctx context.Context) {
		joining, err := r.o.Store.Joining(ctx, r.space)
		if err != nil {
			r.log.WarnContext(ctx, "cannot read the state of the space", "error", err)
		} else {
			r.setJoining(joining)
			r.mu.Lock()
			for _, m := range r.remotes {
				m.due.Give() // those already here can tell that the history is, too
			}
			r.mu.Unlock()
		}
	})
	r.dialer.now(true)
	r.wants.wake.Give()
}

// Tried is closed when a try to be connected with another host ended, well or not.
func (r *Replica) Tried() <-chan struct{} { return r.tried }

func (r *Replica) hasTried() { r.once.Do(func() { close(r.tried) }) }

func (r *Replica) isJoining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joining
}

// Status is what a [Replica] sees of the other hosts.
type Status struct {
	Joining bool
	Peers   []PeerStatus // by host key
	CatchUp *CatchUp     // nil: no stream is catching the Space up
}

// PeerStatus is one other host.
type PeerStatus struct {
	Host      hostlog.Key
	Peer      peer.ID
	Connected bool          // and authorised; or it rests, see [Replica.Rest]
	Synced    bool          // the last comparison found that all it has is here
	LastSeen  time.Time     // zero: not since this replica started
	Expires   time.Time     // of the delegation it showed; zero: never, or not connected
	Skew      time.Duration // its clock minus ours
	Trip      time.Duration // of the last question to it and its answer; 0: none yet
	Equal     time.Time     // when all it had was here last; zero: not since this replica started
}
