package capstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
)

// usage returns the counter of a Space, having compared it with what its rows add up to.
func (s *testStore) usage(space tinycloud.SpaceID) int64 {
	s.t.Helper()
	got, err := s.Usage(s.t.Context(), space)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.path == capstore.InMemory {
		return got
	}
	db := s.inspect()
	defer db.Close() //nolint:errcheck // only read
	var want, past, counted int64
	here := " WHERE sid = (SELECT sid FROM spaces WHERE space = '" + space.String() + "')"
	err = db.QueryRowContext(s.t.Context(), "SELECT (SELECT coalesce(sum(size), 0) FROM vals"+here+"), (SELECT coalesce(sum(size), 0) FROM past"+here+
		"), past FROM spaces"+here).Scan(&want, &past, &counted)
	if err != nil {
		s.t.Fatal(err)
	}
	if want -= past; counted != past {
		s.t.Errorf("%d bytes are past, the rows add up to %d", counted, past)
	}
	if got != want {
		s.t.Errorf("usage %d, the rows add up to %d", got, want)
	}
	if st := s.status(space); st.Bytes != want {
		s.t.Errorf("status tells of %d bytes, the rows add up to %d", st.Bytes, want)
	}
	return got
}

func wantUsage(t *testing.T, s *testStore, space tinycloud.SpaceID, want int64) {
	t.Helper()
	if got := s.usage(space); got != want {
		t.Errorf("usage %d, want %d", got, want)
	}
}

// write carries out writes of pairs of key and value with one invocation.
func (o *owner) write(s *testStore, pairs ...string) error {
	caps := captest.Caps{}
	var ops []kv.Op
	for i := 0; i < len(pairs); i += 2 {
		caps[o.space.String()+"/kv/"+pairs[i]] = []string{"tinycloud.kv/put"}
		ops = append(ops, putOp(o.space, pairs[i], pairs[i+1]))
	}
	o.n++
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps: caps, Proofs: []tinycloud.Hash{o.proof}, Expires: o.clock.now().Add(time.Minute), Nonce: fmt.Sprint("nonce ", o.n),
	}))
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = s.Write(s.t.Context(), tok, ops, nil)
	return err
}

func TestUsage(t *testing.T) { everywhere(t, testUsage) }

func testUsage(t *testing.T) {
	c := newClock()
	path := newDatabase(t)
	limit := int64(1 << 40)
	limited := func(o *capstore.Options) {
		o.Limit = func(tinycloud.SpaceID) (int64, bool) { return limit, true }
	}
	o := newOwner(t, "alice", c)
	one := openWith(t, "one", c, path, limited)
	o.hostOn(one)
	one.delegate(o.header)
	wantUsage(t, one, o.space, 0)
	for i, step := range []struct {
		pairs []string
		used  int64
	}{
		{[]string{"a", "12345"}, 5},
		{[]string{"a", "12345"}, 5},                             // the same value again
		{[]string{"b", "12345"}, 5},                             // under another key
		{[]string{"a", "x", "c", "x", "d", "yy"}, 8},            // one value twice in a batch
		{[]string{"e", ""}, 8},                                  // nothing
		{[]string{"a", "12345", "f", "1", "g", "\x00\x01"}, 11}, // old and new
	} {
		if err := o.write(one, step.pairs...); err != nil {
			t.Fatal(i, err)
		}
		wantUsage(t, one, o.space, step.used)
	}
	// What arrives from another host counts too, once.
	two := openNew(t, "two", c)
	o.hostOn(two)
	two.pull(one, o.space)
	wantUsage(t, two, o.space, 11)
	two.pull(one, o.space)
	wantUsage(t, two, o.space, 11)
	large := kv.Op{Space: o.space, Key: "large", Value: tinycloud.Sum([]byte("large")), Size: 1000}
	if _, err := one.Write(t.Context(), o.invoke(t, "large", "tinycloud.kv/put"), []kv.Op{large}, nil); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, one, o.space, 1011)
	two.pull(one, o.space)
	wantUsage(t, two, o.space, 11)
	// What no key holds is not kept.
	if err := two.Arrived(t.Context(), o.space, tinycloud.Sum([]byte("past")), 1000, nil); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, two, o.space, 11)
	for range 2 {
		if err := two.Arrived(t.Context(), o.space, tinycloud.Sum([]byte("large")), 1000, nil); err != nil {
			t.Fatal(err)
		}
		wantUsage(t, two, o.space, 1011)
	}
	all, err := two.UsageAll(t.Context())
	if diff := cmp.Diff([]capstore.SpaceUsage{{Space: o.space, Bytes: 1011}}, all, cmp.Comparer(func(a, b tinycloud.SpaceID) bool { return a == b })); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if two.path == capstore.InMemory {
		return
	}
	// After a restart the count goes on.
	two.stop()
	again := open(t, "two", c, two.path)
	wantUsage(t, again, o.space, 1011)
	if err := o.write(again, "z", "zz"); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, again, o.space, 1013)
}

func TestLimit(t *testing.T) { everywhere(t, testLimit) }

func testLimit(t *testing.T) {
	c := newClock()
	limit := int64(10)
	o := newOwner(t, "alice", c)
	s := openWith(t, "one", c, newDatabase(t), func(o *capstore.Options) {
		o.Limit = func(tinycloud.SpaceID) (int64, bool) { return limit, limit >= 0 }
	})
	o.hostOn(s)
	s.delegate(o.header)
	for i, step := range []struct {
		limit int64
		pairs []string
		class error
		text  string
		used  int64
	}{
		{10, []string{"a", "123456", "b", "1234567"}, tinycloud.ErrTooLarge, "Write exceeds remaining storage. Used: 0 bytes, Limit: 10 bytes", 0},
		{10, []string{"a", "123456"}, nil, "", 6},
		{10, []string{"b", "12345"}, tinycloud.ErrTooLarge, "Write exceeds remaining storage. Used: 6 bytes, Limit: 10 bytes", 6},
		{10, []string{"b", "123456", "c", "xx", "d", "xx", "e", "yy"}, nil, "", 10}, // exactly
		{10, []string{"f", "f"}, tinycloud.ErrQuota, "Storage quota exceeded. Used: 10 bytes, Limit: 10 bytes", 10},
		{10, []string{"a", "123456"}, nil, "", 10}, // held already
		{3, []string{"f", "f"}, tinycloud.ErrQuota, "Storage quota exceeded. Used: 10 bytes, Limit: 3 bytes", 10},
		{0, []string{"f", "f"}, tinycloud.ErrQuota, "Storage quota exceeded. Used: 10 bytes, Limit: 0 bytes", 10},
		{-1, []string{"f", "f"}, nil, "", 11},
	} {
		limit = step.limit
		err := o.write(s, step.pairs...)
		if !errors.Is(err, step.class) || err != nil && err.Error() != step.text {
			t.Errorf("step %d: %v, want %q", i, err, step.text)
		}
		wantUsage(t, s, o.space, step.used)
	}
	// A full Space takes no more, but what was written elsewhere replicates, and deletes are no writes.
	limit = 0
	if err := o.del(s, "a"); err != nil {
		t.Error("delete in a full space:", err)
	}
	two := openNew(t, "two", c)
	o.hostOn(two)
	two.pull(s, o.space)
	if err := o.put(two, "far", strings.Repeat("x", 100)); err != nil {
		t.Fatal(err)
	}
	s.pull(two, o.space)
	wantUsage(t, s, o.space, 11)
	if r, err := s.Get(t.Context(), o.space, "far"); err != nil || r.Size >= 0 {
		t.Errorf("beyond the limit: %+v, %v", r, err)
	}
}

// TestUsageAfterRollback has a job fail after it stored a value: the count is as if it had not been.
func TestUsageAfterRollback(t *testing.T) { everywhere(t, testUsageAfterRollback) }

func testUsageAfterRollback(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	if err := o.write(s, "a", "12345"); err != nil {
		t.Fatal(err)
	}
	// The large value is stored before its operation turns out to be too long for an epoch.
	tok := o.invoke(t, "b", "tinycloud.kv/put")
	op := putOp(o.space, "b", "b")
	op.Inline, op.Size, op.Metadata = nil, 1<<20, map[string]string{"x": strings.Repeat("x", 1<<20)}
	if _, err := s.Write(t.Context(), tok, []kv.Op{op}, nil); !errors.Is(err, tinycloud.ErrTooLarge) {
		t.Fatal(err)
	}
	wantUsage(t, s, o.space, 5)
	if err := o.write(s, "c", "678"); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, s, o.space, 8)
}

func TestQuotas(t *testing.T) { everywhere(t, testQuotas) }

func testQuotas(t *testing.T) {
	c := newClock()
	s := openNew(t, "one", c)
	a, b := captest.NewWallet("a").Space("default"), captest.NewWallet("b").Space("photos")
	ctx := t.Context()
	if err := errors.Join(s.SetQuota(ctx, a, 10), s.SetQuota(ctx, b, 1<<62), s.SetQuota(ctx, a, 0), s.ClearQuota(ctx, b), s.ClearQuota(ctx, b)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetQuota(ctx, b, -1); !errors.Is(err, tinycloud.ErrInvalid) {
		t.Error("a negative quota:", err)
	}
	check := func(s *testStore) {
		t.Helper()
		if got := s.Quotas(); len(got) != 1 {
			t.Errorf("quotas %v", got)
		}
		if n, ok := s.Quota(a); n != 0 || !ok {
			t.Errorf("quota of a: %d %v", n, ok)
		}
		if n, ok := s.Quota(b); n != 0 || ok {
			t.Errorf("quota of b: %d %v", n, ok)
		}
	}
	check(s)
	if s.path == capstore.InMemory {
		return
	}
	s.stop()
	check(open(t, "one", c, s.path))
}

// TestAllow shows when a node is asked whether it hosts a Space, and that its no is the end of it.
func TestAllow(t *testing.T) { everywhere(t, testAllow) }

func testAllow(t *testing.T) {
	c := newClock()
	o := newOwner(t, "alice", c)
	var asked []tinycloud.SpaceID
	var answer error
	s := openWith(t, "one", c, newDatabase(t), func(o *capstore.Options) {
		o.Allow = func(_ context.Context, id tinycloud.SpaceID) error {
			asked = append(asked, id)
			return answer
		}
	})
	host := o.signHost(s.host(o.space))
	stranger := captest.NewWallet("mallory").SignHost(o.space, s.host(o.space).String())
	other := o.signHost(hostlog.Key{1})
	at, digit := len(host)-20, "A" // inside the signature
	if host[at] == 'A' {
		digit = "B"
	}
	forged := host[:at] + digit + host[at+1:]
	if tok, err := capstore.ParseDelegation(forged); err != nil {
		t.Error(err)
	} else if _, err := s.Delegate(t.Context(), tok); !errors.Is(err, tinycloud.ErrForged) && !errors.Is(err, tinycloud.ErrUnauthorized) || len(asked) != 0 {
		t.Errorf("forged: %v, asked for %v", err, asked)
	}
	for i, step := range []struct {
		header string
		answer error
		class  error // of the refusal
		asked  int
		hosted bool
	}{
		{o.header, nil, nil, 1, false}, // a session, which waits for the Space to be hosted
		{other, nil, nil, 1, false},    // another host
		{stranger, nil, tinycloud.ErrUnauthorized, 0, false},
		{host, tinycloud.ErrForbidden, tinycloud.ErrForbidden, 1, false},
		{host, tinycloud.ErrUnavailable, tinycloud.ErrUnavailable, 1, false},
		{host, nil, nil, 1, true},
		{host, tinycloud.ErrForbidden, nil, 0, true}, // it stays
		{o.header, tinycloud.ErrForbidden, nil, 0, true},
	} {
		asked, answer = nil, step.answer
		tok, err := capstore.ParseDelegation(step.header)
		if err != nil {
			t.Fatal(i, err)
		}
		_, err = s.Delegate(t.Context(), tok)
		if !errors.Is(err, step.class) || len(asked) != step.asked || s.Hosted(o.space) != step.hosted {
			t.Errorf("step %d: %v, asked for %v, hosted %v", i, err, asked, s.Hosted(o.space))
		}
	}
}

// TestUsageOfAnOlderDatabase takes a database back to what it was before usage was counted.
func TestUsageOfAnOlderDatabase(t *testing.T) {
	c := newClock()
	s, o := openNew(t, "one", c), newOwner(t, "alice", c)
	o.hostOn(s)
	s.delegate(o.header)
	if err := o.write(s, "a", "12345", "b", "678"); err != nil {
		t.Fatal(err)
	}
	s.stop()
	db, err := sql.Open("sqlite", "file:"+s.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{
		"ALTER TABLE spaces DROP COLUMN bytes", "DROP TABLE quotas", "DELETE FROM goose_db_version WHERE version_id = 5",
	} {
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			t.Fatal(change, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, open(t, "one", c, s.path), o.space, 8)
}
