package capstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// BenchmarkServers measures admission and durable writes of 1 KiB, and reads of them, by 16 callers, on each database and
// over ways to servers that delay each way; it reports how often a server was waited for.
func BenchmarkServers(b *testing.B) {
	for _, kind := range []string{onSQLite, onPostgres, onMySQL} {
		for _, delay := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
			if kind == onSQLite && delay > 0 {
				continue
			}
			for _, spaces := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/delay=%s/spaces=%d", kind, delay, spaces), func(b *testing.B) { benchServer(b, delay, spaces) })
			}
		}
	}
}

func benchServer(b *testing.B, delay time.Duration, spaces int) {
	durable(b)
	dsn := newDatabase(b)
	if delay > 0 {
		dsn = testservers.Distant(b, dsn, delay, 0)
	}
	s, stop := runStore(b, capstore.Options{Services: servicetest.Services(), Database: dsn, Keys: keys("servers")})
	b.Cleanup(stop)
	owners := make([]*owner, spaces)
	for i := range owners {
		owners[i], _ = benchOwner(b, s, "servers", fmt.Sprint("bench ", i), 0)
	}
	const callers = 16
	keys := callers * 8
	run := func(what string, f func(o *owner, tok *capstore.Token, i int) error, ability string, key func(i int) int) {
		b.Run(what, func(b *testing.B) {
			toks := make([]*capstore.Token, b.N)
			for i := range toks {
				toks[i] = benchToken(b, owners[i%spaces], ability, key(i))
			}
			before, turns := capstore.Trips(s), capstore.Turns(s)
			b.ResetTimer()
			concurrently(b, callers, func(i int) error {
				err := s.AdmitToPerform(b.Context(), toks[i])
				if err == nil {
					err = f(owners[i%spaces], toks[i], key(i))
				}
				return err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			b.ReportMetric(float64(capstore.Trips(s)-before)/float64(b.N), "trips/request")
			if after := capstore.Turns(s); after.All > turns.All {
				b.ReportMetric(float64(after.Whole-turns.Whole)/float64(after.All-turns.All), "whole/turn")
				b.ReportMetric(float64(b.N)/float64(after.All-turns.All), "requests/turn")
				b.ReportMetric(float64((after.Held-turns.Held).Microseconds())/float64(after.All-turns.All), "held-µs/turn")
			}
		})
	}
	put := func(o *owner, tok *capstore.Token, i int) error {
		_, err := kv.Of(s).Write(b.Context(), tok, []kv.Op{benchValue(o.space, i)}, nil)
		return err
	}
	var written atomic.Int64
	run("put", put, "tinycloud.kv/put", func(i int) int { return keys + i })
	run("again", func(o *owner, tok *capstore.Token, i int) error {
		op := putOp(o.space, fmt.Sprint("key/", i), fmt.Sprintf("%01024d", written.Add(1)))
		_, err := kv.Of(s).Write(b.Context(), tok, []kv.Op{op}, nil)
		return err
	}, "tinycloud.kv/put", func(i int) int { return i % keys })
	run("get", func(o *owner, tok *capstore.Token, i int) error {
		burned := make(chan error, 1) // as over HTTP
		go func() { burned <- s.Spend(b.Context(), tok) }()
		r, err := kv.Of(s).Get(b.Context(), o.space, fmt.Sprint("key/", i))
		if err := <-burned; err != nil {
			return err
		}
		if err == nil && r.Size != 1024 {
			err = fmt.Errorf("value of %d bytes", r.Size)
		}
		return err
	}, "tinycloud.kv/get", func(i int) int { return i % keys })
}

// benchToken is an invocation of an owner's session on a key.
func benchToken(b *testing.B, o *owner, ability string, key int) *capstore.Token {
	b.Helper()
	tok, err := capstore.ParseInvocation(o.session.Invoke(captest.TokenOptions{
		Caps:   captest.Caps{fmt.Sprintf("%s/kv/key/%d", o.space, key): {ability}},
		Proofs: []tinycloud.Hash{captest.ID(o.header)}, Expires: time.Now().Add(250 * time.Second),
	}))
	if err != nil {
		b.Fatal(err)
	}
	return tok
}
