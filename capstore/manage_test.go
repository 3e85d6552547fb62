package capstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// A delegation that only stands in a peer's history grants nothing when its signer had nothing to give.
func TestBaselessDelegation(t *testing.T) { everywhere(t, testBaselessDelegation) }

func testBaselessDelegation(t *testing.T) {
	s, o, l := setUp(t)
	mallory, key := captest.NewWallet("mallory"), captest.NewSession("mallory")
	header := mallory.SignDelegation(captest.DelegationOptions{
		Audience: key.URI(), Expires: o.clock.now().Add(time.Hour), IssuedAt: o.clock.now(),
		Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}},
	})
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delegate(t.Context(), tok); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Fatalf("posted: %v", err)
	}
	l.say(t, s, l.bundle(o.clock.now(), s.status(o.space).Heads, tok.Bytes))
	inv, err := capstore.ParseInvocation(key.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}},
		Proofs: []tinycloud.Hash{tok.ID}, Expires: o.clock.now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Admit(t.Context(), inv); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("invoked: %v", err)
	}
	if about, ok := o.space.NewKey("kv", "k"); !ok || s.Covers(t.Context(), inv, about, "tinycloud.kv/get") {
		t.Error("its keys are covered")
	}
	child, err := capstore.ParseDelegation(key.Delegate("did:key:zFar", captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/kv/k": {"tinycloud.kv/get"}},
		Proofs: []tinycloud.Hash{tok.ID}, Expires: o.clock.now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delegate(t.Context(), child); !errors.Is(err, tinycloud.ErrUnauthorized) {
		t.Errorf("passed on: %v", err)
	}
	if got := statusOf(t, s, key, o, tok.ID); got.State != capstore.StateUnavailable {
		t.Errorf("status: %+v", got)
	}
	listed, err := s.Capabilities(t.Context(), inv, o.space, capstore.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(listed.IDs, tok.ID) {
		t.Error("listed among the capabilities")
	}
	if chain, err := s.Chain(t.Context(), o.space, tok.ID); err != nil || len(chain) != 0 {
		t.Errorf("a chain of %d: %v", len(chain), err)
	}
	lister := o.lister(t, s)
	p, err := s.QueryDelegations(t.Context(), lister(), capstore.DelegationQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Records {
		if r.ID == tok.ID {
			t.Error("listed in the account")
		}
	}
}

func statusOf(t *testing.T, s *testStore, key *captest.SessionKey, o *owner, id tinycloud.Hash) capstore.Lifecycle {
	t.Helper()
	inv, err := capstore.ParseInvocation(key.Invoke(captest.TokenOptions{
		Caps: captest.Caps{"urn:cid:" + id.EventID(): {"tinycloud.delegation/status"}}, Expires: o.clock.now().Add(time.Minute),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	l, err := s.DelegationStatus(t.Context(), inv, id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lister returns a source of admitted invocations that ask for the owner's delegations.
func (o *owner) lister(t *testing.T, s *testStore) func() *capstore.Token {
	t.Helper()
	key := captest.NewSession("lister")
	header := o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: key.URI(), Expires: o.clock.now().Add(time.Hour), IssuedAt: o.clock.now(), Nonce: "nonce0lister",
		Caps: captest.Caps{o.space.String() + "/delegation": {"tinycloud.delegation/list"}},
	})
	s.delegate(header)
	return func() *capstore.Token {
		inv, err := capstore.ParseInvocation(key.Invoke(captest.TokenOptions{
			Caps:   captest.Caps{o.space.String() + "/delegation": {"tinycloud.delegation/list"}},
			Proofs: []tinycloud.Hash{captest.ID(header)}, Expires: o.clock.now().Add(time.Minute),
		}))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Admit(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		return inv
	}
}

// states says the state of each delegation of an account, by CID.
func states(t *testing.T, s *testStore, inv *capstore.Token) map[string]string {
	t.Helper()
	p, err := s.QueryDelegations(t.Context(), inv, capstore.DelegationQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range p.Records {
		out[r.ID.EventID()] = fmt.Sprint(r.State, " ", r.Granted, " ", r.RevokedBy, " ", r.Ancestor)
	}
	return out
}

// TestReplicatedDelegations shows that a replica answers for what it knows from the history alone.
func TestReplicatedDelegations(t *testing.T) { everywhere(t, testReplicatedDelegations) }

func testReplicatedDelegations(t *testing.T) {
	c := newClock()
	a, b, o := openNew(t, "a", c), openNew(t, "b", c), newOwner(t, "alice", c)
	for _, s := range []*testStore{a, b} {
		o.hostOn(s)
	}
	a.delegate(o.header)
	friend := captest.NewSession("friend")
	child := o.session.Delegate(friend.DID(), captest.TokenOptions{
		Caps:   captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/get"}},
		Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(time.Minute),
	})
	a.delegate(child)
	lister := o.lister(t, a)
	b.pull(a, o.space)
	a.pull(b, o.space)
	same := func(what string, want capstore.State) {
		t.Helper()
		inv := lister()
		if err := b.Admit(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(states(t, a, inv), states(t, b, inv)); diff != "" || len(states(t, a, inv)) < 4 {
			t.Errorf("%s: %s", what, diff)
		}
		if x, y := statusOf(t, a, friend, o, captest.ID(child)), statusOf(t, b, friend, o, captest.ID(child)); x.State != want || y.State != want {
			t.Errorf("%s: %v and %v, want %v", what, x.State, y.State, want)
		}
	}
	same("at first", capstore.StateActive)
	rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(o.proof))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	a.pull(b, o.space)
	same("after a revocation at the replica", capstore.StateAncestorRevoked)
	if got := statusOf(t, a, o.session, o, o.proof); got.State != capstore.StateRevoked || got.RevokedBy != o.wallet.DID() || !got.RevokedAt.Equal(c.now()) {
		t.Errorf("%+v", got)
	}
}

// TestFillParties opens a database from before the indexes.
func TestFillParties(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "old", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	lister := o.lister(t, s)
	inv := lister()
	want := states(t, s, inv)
	s.stop()
	db, err := sql.Open("sqlite", s.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"DROP TABLE parties", "DROP TABLE listers", "DELETE FROM goose_db_version WHERE version_id IN (6, 7)"} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, "old", c, s.path)
	if diff := cmp.Diff(want, states(t, s, inv)); diff != "" || len(want) != 3 {
		t.Errorf("%d delegations: %s", len(want), diff)
	}
}

// TestSparseQuery looks for a needle: pages end, though they be empty, before too much is looked at.
func TestSparseQuery(t *testing.T) { everywhere(t, testSparseQuery) }

func testSparseQuery(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	lister := o.lister(t, s)
	friend := captest.NewSession("friend")
	var group sync.WaitGroup
	limit := make(chan struct{}, 64)
	grant := func(space string, at int) {
		header := o.wallet.SignDelegation(captest.DelegationOptions{
			Audience: friend.URI(), IssuedAt: c.now().Add(-time.Duration(at) * time.Second), Expires: c.now().Add(time.Hour),
			Caps: captest.Caps{o.wallet.Space(space).String() + "/kv": {"tinycloud.kv/get"}},
		})
		limit <- struct{}{}
		group.Go(func() { s.delegate(header); <-limit })
	}
	const many = 2100
	for i := range many {
		grant("hay", i)
	}
	grant("needle", many+1)
	group.Wait()
	inv := lister()
	q := capstore.DelegationQuery{Limit: 10, Space: "needle"}
	found, pages := 0, 0
	for {
		p, err := s.QueryDelegations(t.Context(), inv, q)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		found += len(p.Records)
		if p.Next.IsZero() {
			break
		}
		q.After = p.Next
	}
	if found != 1 || pages != 2 {
		t.Errorf("%d found in %d pages", found, pages)
	}
}

// TestQueryOfUndated pages through delegations that don't say when they were issued.
func TestQueryOfUndated(t *testing.T) { everywhere(t, testQueryOfUndated) }

func testQueryOfUndated(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	inv := o.lister(t, s)()
	for i := range 9 {
		s.delegate(o.session.Delegate("did:key:zFar", captest.TokenOptions{
			Caps:   captest.Caps{o.space.String() + "/kv/x": {"tinycloud.kv/get"}},
			Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(time.Minute), Nonce: fmt.Sprint(i),
		}))
	}
	// The session's key is none of the account's: what it passes on is seen by the session itself alone.
	if got := states(t, s, inv); len(got) != 3 {
		t.Errorf("%v", got)
	}
	key := o.wallet.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: c.now().Add(time.Hour), IssuedAt: c.now(), Nonce: "nonce0000009",
		Caps: captest.Caps{o.space.String() + "/delegation": {"tinycloud.delegation/list"}},
	})
	s.delegate(key)
	whole, err := s.QueryDelegations(t.Context(), inv, capstore.DelegationQuery{Limit: 100})
	if err != nil || len(whole.Records) != 13 || !whole.Next.IsZero() {
		t.Fatalf("%d delegations: %v", len(whole.Records), err)
	}
	var want, got []string
	for i, r := range whole.Records {
		want = append(want, r.ID.EventID())
		if undated := r.IssuedAt.IsZero(); undated != (i >= 4) || i > 4 && want[i-1] >= want[i] {
			t.Errorf("delegation %d is out of order", i)
		}
	}
	for q := (capstore.DelegationQuery{Limit: 2}); ; {
		p, err := s.QueryDelegations(t.Context(), inv, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records {
			got = append(got, r.ID.EventID())
		}
		if q.After = p.Next; p.Next.IsZero() {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
