package capstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// checkLog fails unless a Space's own log is one chain and its epochs are unique.
func checkLog(t *testing.T, s *testStore, space tinycloud.SpaceID) []hostlog.Bundle {
	t.Helper()
	tips, err := s.Tips(t.Context(), space)
	if err != nil || len(tips) != 1 {
		t.Errorf("%d tips: %v", len(tips), err)
	}
	bundles := all(t, s, space)
	epochs := map[tinycloud.Hash]bool{}
	prev := tinycloud.Hash{}
	for i, b := range bundles {
		if b.Entry.N != uint64(i) || b.Entry.Prev != prev || b.Entry.Host != s.host(space) {
			t.Errorf("entry %d is number %d of %s", i, b.Entry.N, b.Entry.Host)
		}
		if epochs[b.Entry.Epoch] {
			t.Errorf("epoch %s twice", b.Entry.Epoch.EpochID())
		}
		if err := hostlog.CheckAll(space, []hostlog.Bundle{b}).Bad; err != nil {
			t.Error(err)
		}
		epochs[b.Entry.Epoch], prev = true, b.Entry.Digest()
	}
	return bundles
}

// Two processes write to one Space: together they are one host.
func TestSharedWriters(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a, b := open(t, "one", c, url), open(t, "one", c, url)
		o := newOwner(t, "alice", c)
		o.hostOn(a)
		b.delegate(o.header)
		const writers, each = 16, 20
		toks := make([]*capstore.Token, writers*each)
		for i := range toks {
			toks[i] = o.invoke(t, fmt.Sprint("k", i), "tinycloud.kv/put")
		}
		var wg sync.WaitGroup
		for w := range writers {
			s := []*testStore{a, b}[w%2]
			wg.Go(func() {
				for i := w * each; i < (w+1)*each; i++ {
					err := s.Admit(t.Context(), toks[i])
					if err == nil {
						_, err = s.Write(t.Context(), toks[i], []kv.Op{putOp(o.space, fmt.Sprint("k", i), fmt.Sprint(i))}, nil)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		want := a.status(o.space)
		if want.Keys != writers*each || want.Void != 0 || len(want.Heads) != 1 {
			t.Errorf("%+v", want)
		}
		bundles := checkLog(t, a, o.space)
		if len(bundles) != writers*each+2 {
			t.Errorf("%d entries", len(bundles))
		}
		for i := range toks {
			if got := b.get(o.space, fmt.Sprint("k", i)); got != fmt.Sprint(i) {
				t.Errorf("k%d = %q", i, got)
			}
		}
		fresh := open(t, "one", c, url)
		late := open(t, "late", c, newDatabase(t))
		o.hostOn(late)
		feedAll(t, late, o.space, bundles)
		for name, s := range map[string]*testStore{"b": b, "fresh": fresh} {
			if got := s.status(o.space); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %+v\nwant %+v", name, got, want)
			}
		}
		if got := late.status(o.space); got.StateHash != want.StateHash || got.Void != want.Void {
			t.Errorf("another host: %+v", got)
		}
	})
}

func feedAll(t *testing.T, s *testStore, space tinycloud.SpaceID, bundles []hostlog.Bundle) {
	t.Helper()
	for part := range slices.Chunk(bundles, 256) {
		if a, err := s.Apply(t.Context(), space, part); err != nil || a.Covered != len(part) {
			t.Fatalf("%+v, %v", a, err)
		}
	}
}

// What one process made durable holds at the next request to another.
func TestSharedAtOnce(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a, b := open(t, "one", c, url), open(t, "one", c, url)
		o := newOwner(t, "alice", c)
		o.hostOn(a)
		a.delegate(o.header)
		if err := o.put(b, "k", "1"); err != nil {
			t.Fatal("the Space is not known to the other:", err)
		}
		if got := a.get(o.space, "k"); got != "1" {
			t.Errorf("k = %q", got)
		}
		for i := range 20 { // in turns, so that each builds on the other's
			if err := o.put([]*testStore{a, b}[i%2], "k", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		tok := o.invoke(t, "k", "tinycloud.kv/get")
		if err := a.Burn(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		if err := b.Burn(t.Context(), tok); !errors.Is(err, tinycloud.ErrConflict) {
			t.Errorf("a read that the other served: %v", err)
		}
		rev, err := capstore.ParseRevocation(o.wallet.SignRevocation(o.proof))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Revoke(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if err := o.put(b, "k", "late"); err == nil || err.Error() != "delegation-revoked: "+o.proof.EventID() {
			t.Errorf("put after the revocation at the other: %v", err)
		}
		if st := b.status(o.space); len(st.Heads) != 1 || st.Void != 0 || st.Epochs != int64(len(checkLog(t, b, o.space))) {
			t.Errorf("%+v", st)
		}
	})
}

// Each process is told what the others made durable.
func TestSharedTold(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a := open(t, "one", c, url)
		told := make(chan capstore.Commit, 100)
		b := openWith(t, "one", c, url, func(o *capstore.Options) { o.Committed = func(c capstore.Commit) { told <- c } })
		o := newOwner(t, "alice", c)
		o.hostOn(a)
		a.delegate(o.header)
		if err := o.put(a, "k", "value"); err != nil {
			t.Fatal(err)
		}
		if err := o.put(b, "own", "value"); err != nil {
			t.Fatal(err)
		}
		if err := a.AddJoin(t.Context(), o.space, []string{"/ip4/127.0.0.1/tcp/1"}, true); err != nil {
			t.Fatal(err)
		}
		var locals []hostlog.Bundle
		created, joins := 0, 0
		for len(locals) < 4 || joins == 0 {
			select {
			case c := <-told:
				locals = append(locals, c.Local...)
				if c.Created {
					created++
				}
				if c.Joins {
					joins++
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("told of %d entries and %d joins only", len(locals), joins)
			}
		}
		if created != 1 || joins != 1 || len(locals) != 4 {
			t.Errorf("created %d times, joins %d times, %d entries", created, joins, len(locals))
		}
		slices.SortFunc(locals, func(a, b hostlog.Bundle) int { return int(a.Entry.N) - int(b.Entry.N) })
		for i, b := range locals {
			if err := hostlog.CheckAll(o.space, []hostlog.Bundle{b}).Bad; err != nil || b.Entry.N != uint64(i) {
				t.Errorf("entry %d: %v", b.Entry.N, err)
			}
		}
		if len(locals[2].Values) != 1 || string(locals[2].Values[0].Bytes) != "value" {
			t.Errorf("values %v", locals[2].Values)
		}
	})
}

// Another secret makes another host: it has no part in this database.
func TestSharedOtherSecret(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		a := open(t, "one", c, url)
		newOwner(t, "alice", c).hostOn(a)
		s, err := capstore.Open(t.Context(), capstore.Options{Services: servicetest.Services(), Database: url, Keys: keys("two")})
		if err == nil {
			t.Error(s.Close(), "opened")
		} else if text := err.Error(); !strings.Contains(text, "another secret") || !strings.Contains(text, "storage.database") || strings.Contains(text, "p%40ss") {
			t.Error(err)
		}
	})
}

// leaders counts the processes that lead.
type leaders struct{ now, most atomic.Int64 }

// lead lets a store lead when it can. It returns what tells that it does, and what ends that.
func (l *leaders) lead(t *testing.T, s *testStore) (leads <-chan struct{}, end func()) {
	t.Helper()
	led := make(chan struct{}, 10)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Lead(ctx, capstore.Replication, func(ctx context.Context) error {
			l.most.Store(max(l.most.Load(), l.now.Add(1)))
			led <- struct{}{}
			<-ctx.Done()
			l.now.Add(-1)
			return nil
		})
	}()
	return led, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// One process leads; when it ends in order, another does at once.
func TestLead(t *testing.T) {
	onServers(t, func(t *testing.T) {
		c, url := newClock(), newDatabase(t)
		var l leaders
		a, b := open(t, "one", c, url), open(t, "one", c, url)
		ledA, endA := l.lead(t, a)
		await(t, ledA, 30*time.Second)
		ledB, endB := l.lead(t, b)
		defer endB()
		select {
		case <-ledB:
			t.Error("two lead")
		case <-time.After(3 * time.Second):
		}
		endA()
		await(t, ledB, 30*time.Second)
		if l.most.Load() != 1 {
			t.Errorf("%d led at once", l.most.Load())
		}
	})
}

// The lease of a process that died runs out.
func TestLeadAfterDeath(t *testing.T) {
	onServers(t, func(t *testing.T) {
		db := newServerDatabase(t)
		a := open(t, "one", newClock(), db.DSN)
		db.Exec("UPDATE leases SET holder = 'gone', expires = " + clocks[kind(t)] + " + 3000")
		begin := time.Now()
		var l leaders
		led, end := l.lead(t, a)
		defer end()
		await(t, led, 12*time.Second)
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("took over after %s", took)
		}
	})
}

// A process that has lost its lease, or cannot renew it, leads no more.
func TestLeadNoMore(t *testing.T) {
	onServers(t, func(t *testing.T) {
		db := newServerDatabase(t)
		a := open(t, "one", newClock(), db.DSN)
		var l leaders
		led, end := l.lead(t, a)
		defer end()
		await(t, led, 30*time.Second)
		db.Exec("UPDATE leases SET holder = 'other', expires = " + clocks[kind(t)] + " + 60000")
		eventually(t, 30*time.Second, func() bool { return l.now.Load() == 0 })
	})
}

// A process learns where the one is that leads, unless that one is of a release that does not say it.
func TestLeader(t *testing.T) {
	onServers(t, func(t *testing.T) {
		db := newServerDatabase(t)
		a, b := open(t, "one", newClock(), db.DSN), open(t, "one", newClock(), db.DSN)
		leader := func(s *testStore, want ...string) {
			t.Helper()
			got, ok, err := s.Leader(t.Context(), capstore.Replication)
			if err != nil || ok != (len(want) > 0) || !slices.Equal(got, want) {
				t.Errorf("%q, %t, %v; want %q", got, ok, err, want)
			}
		}
		addrs := []string{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"}
		if err := a.Show(t.Context(), capstore.Replication, addrs); err != nil {
			t.Fatal(err)
		}
		leader(b) // it does not lead
		var l leaders
		led, end := l.lead(t, a)
		await(t, led, 30*time.Second)
		eventually(t, 30*time.Second, func() bool { return a.LedFor(capstore.Replication) > time.Second }) // it is renewed
		if d := a.LedFor(capstore.Replication); d > 4*time.Second || b.LedFor(capstore.Replication) != 0 {
			t.Errorf("led for %s and %s", d, b.LedFor(capstore.Replication))
		}
		leader(b)
		if err := a.Show(t.Context(), capstore.Replication, addrs); err != nil {
			t.Fatal(err)
		}
		leader(b, addrs...)
		leader(a) // itself
		end()
		leader(b)
		// One of an older release takes the lease and leaves what was said.
		db.Exec("UPDATE leases SET holder = 'older', expires = " + clocks[kind(t)] + " + 60000 WHERE name = 'p2p'")
		leader(b)
	})
}

var clocks = map[string]string{
	onPostgres: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
	onMySQL:    "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
}

func eventually(t *testing.T, within time.Duration, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func await(t *testing.T, c <-chan struct{}, within time.Duration) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(within):
		t.Fatal("nothing happens")
	}
}

// The database dies under writers again and again: what was acknowledged is there, and the log is one chain.
func TestServerKilled(t *testing.T) {
	onServers(t, func(t *testing.T) {
		srv := ownServer(t)
		c, url := newClock(), srv.DSN
		a, b := open(t, "one", c, url), open(t, "one", c, url)
		o := newOwner(t, "alice", c)
		o.hostOn(a)
		a.delegate(o.header)
		mine := apart(o)
		var mu sync.Mutex
		acked, failed := map[string]string{}, 0
		stop := make(chan struct{})
		end := sync.OnceFunc(func() { close(stop) })
		var wg sync.WaitGroup
		defer func() { end(); wg.Wait() }()
		for w := range 8 {
			s := []*testStore{a, b}[w%2]
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					key, value := fmt.Sprintf("%d/%d", w, i), fmt.Sprint(w, i)
					mu.Lock()
					tok := o.invoke(t, key, "tinycloud.kv/put")
					mu.Unlock()
					_, err := s.Write(t.Context(), tok, []kv.Op{putOp(o.space, key, value)}, nil)
					mu.Lock()
					if err == nil {
						acked[key] = value
					} else if failed++; !errors.Is(err, tinycloud.ErrUnavailable) {
						t.Error(err)
					}
					mu.Unlock()
				}
			})
		}
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
		for range 3 {
			n := count()
			eventually(t, 30*time.Second, func() bool { return count() >= n+40 })
			srv.Kill9()
			if err := a.Ping(t.Context()); !errors.Is(err, tinycloud.ErrUnavailable) {
				t.Errorf("ping of a dead server: %v", err)
			}
			if err := mine.put(a, "k", "v"); !errors.Is(err, tinycloud.ErrUnavailable) {
				t.Errorf("put to a dead server: %v", err)
			}
			srv.Start()
		}
		n := count()
		eventually(t, 30*time.Second, func() bool { return count() >= n+20 })
		end()
		wg.Wait()
		if failed == 0 {
			t.Error("no write failed")
		}
		got := map[string]string{}
		fresh := open(t, "one", c, url)
		for key := range acked {
			got[key] = fresh.get(o.space, key)
		}
		if !maps.Equal(got, acked) {
			for k, v := range acked {
				if got[k] != v {
					t.Errorf("%s: %q, acknowledged %q", k, got[k], v)
				}
			}
		}
		bundles := checkLog(t, fresh, o.space)
		want := fresh.status(o.space)
		for _, s := range []*testStore{a, b} {
			if got := s.status(o.space); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%+v\nfresh %+v", got, want)
			}
		}
		late := open(t, "late", c, srv.New().DSN)
		o.hostOn(late)
		feedAll(t, late, o.space, bundles)
		if got := late.status(o.space); got.StateHash != want.StateHash {
			t.Errorf("another host: %+v, want %+v", got, want)
		}
	})
}

// apart is the owner with a counter of its own, for use beside the writers.
func apart(o *owner) *owner {
	c := *o
	c.n = 1 << 30
	return &c
}
