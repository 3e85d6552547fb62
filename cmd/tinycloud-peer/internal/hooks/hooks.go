package hooks

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// Defaults of [Options].
const (
	DefaultStreams    = 1000
	DefaultPerTicket  = 4     // streams, as of the three below
	DefaultPerSpace   = 64    //
	DefaultPerAddress = 32    // fewer than the connections of a client, which has other requests
	DefaultQueue      = 256   // events; a stream holds 12 KiB for them
	DefaultWebhooks   = 5     // of a Space
	DefaultDeliveries = 10000 // of a webhook
)

// Options configure [Hooks].
type Options struct {
	Store     *capstore.Store
	TicketKey [32]byte // authenticates tickets
	SecretKey [32]byte // encrypts the secrets of webhooks

	Streams    int // open at once; 0 is DefaultStreams
	PerTicket  int // of them by one ticket; 0 is DefaultPerTicket
	PerSpace   int // of them that tell of one Space; 0 is DefaultPerSpace
	PerAddress int // of them by one client; 0 is DefaultPerAddress
	Queue      int // events that wait for a stream before it reads on from the database; 0 is DefaultQueue
	Webhooks   int // active ones of a Space; 0 is DefaultWebhooks
	Deliveries int // that wait for a webhook; 0 is DefaultDeliveries

	// Transport makes the requests of webhooks. Nil: one that connects to public addresses alone.
	Transport http.RoundTripper
	// Lookup returns the addresses of a host name. Nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// Lead calls a function while this process is the one to call webhooks, again each time it comes to be, until
	// the context ends. Nil: it always is.
	Lead func(ctx context.Context, deliver func(context.Context) error) error

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: nothing is logged
}

// Hooks serve the streams and webhooks of a node. Their methods may be called concurrently.
type Hooks struct {
	o         Options
	log       *slog.Logger
	client    *http.Client
	bus       *bus
	metrics   *metrics
	streams   *places // of those that are open
	strangers *strangers
	ended     chan struct{} // closed when streams have to end
	end       func()        // closes ended

	mu       sync.Mutex
	webhooks map[string]*webhook // guarded by mu
	kicks    map[string]struct{} // guarded by mu; webhooks with something to deliver
	kick     wait.Signal         // kicks is not empty
	reload   wait.Signal         // webhooks came or went in another process
}

// New returns Hooks over a store, to be told of its commits.
func New(o Options) *Hooks {
	o.Streams = orDefault(o.Streams, DefaultStreams)
	o.PerTicket = orDefault(o.PerTicket, DefaultPerTicket)
	o.PerSpace = orDefault(o.PerSpace, DefaultPerSpace)
	o.PerAddress = orDefault(o.PerAddress, DefaultPerAddress)
	o.Queue = orDefault(o.Queue, DefaultQueue)
	o.Webhooks = orDefault(o.Webhooks, DefaultWebhooks)
	o.Deliveries = orDefault(o.Deliveries, DefaultDeliveries)
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.Lookup == nil {
		o.Lookup = lookup
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ended := make(chan struct{})
	h := &Hooks{
		o: o, log: o.Log, metrics: newMetrics(), streams: newPlaces(limits{o.Streams, o.PerTicket, o.PerSpace, o.PerAddress}),
		strangers: newStrangers(o.Streams, o.PerSpace),
		ended:     ended, end: sync.OnceFunc(func() { close(ended) }),
		webhooks: map[string]*webhook{}, kicks: map[string]struct{}{}, kick: wait.NewSignal(),
		reload: wait.NewSignal(),
		client: &http.Client{
			Transport: o.Transport, Timeout: requestTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	h.bus = newBus(h.metrics)
	return h
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Committed tells the hooks of a commit. It is for [capstore.Options]: it does not block.
func (h *Hooks) Committed(c capstore.Commit) {
	if c.Beside {
		h.reload.Give()
	}
	h.bus.publish(c)
}

// Heeds reports whether a stream has a use for the changes of a Space.
func (h *Hooks) Heeds(space tinycloud.SpaceID) bool { return h.bus.heeds(space) }

// Run delivers to webhooks until the context ends, and then ends the streams.
func (h *Hooks) Run(ctx context.Context) error {
	defer h.end()
	defer h.client.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if h.o.Lead == nil {
			return h.deliver(ctx)
		}
		return h.o.Lead(ctx, func(ctx context.Context) error {
			if err := h.deliver(ctx); err != nil {
				h.log.WarnContext(ctx, "webhooks are not called, trying again", "error", err)
			}
			return nil
		})
	})
	g.Go(func() error {
		for wait.For(ctx, listenAgain) {
			err := h.o.Store.Listening(ctx, func(space tinycloud.SpaceID, service string) (bool, error) { return h.rows().some(ctx, space, service) })
			if err != nil && ctx.Err() == nil {
				h.log.WarnContext(ctx, "who listens to databases is not stored, trying again", "error", err)
			}
		}
		return nil
	})
	<-ctx.Done()
	h.end()
	return g.Wait()
}

// listenAgain is how often it is stored who listens: a node that starts again goes on telling.
const listenAgain = 10 * time.Minute

// deliver calls the webhooks that are stored until the context ends.
func (h *Hooks) deliver(ctx context.Context) error {
	for _, w := range h.current() {
		h.remove(w.ID) // another process may have gone on from there
	}
	if err := h.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { h.feed(ctx) })
	h.dispatch(ctx)
	wg.Wait()
	return nil
}
