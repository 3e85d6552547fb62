package capstore_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/tickets"
)

// benchStore returns a running store on disk that hosts a Space, and n signed puts for it.
func benchStore(b *testing.B, name string, n int, change ...func(*capstore.Options)) (*capstore.Store, *owner, []*capstore.Token) {
	b.Helper()
	options := capstore.Options{Services: servicetest.Services(), Database: newDatabase(b), Keys: keys(name)}
	for _, c := range change {
		c(&options)
	}
	s, stop := runStore(b, options)
	b.Cleanup(stop)
	o, toks := benchOwner(b, s, name, "bench", n)
	return s, o, toks
}

// runStore opens and runs a store until stop.
func runStore(b *testing.B, options capstore.Options) (s *capstore.Store, stop func()) {
	b.Helper()
	s, err := capstore.Open(b.Context(), options)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	return s, func() { cancel(); wg.Wait(); _ = s.Close() }
}

// benchOwner has a store of some name host the Space of a user, and signs n puts for it.
func benchOwner(b *testing.B, s *capstore.Store, name, user string, n int) (*owner, []*capstore.Token) {
	b.Helper()
	w := captest.NewWallet(user)
	o := &owner{wallet: w, space: w.Space("default"), session: captest.NewSession(user)}
	host := hostlog.Key(keys(name).SpaceKey(o.space).Public().(ed25519.PublicKey))
	o.header = w.SignDelegation(captest.DelegationOptions{
		Audience: o.session.URI(), Expires: time.Now().Add(time.Hour), Caps: captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put", "tinycloud.kv/get"}},
	})
	delegateAll(b, s, w.SignHost(o.space, host.String()), o.header)
	toks := make([]*capstore.Token, n)
	var err error
	for i := range toks {
		toks[i], err = capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
			Caps:   captest.Caps{fmt.Sprintf("%s/kv/key/%d", o.space, i): {"tinycloud.kv/put"}},
			Proofs: []tinycloud.Hash{captest.ID(o.header)}, Expires: time.Now().Add(250 * time.Second),
		}))
		if err != nil {
			b.Fatal(err)
		}
	}
	return o, toks
}

func delegateAll(b *testing.B, s *capstore.Store, headers ...string) {
	b.Helper()
	for _, header := range headers {
		tok, err := capstore.ParseDelegation(header)
		if err == nil {
			_, err = s.Delegate(b.Context(), tok)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func benchValue(space tinycloud.SpaceID, i int) kv.Op {
	value := make([]byte, 1024)
	copy(value, fmt.Sprint(i))
	return putOp(space, fmt.Sprint("key/", i), string(value))
}

// durable lets the shared servers keep what they acknowledge, as in use.
func durable(b *testing.B) {
	b.Helper()
	switch kind(b) {
	case onPostgres:
		db := newServerDatabase(b)
		db.Exec("ALTER SYSTEM SET fsync = on")
		db.Exec("SELECT pg_reload_conf()")
	case onMySQL:
		newServerDatabase(b).Exec("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
	}
}

// BenchmarkPut measures admission and the durable write of 1 KiB values by concurrent callers.
func BenchmarkPut(b *testing.B) {
	for _, kind := range []string{onSQLite, onPostgres, onMySQL} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", kind, callers), func(b *testing.B) {
				durable(b)
				s, o, toks := benchStore(b, "bench", b.N)
				b.ResetTimer()
				concurrently(b, callers, func(i int) error {
					err := s.Admit(b.Context(), toks[i])
					if err == nil {
						_, err = kv.Of(s).Write(b.Context(), toks[i], []kv.Op{benchValue(o.space, i)}, nil)
					}
					return err
				})
			})
		}
	}
}

// concurrently calls f for 0 … b.N-1.
func concurrently(b *testing.B, callers int, f func(i int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkGet measures the look-up of a key and its 1 KiB value by concurrent callers.
func BenchmarkGet(b *testing.B) {
	const keys = 512
	for _, kind := range []string{onSQLite, onPostgres, onMySQL} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", kind, callers), func(b *testing.B) {
				s, o, toks := benchStore(b, "bench", keys)
				for i, tok := range toks {
					if _, err := kv.Of(s).Write(b.Context(), tok, []kv.Op{benchValue(o.space, i)}, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ResetTimer()
				concurrently(b, callers, func(i int) error {
					r, err := kv.Of(s).Get(b.Context(), o.space, fmt.Sprint("key/", i%keys))
					if err == nil {
						_, err = s.Inline(b.Context(), o.space, r.Value)
					}
					return err
				})
			})
		}
	}
}

// BenchmarkApply measures how fast the history of another host is verified, judged and stored.
func BenchmarkApply(b *testing.B) {
	s, o, toks := benchStore(b, "source", b.N)
	for i, tok := range toks {
		if _, err := kv.Of(s).Write(b.Context(), tok, []kv.Op{benchValue(o.space, i)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	late, _, _ := benchStore(b, "late", 0)
	var bundles []hostlog.Bundle
	have, err := late.Tips(b.Context(), o.space)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Missing(b.Context(), o.space, have, 4096, func(x hostlog.Bundle) error { bundles = append(bundles, x); return nil }); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for len(bundles) > 0 {
		n := min(512, len(bundles))
		if a, err := late.Apply(b.Context(), o.space, bundles[:n]); err != nil || a.Covered != n {
			b.Fatal(a, err)
		}
		bundles = bundles[n:]
	}
}

// BenchmarkLimitedPut shows that a limit costs the same whatever a Space holds.
func BenchmarkLimitedPut(b *testing.B) {
	for _, held := range []int{100, 20_000} {
		b.Run(fmt.Sprint("values=", held), func(b *testing.B) {
			s, o, toks := benchStore(b, "bench", b.N, func(o *capstore.Options) {
				o.Database = capstore.InMemory
				o.Limit = func(tinycloud.SpaceID) (int64, bool) { return 1 << 40, true }
			})
			for i := range held {
				if err := s.Arrived(b.Context(), o.space, tinycloud.Sum([]byte(fmt.Sprint("held ", i))), 1000, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for i := range b.N {
				if _, err := kv.Of(s).Write(b.Context(), toks[i], []kv.Op{benchValue(o.space, i)}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIssueTicket issues one after the other; beyond the bound of a Space they are refused.
func BenchmarkIssueTicket(b *testing.B) {
	s, o, toks := benchStore(b, "tickets", 1)
	if _, err := kv.Of(s).Write(b.Context(), toks[0], []kv.Op{benchValue(o.space, 0)}, nil); err != nil {
		b.Fatal(err)
	}
	w := captest.NewWallet("bench")
	get := captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/get"}}
	header := w.SignDelegation(captest.DelegationOptions{Audience: o.session.URI(), Expires: time.Now().Add(time.Hour), Caps: get})
	tok, err := capstore.ParseDelegation(header)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Delegate(b.Context(), tok); err != nil {
		b.Fatal(err)
	}
	inv, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps: get, Proofs: []tinycloud.Hash{captest.ID(header)}, Expires: time.Now().Add(290 * time.Second),
	}))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_, _, err := tickets.Of(s, 0).Issue(b.Context(), inv, tickets.Request{Space: o.space, Key: "key/0", Life: 280 * time.Second})
		if err != nil && !errors.Is(err, tinycloud.ErrBusy) {
			b.Fatal(err)
		}
	}
}

// BenchmarkRevoke shows that a delegation and its revocation cost the same however many there are in a Space.
func BenchmarkRevoke(b *testing.B) {
	for _, held := range []int{100, 10_000} {
		b.Run(fmt.Sprint("revoked=", held), func(b *testing.B) {
			s, o, _ := benchStore(b, "bench", 0, func(o *capstore.Options) { o.Database = capstore.InMemory })
			n := 0
			revoke := func() {
				n++
				d, err := capstore.ParseDelegation(o.session.Delegate(captest.NewSession(fmt.Sprint(n)).DID(), captest.TokenOptions{
					Caps:   captest.Caps{o.space.String() + "/kv": {"tinycloud.kv/put"}},
					Proofs: []tinycloud.Hash{captest.ID(o.header)}, Expires: time.Now().Add(time.Minute),
				}))
				if err != nil {
					b.Fatal(err)
				}
				r, err := capstore.ParseRevocation(o.session.Revoke(d.ID, captest.TokenOptions{Expires: time.Now().Add(time.Minute)}))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.Delegate(b.Context(), d); err != nil {
					b.Fatal(err)
				}
				if err := s.Revoke(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			for range held {
				revoke()
			}
			for b.Loop() {
				revoke()
			}
		})
	}
}
