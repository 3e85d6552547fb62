package encryption_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
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
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/encryption"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/networktest"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

var servers testservers.Shared

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(servers.Main(m), goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// everywhere runs a test on each database.
func everywhere(t *testing.T, test func(t *testing.T, database string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "caps.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, servers.Postgres(t).DSN) })
	t.Run("mysql", func(t *testing.T) { test(t, servers.MariaDB(t).DSN) })
}

// secret is S0 of the vectors.
const secret = "Some long piece of entropy which is a secret and more than 32 bytes"

// host is a store with networks, at a time that tests set.
type host struct {
	*encryption.Networks
	t     testing.TB
	store *capstore.Store
	keys  *hostkeys.Static
	node  string
	at    atomic.Int64 // unix milliseconds
	stop  func()

	secret, database string
	options          encryption.Options
}

func (h *host) now() time.Time { return time.UnixMilli(h.at.Load()) }

func (h *host) pass(d time.Duration) { h.at.Add(d.Milliseconds()) }

func open(t testing.TB, database string, at time.Time, random io.Reader) *host {
	t.Helper()
	return openAs(t, secret, database, at, encryption.Options{Rand: random})
}

// openAs opens a host of another secret.
func openAs(t testing.TB, secret, database string, at time.Time, o encryption.Options) *host {
	t.Helper()
	h := &host{t: t, secret: secret, database: database, options: o}
	h.at.Store(at.UnixMilli())
	h.begin()
	t.Cleanup(func() { h.stop() })
	return h
}

// restart opens the host anew with what it has on disk.
func (h *host) restart() {
	h.t.Helper()
	h.stop()
	h.begin()
}

func (h *host) begin() {
	h.t.Helper()
	t, o := h.t, h.options
	var err error
	if h.keys, err = hostkeys.New([]byte(h.secret)); err != nil {
		t.Fatal(err)
	}
	h.node = hostkeys.DIDKey(h.keys.NodeKey().Public().(ed25519.PublicKey))
	if h.store, err = capstore.Open(t.Context(), capstore.Options{Database: h.database, Keys: h.keys, Now: h.now}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.store.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, h.store.Close()); err != nil {
			t.Error(err)
		}
	})
	o.Store, o.Node, o.Seal = h.store, h.keys.NodeKey(), h.keys.Derive(hostkeys.ContextNetworkSeal)
	h.Networks = encryption.New(o)
}

// owner is a did:key that hosts a Space, and asks itself.
func (h *host) owner(key *captest.SessionKey) networktest.Client {
	h.t.Helper()
	space, err := tinycloud.ParseSpaceID("tinycloud:" + strings.TrimPrefix(string(key.DID()), "did:") + ":secrets")
	if err != nil {
		h.t.Fatal(err)
	}
	to := hostkeys.DIDKey(h.keys.SpaceKey(space).Public().(ed25519.PublicKey))
	tok, err := capstore.ParseDelegation(key.Delegate(tinycloud.Principal(to), captest.TokenOptions{
		Caps: captest.Caps{space.String() + "/space": {"tinycloud.space/host"}}, Expires: h.now().Add(time.Hour),
	}))
	if err == nil {
		_, err = h.store.Delegate(h.t.Context(), tok)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return h.client(key)
}

func (h *host) client(key *captest.SessionKey) networktest.Client {
	return networktest.Client{Key: key, Node: h.node}
}

func token(t testing.TB, header string) *capstore.Token {
	t.Helper()
	tok, err := capstore.ParseInvocation(header)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// signed signs a request that is valid for a minute.
func (h *host) signed(r *networktest.Request) *capstore.Token {
	h.t.Helper()
	if r.Token.Expires.IsZero() {
		r.Token.Expires = h.now().Add(time.Minute)
	}
	return token(h.t, r.Header())
}

func (h *host) create(r *networktest.Request) (string, error) {
	d, err := h.Create(h.t.Context(), h.signed(r), []byte(r.Text()))
	if err != nil {
		return "", err
	}
	return string(networktest.Canonical(map[string]any{"descriptor": d})), nil
}

func (h *host) mustCreate(r *networktest.Request) string {
	h.t.Helper()
	d, err := h.create(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// decrypt asks and verifies the answer.
func (h *host) decrypt(c networktest.Client, e networktest.Envelope) ([]byte, error) {
	h.t.Helper()
	q, receiver := c.Decrypt(e.NetworkID, e.KeyVersion, e.EncryptedSymmetricKey)
	q.Token.Expires = h.now().Add(time.Minute)
	header := q.Header()
	a, err := h.Decrypt(h.t.Context(), token(h.t, header), e.NetworkID, []byte(q.Text()))
	if err != nil {
		return nil, err
	}
	return receiver.Open(q, header, string(networktest.Canonical(a)))
}

func encrypt(t testing.TB, descriptor string) (networktest.Envelope, []byte) {
	t.Helper()
	e, data, err := networktest.Encrypt(descriptor, []byte("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	return e, data
}

func refused(t testing.TB, what string, err, class error, text string) {
	t.Helper()
	var r *tinycloud.Refusal
	if !errors.As(err, &r) || !errors.Is(r, class) || !strings.Contains(r.Text, text) {
		t.Errorf("%s: %v, want %q of class %v", what, err, text, class)
	}
}

var begin = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// outcomes are the decisions that are remembered of a network.
func (h *host) outcomes(id tinycloud.NetworkID) string {
	h.t.Helper()
	var out []string
	err := h.store.Beside().Each(h.t.Context(), func(scan func(dest ...any) error) error {
		var s string
		err := scan(&s)
		out = append(out, s)
		return err
	}, "SELECT outcome FROM network_audit WHERE network = ? ORDER BY slot", encryption.Row(id))
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func (h *host) count(query string, args ...any) (n int) {
	h.t.Helper()
	if _, err := h.store.Beside().One(h.t.Context(), []any{&n}, query, args...); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// beside changes rows behind the networks' back.
func (h *host) beside(f func(tx capstore.BesideTx) error) {
	h.t.Helper()
	if err := h.store.Beside().Update(h.t.Context(), false, f); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) expire() {
	h.t.Helper()
	if err := h.Expire(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// publicOf is the advertised key of a client's network "default".
func publicOf(t testing.TB, h *host, c networktest.Client) []byte {
	t.Helper()
	id, err := tinycloud.ParseNetworkID(networktest.ID(c.Key.DID(), "default"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.Describe(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d.PublicKey
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
