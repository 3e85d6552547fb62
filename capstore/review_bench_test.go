package capstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// longHistory has a store write b.N epochs.
func longHistory(b *testing.B, s *capstore.Store) *owner {
	b.Helper()
	o, toks := benchOwner(b, s, "bench", "bench", b.N)
	concurrently(b, 16, func(i int) error {
		_, err := kv.Of(s).Write(b.Context(), toks[i], []kv.Op{putOp(o.space, fmt.Sprint("key/", i%10_000), fmt.Sprint(i))}, nil)
		return err
	})
	return o
}

// BenchmarkReview measures how long a history of b.N epochs is judged anew that an older release judged, and how long
// writes in another Space take meanwhile.
func BenchmarkReview(b *testing.B) {
	options := capstore.Options{Services: servicetest.Services(), Database: filepath.Join(b.TempDir(), "caps.db"), Keys: keys("bench")}
	s, stop := runStore(b, options)
	longHistory(b, s)
	stop()
	db, err := sql.Open("sqlite", "file:"+options.Database+"?_pragma=busy_timeout(5000)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(b.Context(), "UPDATE spaces SET rules = ?", capstore.Rules-1); err != nil {
		b.Fatal(err)
	}
	reviewed := func() bool {
		var n int
		if err := db.QueryRowContext(b.Context(), "SELECT min(rules) FROM spaces").Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n == capstore.Rules
	}
	b.ResetTimer()
	s, stop = runStore(b, options)
	defer stop()
	o, toks := benchOwner(b, s, "bench", "beside", 2000)
	var waits []time.Duration
	for i := 0; !reviewed() && i < len(toks); i++ {
		began := time.Now()
		if _, err := kv.Of(s).Write(b.Context(), toks[i], []kv.Op{benchValue(o.space, i)}, nil); err != nil {
			b.Fatal(err)
		}
		waits = append(waits, time.Since(began))
		time.Sleep(20 * time.Millisecond)
	}
	b.StopTimer()
	if slices.Sort(waits); len(waits) > 0 {
		b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms-beside")
		b.ReportMetric(float64(waits[len(waits)-1].Microseconds())/1000, "max-ms-beside")
	}
	b.ReportMetric(float64(len(waits)), "puts-beside")
	b.ReportMetric(b.Elapsed().Seconds(), "s")
}

// BenchmarkEarlyWitness has a second host witness epochs of a history of b.N, one a second, before they were made, so
// that their times change: what that costs the node, as a share of one core.
func BenchmarkEarlyWitness(b *testing.B) {
	const seconds = 10
	s, stop := runStore(b, capstore.Options{Services: servicetest.Services(), Database: filepath.Join(b.TempDir(), "caps.db"), Keys: keys("bench")})
	defer stop()
	o, _ := benchOwner(b, s, "bench", "bench", 0)
	l := newLiar(o)
	delegateAll(b, s, o.wallet.SignHost(o.space, l.host().String())) // it witnesses what follows upon this
	longHistory(b, s)
	var of []hostlog.Bundle
	err := s.Missing(b.Context(), o.space, nil, b.N+16, func(x hostlog.Bundle) error {
		if len(x.Ops) > 0 {
			of = append(of, x)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if len(of) < seconds {
		return // the first try is with one epoch
	}
	before, began := cpuTime(b), time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	b.ResetTimer()
	for i := range seconds {
		x := of[i*len(of)/seconds]
		x.Entry = hostlog.Entry{
			Space: o.space, Host: l.host(), N: l.n, Prev: l.prev, Epoch: x.Entry.Epoch, At: x.Entry.At - 100,
		}
		x = l.sign(x)
		if a, err := s.Apply(b.Context(), o.space, []hostlog.Bundle{x}); err != nil || a.New != 1 {
			b.Fatal(a, err)
		}
		l.n, l.prev = l.n+1, x.Entry.Digest()
		<-tick.C
	}
	if err := s.Redate(b.Context()); err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(100*float64(cpuTime(b)-before)/float64(time.Since(began)), "%core")
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
