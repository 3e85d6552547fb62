package capstore_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"slices"
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
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(servers.Main(m), goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// keys derives Space keys from a node's name.
type keys string

func (k keys) SpaceKey(s tinycloud.SpaceID) ed25519.PrivateKey {
	h := tinycloud.Sum([]byte(string(k) + s.String()))
	return ed25519.NewKeyFromSeed(h[:])
}

// clock is the time that a store sees.
type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC).UnixMilli()) // times count in the order of writes
	return c
}

// testStore is a running store of a node with a given name.
type testStore struct {
	*capstore.Store
	*kv.Keys
	t     *testing.T
	name  keys
	clock *clock
	path  string
	stop  func()

	mu      sync.Mutex
	commits []capstore.Commit // guarded by mu
}

// written returns what the store told of changes, in order.
func (s *testStore) written() (out []capstore.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commits {
		out = append(out, c.Writes...)
	}
	return out
}

// told returns the commits that the store told of.
func (s *testStore) told() []capstore.Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commits)
}

func open(t *testing.T, name string, c *clock, path string) *testStore {
	t.Helper()
	return openWith(t, name, c, path, func(*capstore.Options) {})
}

// openWith opens a store with options, and runs it once all in before was done.
func openWith(t *testing.T, name string, c *clock, path string, change func(*capstore.Options), before ...func(*capstore.Store)) *testStore {
	t.Helper()
	ts := &testStore{t: t, name: keys(name), clock: c, path: path}
	options := capstore.Options{Services: servicetest.Services(), Database: path, Keys: keys(name), Now: c.now, Committed: func(c capstore.Commit) {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		ts.commits = append(ts.commits, c)
	}}
	change(&options)
	s, err := capstore.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	ts.Store, ts.Keys = s, kv.Of(s)
	capstore.SetDoubts(s, kind(t) == onSQLite || os.Getenv("TINYCLOUD_TEST_DOUBTS") != "")
	for _, f := range before {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	ts.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(ts.stop)
	return ts
}

func openNew(t *testing.T, name string, c *clock) *testStore {
	return open(t, name, c, newDatabase(t))
}

func (s *testStore) host(space tinycloud.SpaceID) hostlog.Key {
	return hostlog.Key(s.name.SpaceKey(space).Public().(ed25519.PublicKey))
}

func (s *testStore) delegate(header string) capstore.Delegated {
	s.t.Helper()
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := s.Delegate(s.t.Context(), tok)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// status is what a store and its keys know of a Space.
type status struct {
	capstore.Status
	Conflicts int64
}

func (s *testStore) status(space tinycloud.SpaceID) (st status) {
	s.t.Helper()
	var err1, err2 error
	st.Status, err1 = s.Status(s.t.Context(), space)
	st.Conflicts, err2 = s.ConflictCount(s.t.Context(), space)
	if err := errors.Join(err1, err2); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// owner is a wallet with a Space and a session key.
type owner struct {
	wallet  *captest.Wallet
	space   tinycloud.SpaceID
	session *captest.SessionKey
	proof   tinycloud.Hash
	header  string
	clock   *clock
	n       int
}

func newOwner(t *testing.T, seed string, c *clock) *owner {
	t.Helper()
	w := captest.NewWallet(seed)
	o := &owner{wallet: w, space: w.Space("default"), session: captest.NewSession(seed + " session"), clock: c}
	o.header = w.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: c.now().Add(24 * time.Hour), IssuedAt: c.now(), Nonce: "nonce0000001",
		Caps: captest.Caps{
			o.space.String() + "/kv":               {"tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/del", "tinycloud.kv/list", "tinycloud.kv/metadata"},
			o.space.String() + "/capabilities/all": {"tinycloud.capabilities/read"},
		},
	})
	o.proof = captest.ID(o.header)
	return o
}

// signHost is the header of the delegation that makes a host of a key.
func (o *owner) signHost(host hostlog.Key) string {
	options := captest.HostOptions(o.space, host.String())
	options.IssuedAt = o.clock.now()
	return o.wallet.SignDelegation(options)
}

// hostOn makes a store a host of the owner's Space.
func (o *owner) hostOn(s *testStore) {
	s.delegate(o.signHost(s.host(o.space)))
}

func (o *owner) invoke(t *testing.T, key, ability string) *capstore.Token {
	t.Helper()
	return o.invokeFor(t, time.Minute, key, ability)
}

func ops(o ...kv.Op) []kv.Op { return o }

// redate waits for what late entries change in the order of writes.
func (s *testStore) redate() {
	s.t.Helper()
	if err := s.Redate(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (o *owner) invokeFor(t *testing.T, life time.Duration, key, ability string) *capstore.Token {
	t.Helper()
	o.n++
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/kv/" + key: {ability}},
		Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(life), Nonce: fmt.Sprint("nonce ", o.n),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func putOp(space tinycloud.SpaceID, key, value string) kv.Op {
	return kv.Op{
		Space: space, Key: key, Value: tinycloud.Sum([]byte(value)), Size: int64(len(value)), Inline: []byte(value),
		Metadata: map[string]string{"content-type": "text/plain"},
	}
}

func (o *owner) put(s *testStore, key, value string) error {
	tok := o.invoke(s.t, key, "tinycloud.kv/put")
	if err := s.Admit(s.t.Context(), tok); err != nil {
		return err
	}
	_, err := s.Write(s.t.Context(), tok, []kv.Op{putOp(o.space, key, value)}, nil)
	return err
}

func (o *owner) del(s *testStore, key string) error {
	tok := o.invoke(s.t, key, "tinycloud.kv/del")
	if err := s.Admit(s.t.Context(), tok); err != nil {
		return err
	}
	_, err := s.Write(s.t.Context(), tok, []kv.Op{{Space: o.space, Key: key, Delete: true}}, nil)
	return err
}

func (s *testStore) get(space tinycloud.SpaceID, key string) string {
	s.t.Helper()
	r, err := s.Get(s.t.Context(), space, key)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return "(none)"
	}
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := s.Inline(s.t.Context(), space, r.Value)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// pull takes everything from another store that this one lacks.
func (s *testStore) pull(from *testStore, space tinycloud.SpaceID) {
	s.t.Helper()
	theirs, err := from.Tips(s.t.Context(), space)
	if err != nil {
		s.t.Fatal(err)
	}
	have, _, err := s.Have(s.t.Context(), space, theirs)
	if err != nil {
		s.t.Fatal(err)
	}
	var bundles []hostlog.Bundle
	err = from.Missing(s.t.Context(), space, have, 1<<20, func(b hostlog.Bundle) error {
		bundles = append(bundles, b)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for len(bundles) > 0 {
		n := min(len(bundles), 512)
		a, err := s.Apply(s.t.Context(), space, bundles[:n])
		if err != nil || a.Covered != n {
			s.t.Fatalf("applied %+v of %d: %v", a, n, err)
		}
		bundles = bundles[n:]
	}
}

func TestSignIn(t *testing.T) { everywhere(t, testSignIn) }

func testSignIn(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	if d := s.delegate(o.header); len(d.Activated) != 0 || len(d.Skipped) != 1 {
		t.Fatalf("before hosting: %+v", d)
	}
	if err := o.put(s, "a", "1"); !errors.Is(err, tinycloud.ErrNotFound) || err.Error() != "Space not found" {
		t.Fatalf("put before hosting: %v", err)
	}
	o.hostOn(s)
	if d := s.delegate(o.header); len(d.Activated) != 0 || len(d.Skipped) != 0 {
		t.Fatalf("after hosting: %+v", d)
	}
	if err := o.put(s, "a", "1"); err != nil {
		t.Fatal(err)
	}
	late := openNew(t, "two", c)
	o.hostOn(late)
	late.pull(s, o.space)
	if got := late.get(o.space, "a"); got != "1" {
		t.Errorf("late joiner reads %q", got)
	}
	st := late.status(o.space)
	if st.Void != 0 || st.Epochs != 4 {
		t.Errorf("late joiner: %+v", st)
	}
	if err := o.put(late, "b", "2"); err != nil {
		t.Errorf("put on the late joiner, which knows the session from the history only: %v", err)
	}
}

func TestKV(t *testing.T) { everywhere(t, testKV) }

func testKV(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	for i, step := range []struct {
		op, key, value string
		want           error
	}{
		{"put", "k", "1", nil},
		{"put", "k", "2", nil},
		{"del", "k", "", nil},
		{"del", "k", "", nil},
		{"del", "never", "", tinycloud.ErrNotFound},
		{"put", "k", "3", nil},
		{"put", "empty", "", nil},
	} {
		var err error
		if step.op == "put" {
			err = o.put(s, step.key, step.value)
		} else {
			err = o.del(s, step.key)
		}
		if !errors.Is(err, step.want) {
			t.Fatalf("step %d, %s %q: %v, want %v", i, step.op, step.key, err, step.want)
		}
	}
	if got := s.get(o.space, "k"); got != "3" {
		t.Errorf("k = %q", got)
	}
	keys, more, err := s.List(t.Context(), o.space, "", "", 1)
	if err != nil || !more || len(keys) != 1 || keys[0] != "empty" {
		t.Errorf("list: %q %v %v", keys, more, err)
	}
	tok := o.invoke(t, "r", "tinycloud.kv/put")
	for _, want := range []error{nil, tinycloud.ErrConflict} {
		if _, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, "r", "x")}, nil); !errors.Is(err, want) {
			t.Errorf("write with a token: %v, want %v", err, want)
		}
	}
	if err := s.Admit(t.Context(), tok); !errors.Is(err, tinycloud.ErrConflict) {
		t.Errorf("admit of a used token: %v", err)
	}
}

func TestReopen(t *testing.T) { everywhere(t, testReopen) }

func testReopen(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	for i := range 20 {
		if err := o.put(s, fmt.Sprint("k", i%7), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s.path == capstore.InMemory {
		t.Skip("nothing is left of it")
	}
	if !strings.Contains(s.path, "://") {
		if _, err := capstore.Open(t.Context(), capstore.Options{Services: servicetest.Services(), Database: s.path, Keys: s.name}); err == nil {
			t.Fatal("a second store opened the same file")
		}
	}
	before := s.status(o.space)
	s.stop()
	again := open(t, "one", c, s.path)
	after := again.status(o.space)
	if before.StateHash != after.StateHash || before.Epochs != after.Epochs || fmt.Sprint(before.Heads) != fmt.Sprint(after.Heads) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if err := o.put(again, "more", "1"); err != nil {
		t.Fatal(err)
	}
	if st := again.status(o.space); len(st.Heads) != 1 || st.Void != 0 {
		t.Errorf("after a further put: %+v", st)
	}
}

func TestRevocation(t *testing.T) { everywhere(t, testRevocation) }

func testRevocation(t *testing.T) {
	c := newClock()
	a, b, o := openNew(t, "one", c), openNew(t, "two", c), newOwner(t, "alice", c)
	for _, s := range []*testStore{a, b} {
		o.hostOn(s)
	}
	a.delegate(o.header)
	b.pull(a, o.space)
	a.pull(b, o.space)
	stranger, err := capstore.ParseRevocation(captest.NewWallet("mallory").SignRevocation(o.proof))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Revoke(t.Context(), stranger); !errors.Is(err, tinycloud.ErrForbidden) || err.Error() != "Unauthorized Revoker" {
		t.Errorf("stranger: %v", err)
	}
	if err := o.put(b, "concurrent", "stays"); err != nil {
		t.Fatal(err)
	}
	rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(o.proof))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
	}
	want := "delegation-revoked: " + o.proof.EventID()
	if err := o.put(a, "late", "x"); err == nil || err.Error() != want {
		t.Errorf("put where it was revoked: %v", err)
	}
	if err := o.put(b, "late", "unaware"); err != nil {
		t.Errorf("put where the revocation is not known: %v", err)
	}
	a.pull(b, o.space)
	b.pull(a, o.space)
	if err := o.put(b, "late", "y"); err == nil || err.Error() != want {
		t.Errorf("put where the revocation arrived: %v", err)
	}
	for _, s := range []*testStore{a, b} {
		if got := s.get(o.space, "concurrent") + s.get(o.space, "late"); got != "staysunaware" {
			t.Errorf("%s: concurrent writes: %q", s.name, got)
		}
	}
	if x, y := a.status(o.space), b.status(o.space); x.StateHash != y.StateHash || fmt.Sprint(x.Heads) != fmt.Sprint(y.Heads) {
		t.Errorf("diverged:\n%+v\n%+v", x, y)
	}
}

// A job that fails after it has written takes none of those down that share its transaction.
func TestGroupSurvivesAFailedJob(t *testing.T) { everywhere(t, testGroupSurvivesAFailedJob) }

func testGroupSurvivesAFailedJob(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	tok, err := capstore.ParseDelegation(o.header)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delegate(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
	const writers = 32
	results := make(chan error, writers+1)
	for i := range writers {
		tok := o.invoke(t, fmt.Sprint("k", i), "tinycloud.kv/put")
		go func() {
			_, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, fmt.Sprint("k", i), "v")}, nil)
			results <- err
		}()
	}
	large := o.invoke(t, "large", "tinycloud.kv/put")
	go func() {
		op := putOp(o.space, "large", "v")
		op.Inline = nil // so that a row of its value is written before its headers are found too large
		op.Metadata["x-tinycloud-meta-large"] = strings.Repeat("x", 70_000)
		_, err := s.Write(t.Context(), large, []kv.Op{op}, nil)
		if !errors.Is(err, tinycloud.ErrTooLarge) {
			err = fmt.Errorf("large write: %w", err)
		} else {
			err = nil
		}
		results <- err
	}()
	for range writers + 1 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	st := s.status(o.space)
	if st.Keys != writers || st.Void != 0 || len(st.Heads) != 1 {
		t.Errorf("%d keys, %d void, %d heads; want %d, 0, 1", st.Keys, st.Void, len(st.Heads), writers)
	}
}
