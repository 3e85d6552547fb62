package httpapi_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/httpapi"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an API over a real store and real blocks, behind a real server.
type node struct {
	t      *testing.T
	store  *capstore.Store
	blocks *blockstore.Store
	keys   *hostkeys.Static
	did    string // with encryption networks
	api    *httpapi.API
	hooks  *hooks.Hooks
	server *httptest.Server
	stop   func() // ends the store's writer
}

// withNetworks as an option of the API stands for the node's encryption networks.
var withNetworks = new(encryption.Networks)

// blocks opens values as capstore wants them.
type blocks struct{ *blockstore.Store }

func (b blocks) Open(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error) {
	v, _, err := b.Store.Open(ctx, space, hash)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func newNode(t *testing.T, change ...func(*capstore.Options, *httpapi.Options)) *node {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	n := &node{t: t}
	var err error
	n.keys, err = hostkeys.New([]byte(strings.Repeat("a secret of a test ", 3)))
	must(t, err)
	n.blocks, err = blockstore.Open(t.Context(), blockstore.Options{Dir: t.TempDir(), Log: log})
	must(t, err)
	t.Cleanup(func() { check(t, n.blocks.Close()) })
	co := capstore.Options{Services: servicetest.Services(), Database: capstore.InMemory, Keys: n.keys, Blocks: blocks{n.blocks}, Log: log, Committed: func(c capstore.Commit) { n.hooks.Committed(c) }}
	ao := httpapi.Options{
		Stage: func(ctx context.Context, body io.Reader, limit int64) (httpapi.Staged, error) {
			s, err := n.blocks.Stage(ctx, body, limit)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		HostDID: n.hostDID, NodeID: "did:key:zNode", Version: "test", CORS: true, TraceHeader: "TinyCloud-Trace-Id", Log: log,
	}
	for _, c := range change {
		c(&co, &ao)
	}
	n.store, err = capstore.Open(t.Context(), co)
	must(t, err)
	n.hooks = hooks.New(hooks.Options{
		Store: n.store, TicketKey: [32]byte{1}, SecretKey: [32]byte{2}, Log: log,
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
		},
	})
	n.run()
	ao.Store, ao.Hooks = n.store, n.hooks
	if ao.Networks == withNetworks {
		n.did = hostkeys.DIDKey(n.keys.NodeKey().Public().(ed25519.PublicKey))
		ao.NodeID = n.did
		ao.Networks = encryption.New(encryption.Options{
			Store: n.store, Node: n.keys.NodeKey(), Seal: n.keys.Derive(hostkeys.ContextNetworkSeal),
		})
	}
	n.api = httpapi.New(ao)
	n.server = httptest.NewServer(n.api.Handler())
	t.Cleanup(n.server.Close)
	return n
}

// run lets the store write until the test has ended.
func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.store.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		check(n.t, <-done)
	})
	n.t.Cleanup(func() {
		n.stop()
		check(n.t, n.store.Close())
	})
}

func (n *node) hostDID(space tinycloud.SpaceID) string {
	return hostkeys.DIDKey(n.keys.SpaceKey(space).Public().(ed25519.PublicKey))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request and follows no redirect.
func (n *node) do(r *http.Request) answer {
	n.t.Helper()
	resp, err := n.server.Client().Transport.RoundTrip(r)
	must(n.t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end below
	b, err := io.ReadAll(resp.Body)
	must(n.t, err)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (n *node) request(method, path, token string, header map[string]string, body io.Reader) *http.Request {
	n.t.Helper()
	r, err := http.NewRequest(method, n.server.URL+path, body)
	must(n.t, err)
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return r
}

func (n *node) post(path, token string) answer {
	n.t.Helper()
	return n.do(n.request(http.MethodPost, path, token, nil, nil))
}

// owner is a wallet with a hosted Space and a session on all of its services.
type owner struct {
	n       *node
	wallet  *captest.Wallet
	space   tinycloud.SpaceID
	session *captest.SessionKey
	proof   tinycloud.Hash
}

var kvAbilities = []string{
	"tinycloud.kv/del", "tinycloud.kv/get", "tinycloud.kv/list", "tinycloud.kv/metadata", "tinycloud.kv/put",
}

func (n *node) owner(seed string) *owner {
	n.t.Helper()
	o := &owner{n: n, wallet: captest.NewWallet(seed), session: captest.NewSession(seed)}
	o.space = o.wallet.Space("default")
	if got := n.post("/delegate", o.wallet.SignHost(o.space, n.hostDID(o.space))); got.status != 200 {
		n.t.Fatalf("host: %d %s", got.status, got.body)
	}
	space := o.space.String()
	o.proof = o.delegate(o.session, captest.Caps{
		space + "/kv": kvAbilities, space + "/capabilities": {"tinycloud.capabilities/read"},
		space + "/sql": {"tinycloud.sql/read"}, space + "/duckdb": {"tinycloud.duckdb/read"},
		space + "/space": {"tinycloud.space/list"},
		space + "/hooks": {hooks.AbilitySubscribe, hooks.AbilityRegister, hooks.AbilityList, hooks.AbilityUnregister},
	})
	return o
}

func (o *owner) delegate(to *captest.SessionKey, caps captest.Caps) tinycloud.Hash {
	o.n.t.Helper()
	header := o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: to.URI(), Caps: caps, Expires: time.Now().Add(time.Hour),
	})
	if got := o.n.post("/delegate", header); got.status != 200 {
		o.n.t.Fatalf("delegate: %d %s", got.status, got.body)
	}
	return captest.ID(header)
}

// token signs an invocation of pairs of path and ability below the Space.
func (o *owner) token(pairs ...string) string {
	caps := captest.Caps{}
	for i := 0; i < len(pairs); i += 2 {
		uri := o.space.String() + "/" + pairs[i]
		caps[uri] = append(caps[uri], pairs[i+1])
	}
	return o.session.Invoke(captest.TokenOptions{Caps: caps, Proofs: []tinycloud.Hash{o.proof}})
}

func (o *owner) invoke(header map[string]string, pairs ...string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request(http.MethodPost, "/invoke", o.token(pairs...), header, nil))
}

func (o *owner) put(key, body string, header map[string]string) answer {
	o.n.t.Helper()
	return o.n.do(o.n.request(http.MethodPost, "/invoke", o.token("kv/"+key, "tinycloud.kv/put"), header, strings.NewReader(body)))
}

func (o *owner) get(key string, header map[string]string) answer {
	o.n.t.Helper()
	return o.invoke(header, "kv/"+key, "tinycloud.kv/get")
}

func (o *owner) keys(prefix string, header map[string]string) []string {
	o.n.t.Helper()
	got := o.invoke(header, "kv/"+prefix, "tinycloud.kv/list")
	var keys []string
	if err := json.Unmarshal([]byte(got.body), &keys); err != nil || got.status != 200 {
		o.n.t.Fatalf("list %q: %d %s", prefix, got.status, got.body)
	}
	return keys
}

func (a answer) want(t *testing.T, what string, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Errorf("%s: got %d %q, want %d %q", what, a.status, a.body, status, body)
	}
}
