package capstore_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// waiting waits until so many requests wait for a history.
func (s *testStore) waiting(n int) {
	s.t.Helper()
	late := time.Now().Add(10 * time.Second)
	for capstore.Patient(s.Store) != n {
		if time.Now().After(late) {
			s.t.Fatalf("%d requests wait, want %d", capstore.Patient(s.Store), n)
		}
		runtime.Gosched()
	}
}

// joins makes a store a host of a Space that waits for its history.
func (o *owner) joins(s *testStore) {
	o.hostOn(s)
	if err := s.AddJoin(s.t.Context(), o.space, []string{somewhere}, false); err != nil {
		s.t.Fatal(err)
	}
}

func openPatient(t *testing.T, name string, c *clock) *testStore {
	t.Helper()
	return openWith(t, name, c, newDatabase(t), func(o *capstore.Options) { o.JoinTimeout = time.Hour })
}

// unknown is a delegation that nobody has.
var unknown = tinycloud.Sum([]byte("nobody has it"))

// ask signs an invocation and has it decoded.
func ask(t *testing.T, by *captest.SessionKey, c *clock, caps captest.Caps, proofs ...tinycloud.Hash) *capstore.Token {
	t.Helper()
	tok, err := capstore.ParseInvocation(by.Invoke(captest.TokenOptions{Caps: caps, Proofs: proofs, Expires: c.now().Add(time.Minute)}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func revocation(t *testing.T, header string) *capstore.Token {
	t.Helper()
	tok, err := capstore.ParseRevocation(header)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func (o *owner) shares(to *captest.SessionKey) string {
	return o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: to.URI(), Caps: captest.Caps{o.space.String() + "/kv/shared": {"tinycloud.kv/get"}}, IssuedAt: o.clock.now(), Expires: o.clock.now().Add(time.Hour),
	})
}

// What waits is answered by what is so when the wait is over.
func TestWaitingEnds(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		a, b := openPatient(t, "a", c), openPatient(t, "b", c)
		capstore.SetPatience(b.Store, 30*time.Second) // the history comes while they wait, however long that takes
		o, friend := newOwner(t, "alice", c), captest.NewSession("friend")
		shared := o.shares(friend)
		o.hostOn(a)
		a.delegate(o.header)
		a.delegate(shared)
		mustPut(t, o, a, "k", "v")
		o.joins(b) // what was delegated is unknown here
		var l capstore.Lifecycle
		status := ask(t, o.session, c, captest.Caps{"urn:cid:" + o.proof.EventID(): {"tinycloud.delegation/status"}})
		get, again := o.invoke(t, "k", "tinycloud.kv/get"), o.invoke(t, "k", "tinycloud.kv/get")
		further := o.session.Delegate(friend.DID(), captest.TokenOptions{
			Caps: captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}}, Proofs: []tinycloud.Hash{o.proof}, Expires: c.now().Add(time.Hour),
		})
		requests := map[string]func() error{
			"admission":  func() error { return b.Admit(t.Context(), get) },
			"signed URL": func() error { return b.AdmitReusable(t.Context(), again) },
			"delegation": func() error { return b.offer(further) },
			"revocation": func() error { return b.Revoke(t.Context(), revocation(t, o.wallet.SignRevocation(captest.ID(shared)))) },
			"status": func() (err error) {
				l, err = b.DelegationStatus(t.Context(), status, o.proof)
				return err
			},
		}
		errs, group := map[string]error{}, sync.WaitGroup{}
		var mu sync.Mutex
		for name, request := range requests {
			group.Go(func() {
				err := request()
				mu.Lock()
				defer mu.Unlock()
				errs[name] = err
			})
		}
		b.waiting(len(requests))
		b.pull(a, o.space)
		if err := b.Synced(t.Context(), o.space); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		for name, err := range errs {
			is(t, name, err, nil)
		}
		if l.State != capstore.StateActive {
			t.Errorf("the delegation is %s", l.State)
		}
		b.waiting(0)
	})
}

// Those who wait are few, for a Space and in all. The others are refused at once.
func TestWaitingIsBounded(t *testing.T) {
	c := newClock()
	s := openPatient(t, "one", c)
	const patience = time.Minute
	capstore.SetPatience(s.Store, patience)
	var owners []*owner
	for i := range capstore.MaxPatient/capstore.MaxOfSpace + 1 {
		o := newOwner(t, "alice", c)
		o.space = o.wallet.Space(fmt.Sprint("space", i))
		o.joins(s)
		owners = append(owners, o)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	crowd := func(o *owner) {
		for range capstore.MaxOfSpace {
			tok := o.invoke(t, "k", "tinycloud.kv/get")
			group.Go(func() { is(t, "who waited", s.Admit(ctx, tok), tinycloud.ErrUnavailable) })
		}
	}
	atOnce := func(o *owner) {
		t.Helper()
		before := time.Now()
		is(t, "one too many", s.Admit(t.Context(), o.invoke(t, "k", "tinycloud.kv/get")), tinycloud.ErrUnavailable)
		if took := time.Since(before); took >= patience {
			t.Errorf("one too many waited for %s", took)
		}
	}
	crowd(owners[0])
	s.waiting(capstore.MaxOfSpace)
	atOnce(owners[0])
	cancel()
	group.Wait() // a client that goes away waits no more
	s.waiting(0)
	ctx, cancel = context.WithCancel(t.Context())
	for _, o := range owners[:len(owners)-1] {
		crowd(o)
	}
	s.waiting(capstore.MaxPatient)
	atOnce(owners[len(owners)-1])
	cancel()
	group.Wait()
	s.waiting(0)
}

// What does not concern a Space that is joining is refused as ever, and so is what its signature or window refuse.
func TestNobodyWaitsForOthers(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s := openPatient(t, "one", c)
		o, joining, stranger := newOwner(t, "alice", c), newOwner(t, "bob", c), captest.NewSession("stranger")
		o.hostOn(s)
		s.delegate(o.header)
		joining.joins(s)
		kv := func(o *owner) captest.Caps { return captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}} }
		is(t, "unknown chain", s.Admit(t.Context(), ask(t, stranger, c, kv(o), unknown)), tinycloud.ErrUnauthorized)
		is(t, "no chain", s.Admit(t.Context(), ask(t, stranger, c, kv(o))), tinycloud.ErrUnauthorized)
		is(t, "unknown parent", s.offer(stranger.Delegate("did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH", captest.TokenOptions{
			Caps: kv(o), Proofs: []tinycloud.Hash{unknown}, Expires: c.now().Add(time.Hour),
		})), tinycloud.ErrUnauthorized)
		is(t, "revocation by an unknown proof", s.Revoke(t.Context(), revocation(t, stranger.Revoke(o.proof, captest.TokenOptions{
			Proofs: []tinycloud.Hash{unknown}, Expires: c.now().Add(time.Minute),
		}))), tinycloud.ErrForbidden)
		l, err := s.DelegationStatus(t.Context(), ask(t, o.session, c, captest.Caps{"urn:cid:" + o.proof.EventID(): {"tinycloud.delegation/status"}}), o.proof)
		if is(t, "status", err, nil); l.State != capstore.StateActive {
			t.Errorf("the delegation is %s", l.State)
		}
		forged := ask(t, stranger, c, kv(joining), unknown).Header()
		tok, err := capstore.ParseInvocation(forged[:len(forged)-8] + "AAAAAAAA")
		if err != nil {
			t.Fatal(err)
		}
		is(t, "forged", s.Admit(t.Context(), tok), tinycloud.ErrForged)
		late := ask(t, stranger, c, kv(joining), unknown)
		c.ms.Add(2 * time.Minute.Milliseconds())
		is(t, "expired", s.Admit(t.Context(), late), tinycloud.ErrUnauthorized)
	})
}

// What names no Space may be told by any that is joining.
func TestUnknownWhileAnyJoins(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := newClock()
		s := openPatient(t, "one", c)
		capstore.SetPatience(s.Store, 100*time.Millisecond)
		o := newOwner(t, "alice", c)
		s.delegate(o.header)
		o.joins(s)
		friend := captest.NewSession("friend")
		network := friend.Delegate(captest.NewSession("other").DID(), captest.TokenOptions{
			Caps:   captest.Caps{"urn:tinycloud:encryption:" + string(o.wallet.DID()) + ":default": {"tinycloud.encryption/decrypt"}},
			Proofs: []tinycloud.Hash{unknown}, Expires: c.now().Add(time.Hour),
		})
		status := func() (capstore.State, error) {
			l, err := s.DelegationStatus(t.Context(), ask(t, o.session, c, captest.Caps{"urn:cid:" + o.proof.EventID(): {"tinycloud.delegation/status"}}), o.proof)
			return l.State, err
		}
		is(t, "delegation of a network", s.offer(network), tinycloud.ErrUnavailable)
		// It is known here, but the history may hold its revocation.
		_, err := status()
		is(t, "status of what may be revoked", err, tinycloud.ErrUnavailable)
		if err := s.Revoke(t.Context(), revocation(t, o.wallet.SignRevocation(o.proof))); err != nil {
			t.Fatal(err) // that needs no history
		}
		state, err := status()
		if is(t, "status of what is", err, nil); state != capstore.StateRevoked {
			t.Errorf("the delegation is %s", state)
		}
		if err := s.Synced(t.Context(), o.space); err != nil {
			t.Fatal(err)
		}
		is(t, "delegation of a network, later", s.offer(network), tinycloud.ErrUnauthorized)
	})
}

// A host that was restored lacks what was delegated since, and says so.
func TestUnknownToRestored(t *testing.T) {
	c := newClock()
	o, dir := newOwner(t, "alice", c), t.TempDir()
	a, b := open(t, "a", c, filepath.Join(dir, "caps.db")), openNew(t, "b", c)
	for _, s := range []*testStore{a, b} {
		o.hostOn(s)
	}
	a.delegate(o.header)
	mustPut(t, o, a, "k", "v")
	b.pull(a, o.space)
	a.pull(b, o.space)
	if err := a.SaveAddrs(t.Context(), o.space, b.host(o.space), []string{somewhere}, 1); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(dir, "backup.db")
	if err := a.Snapshot(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	restored := open(t, "a", c, backup)
	capstore.SetPatience(restored.Store, 100*time.Millisecond)
	is(t, "what is known", restored.Admit(t.Context(), o.invoke(t, "k", "tinycloud.kv/get")), nil)
	tok := ask(t, captest.NewSession("friend"), c, captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}}, unknown)
	is(t, "what is not", restored.Admit(t.Context(), tok), tinycloud.ErrUnavailable)
	is(t, "its health", restored.Serves(t.Context(), o.space), tinycloud.ErrUnavailable)
	if err := restored.Synced(t.Context(), o.space); err != nil {
		t.Fatal(err)
	}
	is(t, "what is not, later", restored.Admit(t.Context(), tok), tinycloud.ErrUnauthorized)
	is(t, "its health, later", restored.Serves(t.Context(), o.space), nil)
}
