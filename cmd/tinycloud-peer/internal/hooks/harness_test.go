package hooks_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/hooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keys derives Space keys from a node's name.
type keys string

func (k keys) SpaceKey(s tinycloud.SpaceID) ed25519.PrivateKey {
	h := tinycloud.Sum([]byte(string(k) + s.String()))
	return ed25519.NewKeyFromSeed(h[:])
}

// host is a store with hooks.
type host struct {
	t     testing.TB
	name  keys
	path  string
	store *capstore.Store
	hooks *hooks.Hooks
	stop  func()

	stopping atomic.Bool
}

func start(t testing.TB, name, path string, o hooks.Options) *host {
	t.Helper()
	return startWith(t, name, path, o, func(capstore.Commit) {})
}

// startWith starts a host with further services, and tells of its commits.
func startWith(t testing.TB, name, path string, o hooks.Options, committed func(capstore.Commit), more ...service.Service) *host {
	t.Helper()
	h := &host{t: t, name: keys(name), path: path}
	var err error
	h.store, err = capstore.Open(context.Background(), capstore.Options{
		Services: servicetest.Services(more...), Database: path, Keys: h.name, JoinTimeout: time.Hour,
		Committed: func(c capstore.Commit) {
			h.hooks.Committed(c)
			committed(c)
		},
	})
	must(t, err)
	o.Store, o.TicketKey, o.SecretKey = h.store, [32]byte{1}, [32]byte{2}
	h.hooks = hooks.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { must(t, h.hooks.Run(ctx)) })
	writing, end := context.WithCancel(context.Background())
	written := make(chan error, 1)
	go func() { written <- h.store.Run(writing) }()
	h.stop = sync.OnceFunc(func() {
		h.stopping.Store(true)
		cancel()
		wg.Wait()
		end()
		must(t, <-written)
		must(t, h.store.Close())
	})
	t.Cleanup(h.stop)
	return h
}

func startNew(t testing.TB, name string, o hooks.Options) *host {
	return start(t, name, filepath.Join(t.TempDir(), "caps.db"), o)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// owner is a wallet with a Space and a session.
type owner struct {
	t       testing.TB
	wallet  *captest.Wallet
	space   tinycloud.SpaceID
	session *captest.SessionKey
	header  string
}

func newOwner(t testing.TB, name string) *owner {
	o := &owner{t: t, wallet: captest.NewWallet(name), session: captest.NewSession(name)}
	o.space = o.wallet.Space("default")
	o.header = o.wallet.SignDelegation(sessionOptions(o))
	return o
}

// sessionOptions are those of a session on all of an owner's Space.
func sessionOptions(o *owner) captest.DelegationOptions {
	return captest.DelegationOptions{
		Audience: o.session.URI(), IssuedAt: time.Now(), Expires: time.Now().Add(24 * time.Hour),
		Caps: captest.Caps{
			o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/del"},
			o.space.String() + "/hooks": {
				hooks.AbilitySubscribe, hooks.AbilityRegister, hooks.AbilityList, hooks.AbilityUnregister,
			},
		},
	}
}

func (o *owner) on(h *host) *owner {
	o.t.Helper()
	o.delegates(h, o.hosting(h), o.header)
	return o
}

// hosting makes a store a host of the Space.
func (o *owner) hosting(h *host) string {
	did := h.name.SpaceKey(o.space).Public().(ed25519.PublicKey)
	return o.wallet.SignHost(o.space, hostlog.Key(did).String())
}

func (o *owner) delegates(h *host, headers ...string) {
	o.t.Helper()
	for _, header := range headers {
		tok, err := capstore.ParseDelegation(header)
		must(o.t, err)
		if _, err := h.store.Delegate(context.Background(), tok); err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o *owner) token(path, ability string) *capstore.Token {
	o.t.Helper()
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:    captest.Caps{o.space.String() + "/" + path: {ability}},
		Expires: time.Now().Add(time.Minute), Proofs: []tinycloud.Hash{captest.ID(o.header)},
	}))
	if err != nil {
		o.t.Fatal(err)
	}
	return tok
}

func (o *owner) put(h *host, key string) {
	o.t.Helper()
	value := []byte("value of " + key)
	_, err := kv.Of(h.store).Write(context.Background(), o.token("kv/"+key, "tinycloud.kv/put"), []kv.Op{{
		Space: o.space, Key: key, Value: tinycloud.Sum(value), Size: int64(len(value)), Inline: value,
	}}, nil)
	must(o.t, err)
}

func (o *owner) del(h *host, key string) {
	o.t.Helper()
	_, err := kv.Of(h.store).Write(context.Background(), o.token("kv/"+key, "tinycloud.kv/del"), []kv.Op{{Space: o.space, Key: key, Delete: true}}, nil)
	must(o.t, err)
}

func (o *owner) scope(prefix string, abilities ...string) hooks.Scope {
	o.t.Helper()
	s, err := hooks.NewScope(o.space.String(), "kv", prefix, abilities)
	must(o.t, err)
	return s
}

func (o *owner) ticket(h *host, scopes ...hooks.Scope) string {
	o.t.Helper()
	ticket, err := h.hooks.Issue(context.Background(), o.token("hooks", hooks.AbilitySubscribe), hooks.TicketRequest{Scopes: scopes, TTL: time.Minute}, false)
	must(o.t, err)
	return ticket.Ticket
}

// event is what a client reads of an event.
type event struct {
	Type, ID, Space, Service, Ability, Path, Actor, Epoch, Timestamp string
	EventIndex                                                       int
}

// reader reads a stream as a client does.
type reader struct {
	t      testing.TB
	events chan event
	notes  chan string
	gate   chan struct{} // writing waits for it; nil: it does not
	end    func()        // ends the stream and waits for it
	done   chan struct{}
}

func (h *host) read(ticket, last string, gate chan struct{}) *reader {
	h.t.Helper()
	s, err := h.hooks.Open(context.Background(), ticket, last, netip.Addr{})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{t: h.t, events: make(chan event, 1<<14), notes: make(chan string, 1<<10), gate: gate, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer s.Close()
		if err := s.Run(ctx, r.write); !h.stopping.Load() { // else the database may be closed already
			must(h.t, err)
		}
	}()
	r.end = func() { cancel(); <-r.done }
	h.t.Cleanup(r.end)
	return r
}

func (r *reader) write(b []byte) error {
	if r.gate != nil {
		<-r.gate
	}
	if !bytes.HasSuffix(b, []byte("\n\n")) {
		return fmt.Errorf("written %q", b)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
		if note, ok := strings.CutPrefix(part, ": "); ok {
			r.notes <- note
			continue
		}
		lines := strings.Split(part, "\n")
		if len(lines) != 3 || lines[0] != "event: write" || !strings.HasPrefix(lines[1], "id: ") || !strings.HasPrefix(lines[2], "data: ") {
			return fmt.Errorf("event %q", part)
		}
		var e event
		if err := json.Unmarshal([]byte(lines[2][len("data: "):]), &e); err != nil {
			return err
		}
		if e.ID != lines[1][len("id: "):] {
			return fmt.Errorf("event %q", part)
		}
		r.events <- e
	}
	return nil
}

// next waits for an event.
func (r *reader) next() event {
	r.t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-r.done:
		r.t.Fatal("the stream has ended")
	case <-time.After(10 * time.Second):
		r.t.Fatal("no event")
	}
	return event{}
}

func (r *reader) note() string {
	r.t.Helper()
	select {
	case n := <-r.notes:
		return n
	case <-time.After(10 * time.Second):
		r.t.Fatal("no comment")
	}
	return ""
}
