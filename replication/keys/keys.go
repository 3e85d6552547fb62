package keys

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Store is what is known of encryption networks; *encryption.Networks, of which this package knows nothing, is one.
type Store interface {
	// Have returns the ids of the records that are here.
	Have(ctx context.Context, space tinycloud.SpaceID) ([]tinycloud.Hash, error)
	// Records returns those that a host lacks.
	Records(ctx context.Context, space tinycloud.SpaceID, has []tinycloud.Hash) ([][]byte, error)
	// Accept keeps those of another host, and reports how many were news.
	Accept(ctx context.Context, space tinycloud.SpaceID, records [][]byte) (int, error)
	// Wants returns the keys that a host is to be asked for.
	Wants(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key) ([]hostlog.KeyWant, error)
	// Give answers the announcement of the host with that key in the Space.
	Give(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, ask []byte) ([]byte, error)
	// AnswerFor decrypts for another host's client.
	AnswerFor(ctx context.Context, space tinycloud.SpaceID, q hostlog.DecryptRequest) ([]byte, error)
	// OtherHosts returns the other hosts, and Awaits whether one's answer is to be waited for.
	OtherHosts(ctx context.Context, space tinycloud.SpaceID) ([]hostlog.Key, error)
	Awaits(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key) (bool, error)
}

// Stream is what a question takes.
type Stream interface {
	wire.Stream
	Close() error
}

// Options are all required, but Metrics and Log.
type Options struct {
	Space tinycloud.SpaceID
	Store Store
	// Dial opens a stream of [wire.KeysProtocol] to an authorised peer.
	Dial func(ctx context.Context, id peer.ID) (Stream, error)
	// JoinTimeout is after how long the silence of a host is an answer.
	JoinTimeout time.Duration
	Metrics     *Metrics
	Log         *slog.Logger
}

// Times.
const (
	stall       = 5 * time.Second // for which a host may do nothing within a question
	questioned  = 8 * time.Second // for a whole question
	visitEvery  = time.Minute     // ± 50 %
	visitLeast  = time.Second     // after one that failed; doubles
	connectWait = 2 * time.Second // for a host that is to be asked and not connected
)

// Bounds.
const (
	maxPeers     = 256
	peerRate     = 200 // questions a second of one peer
	peerStreams  = 16  // at once
	maxForwarded = 64  // requests that wait for other hosts
	maxWanted    = 64  // keys that are asked for in one visit
)

// Keeper keeps one Space of secrets in step with its other hosts. Its methods may be called from several goroutines,
// before, while and after Run runs.
type Keeper struct {
	o         Options
	log       *slog.Logger
	wake      wait.Signal
	forwarded *semaphore.Weighted

	mu      sync.Mutex // guards what follows
	peers   map[peer.ID]*host
	silent  map[hostlog.Key]time.Time // since when hosts that are to be asked do not answer
	arrival chan struct{}             // closed, and another, when a host is connected
}

// host is a connected, authorised peer.
type host struct {
	id      peer.ID
	key     hostlog.Key
	due     wait.Signal
	turn    chan struct{} // held by the visit under way
	opened  *rate.Limiter // of questions that it asks
	streams *semaphore.Weighted

	// Guarded by Keeper.mu.
	running  bool
	answered time.Time     // when the last visit began that ended well
	gone     chan struct{} // closed when it is connected no more
}

// New returns a keeper that asks nobody until it runs.
func New(o Options) (*Keeper, error) {
	if o.Space.IsZero() || o.Store == nil || o.Dial == nil || o.JoinTimeout <= 0 {
		return nil, fmt.Errorf("keys: keeper without space, store, network or time: %w", tinycloud.ErrInvalid)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{
		o: o, log: o.Log.With("space", o.Space), wake: wait.NewSignal(), forwarded: semaphore.NewWeighted(maxForwarded),
		peers: map[peer.ID]*host{}, silent: map[hostlog.Key]time.Time{}, arrival: make(chan struct{}),
	}, nil
}

// Greeted says that a peer is connected and authorised. It does not block.
func (k *Keeper) Greeted(id peer.ID) {
	key, err := wire.HostOf(id)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.peers[id] != nil || len(k.peers) >= maxPeers {
		return
	}
	k.peers[id] = &host{
		id: id, key: key, due: wait.NewSignal(), turn: make(chan struct{}, 1), opened: rate.NewLimiter(peerRate, 2*peerRate),
		streams: semaphore.NewWeighted(peerStreams), gone: make(chan struct{}),
	}
	close(k.arrival)
	k.arrival = make(chan struct{})
	k.wake.Give()
}

// Lost says that a peer is connected no more. It does not block.
func (k *Keeper) Lost(id peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.peers[id]; h != nil {
		close(h.gone)
		delete(k.peers, id)
	}
}

// Stir says that there is something to tell, or that others are trusted than before. It does not block.
func (k *Keeper) Stir() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.peers {
		h.due.Give()
	}
}

func (k *Keeper) peer(id peer.ID) *host {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.peers[id]
}

// Run visits the other hosts until the context ends.
func (k *Keeper) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		k.mu.Lock()
		for _, h := range k.peers {
			if !h.running {
				h.running = true
				running.Go(func() { k.keep(ctx, h) })
			}
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
	}
}

// keep visits one host for as long as it is connected.
func (k *Keeper) keep(ctx context.Context, h *host) {
	ctx, end := h.while(ctx)
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.due:
		case <-timer.C:
		}
		if err := k.visit(ctx, h); err == nil {
			failures = 0
			timer.Reset(jittered(visitEvery))
		} else if ctx.Err() == nil {
			failures++
			k.log.DebugContext(ctx, "host tells nothing of encryption networks, trying again", "peer", h.id, "error", err)
			timer.Reset(jittered(min(visitEvery, visitLeast<<min(failures-1, 8))))
		}
	}
}

// while is a context that also ends with the host's connection.
func (h *host) while(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-h.gone:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		watch.Wait()
	}
}
