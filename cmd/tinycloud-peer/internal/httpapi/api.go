package httpapi

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/tickets"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

// Defaults of [Options].
const (
	DefaultMaxBody       = 1 << 30          // bytes
	DefaultIdle          = 60 * time.Second // without a byte in either direction
	DefaultRatePerMinute = 60
	DefaultBurst         = 10
)

// Staged is a hashed body that belongs to no Space yet.
type Staged interface {
	Hash() tinycloud.Hash
	Size() int64 // bytes
	// Bytes returns a body that is small enough to be kept in the transaction that names it.
	Bytes() ([]byte, bool)
	// Commit makes the body a value of the Space; it is on stable storage when nil is returned.
	Commit(context.Context, tinycloud.SpaceID) error
	// Discard drops a body that was not committed.
	Discard()
}

// StageFunc reads a body of at most limit bytes to its end and hashes it. A longer body is an error of
// class [tinycloud.ErrTooLarge].
type StageFunc func(ctx context.Context, body io.Reader, limit int64) (Staged, error)

// Options configure an [API].
type Options struct {
	Store *capstore.Store
	// MaxTickets is how many signed URLs a Space has within the life of the oldest; 0 means 10,000.
	MaxTickets int
	Stage      StageFunc
	Health     func(context.Context) error    // of what else is needed to serve; nil: nothing is
	HostDID    func(tinycloud.SpaceID) string // the did:key of this node's key of a Space
	Hooks      *hooks.Hooks                   // nil: none are served
	// Networks are the encryption networks. Nil: none are served.
	Networks *encryption.Networks
	// Services stand beside key-value, with those names.
	Services []service.HTTP

	// Fetch brings a value here from another host of the Space. Nil: values that are not here stay so.
	Fetch func(context.Context, tinycloud.SpaceID, tinycloud.Hash) error

	NodeID   string   // did:key of the node, stable across restarts
	Version  string   // of this program
	Features []string // nil: those that are served

	// Quota is told of a Space before a body is read for it, so that the store's limits are known when it is to
	// be written. It waits as little as it can. Nil: there is nothing to find out.
	Quota    func(context.Context, tinycloud.SpaceID)
	QuotaURL string // of the service that clients may ask, as /info tells it; "" for none

	CORS          bool   // answer every request with the five CORS headers
	TraceHeader   string // name of the header with a request's random id; "" for none
	RatePerMinute uint32 // reads of public Spaces that a client regains; 0 is DefaultRatePerMinute
	Burst         uint32 // of them at once; 0 is DefaultBurst

	MaxBody   int64         // bytes of a request body; 0 is DefaultMaxBody
	Idle      time.Duration // deadline of each read and write of a body; 0 is DefaultIdle
	CursorKey [32]byte      // signs list cursors; zero: random, so that cursors end with the process

	Log *slog.Logger // nil: none
}

// API answers HTTP requests. Its methods may be called concurrently.
type API struct {
	o       Options
	keys    *kv.Keys
	tickets *tickets.Tickets
	log     *slog.Logger
	metrics *metrics
	clients *callers.Budget // of reads of public Spaces
	budgets budgets
	info    []byte
	routes  map[string]endpoint
	beside  map[string]service.HTTP // by name

	listings    chan struct{} // searches for capabilities under way
	delegations chan struct{} // delegations that are read and judged
}

// handler answers a request or returns the error that [API.refuse] is to answer with. A handler that has
// begun to answer returns an error to cut the connection.
type handler func(http.ResponseWriter, *http.Request) error

type endpoint struct {
	name   string // label of metrics
	method string
	serve  handler
}

// New returns the API of a node.
func New(o Options) *API {
	if o.Features == nil {
		o.Features = []string{"kv", "delegation", "sharing"}
		if o.Hooks != nil {
			o.Features = append(o.Features, "hooks")
		}
		o.Features = append(o.Features, "signed-urls")
		for _, x := range o.Services {
			o.Features = append(o.Features, x.Name())
		}
		if o.Networks != nil {
			o.Features = append(o.Features, "encryption")
		}
	}
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	if o.RatePerMinute == 0 {
		o.RatePerMinute = DefaultRatePerMinute
	}
	if o.Burst == 0 {
		o.Burst = DefaultBurst
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CursorKey == [32]byte{} {
		rand.Read(o.CursorKey[:]) // never fails
	}
	a := &API{
		beside: map[string]service.HTTP{}, o: o, keys: kv.Of(o.Store), tickets: tickets.Of(o.Store, o.MaxTickets), log: o.Log, metrics: newMetrics(),
		clients: callers.NewBudget(o.RatePerMinute, o.Burst), listings: make(chan struct{}, maxListings),
		delegations: make(chan struct{}, maxDelegations), budgets: newBudgets(),
	}
	a.info = a.describe()
	info := endpoint{"info", http.MethodGet, a.serveInfo}
	health := endpoint{"healthz", http.MethodGet, a.serveHealth}
	for _, x := range o.Services {
		a.beside[x.Name()] = x
	}
	a.routes = map[string]endpoint{
		"/info":     info,
		"/version":  info,
		"/healthz":  health,
		"/health":   health,
		"/delegate": {"delegate", http.MethodPost, a.serveDelegate},
		"/invoke":   {"invoke", http.MethodPost, a.serveInvoke},
		"/revoke":   {"revoke", http.MethodPost, a.serveRevoke},

		"/delegation/status": {"delegation_status", http.MethodPost, a.serveDelegationStatus},
		"/delegation/query":  {"delegation_query", http.MethodPost, a.serveDelegationQuery},

		"/attestation": {"attestation", http.MethodGet, a.serveAttestation},

		"/signed/kv": {"signed_issue", http.MethodPost, a.issueSigned},
	}
	return a
}

// Handler returns the handler of every path. The server around it bounds the size of request headers and the
// time they take; the deadlines of bodies are set here, per read and write.
func (a *API) Handler() http.Handler { return http.HandlerFunc(a.serve) }
