package capstore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// BenchmarkProcesses measures admission and durable writes of 1 KiB by 64 callers to 64 Spaces, through several stores on one
// database, over ways to it that delay each way: callers of a Space ask one store, or any. Beside the rate it reports round
// trips and loads of Spaces for each put; of the lock, which one process has at a time, for how long it is held in each
// transaction, and the part of that in which a process works, for each put; how many requests a transaction has; and the
// share of transactions before which another process had written; and the processor time of this process and of the servers.
func BenchmarkProcesses(b *testing.B) {
	for _, kind := range []string{onPostgres, onMySQL} {
		for _, delay := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
			for _, processes := range []int{1, 2, 4} {
				for _, ask := range []string{"space", "any"} {
					if processes == 1 && ask == "any" {
						continue
					}
					b.Run(fmt.Sprintf("%s/delay=%s/processes=%d/by=%s", kind, delay, processes, ask), func(b *testing.B) {
						benchProcesses(b, delay, processes, ask == "any")
					})
				}
			}
		}
	}
}

func benchProcesses(b *testing.B, delay time.Duration, processes int, anyOf bool) {
	const callers, spaces = 64, 64
	durable(b)
	dsn := newDatabase(b)
	if delay > 0 {
		dsn = testservers.Distant(b, dsn, delay, 0)
	}
	unheeded := func(tinycloud.SpaceID) (entries, changes bool) { return false, false } // as nearly all Spaces are in a process
	stores := make([]*capstore.Store, processes)
	for i := range stores {
		var stop func()
		stores[i], stop = runStore(b, capstore.Options{Services: servicetest.Services(), Database: dsn, Keys: keys("servers"), Heeds: unheeded})
		b.Cleanup(stop)
	}
	owners := make([]*owner, spaces)
	var hosting sync.WaitGroup
	for i := range owners {
		hosting.Go(func() { owners[i], _ = benchOwner(b, stores[i%processes], "servers", fmt.Sprint("bench ", i), 0) })
	}
	hosting.Wait()
	// put has a store write to a Space for the n-th time.
	var written atomic.Int64
	put := func(b *testing.B, s *capstore.Store, o *owner, tok *capstore.Token, n int) error {
		err := s.AdmitToPerform(b.Context(), tok)
		if err == nil {
			_, err = kv.Of(s).Write(b.Context(), tok, []kv.Op{benchValue(o.space, n)}, nil)
		}
		return err
	}
	at := func(i int) *capstore.Store { // a caller asks the one of its Space, or each in turn
		if anyOf {
			return stores[(i+i/spaces)%processes]
		}
		return stores[i%spaces%processes]
	}
	for i := range spaces * processes { // all that is known once it was asked for
		n := int(written.Add(1))
		if err := put(b, at(i), owners[i%spaces], benchToken(b, owners[i%spaces], "tinycloud.kv/put", n), n); err != nil {
			b.Fatal(err)
		}
	}
	toks, first := make([]*capstore.Token, b.N), int(written.Add(int64(b.N)))-b.N+1
	for i := range toks {
		toks[i] = benchToken(b, owners[i%spaces], "tinycloud.kv/put", first+i)
	}
	before, cpu, servers := countTurns(stores), processorTime(b), serversTime(b)
	b.ResetTimer()
	concurrently(b, callers, func(i int) error { return put(b, at(i), owners[i%spaces], toks[i], first+i) })
	b.StopTimer()
	after, puts := countTurns(stores), float64(b.N)
	b.ReportMetric(puts/b.Elapsed().Seconds(), "puts/s")
	b.ReportMetric(float64((processorTime(b)-cpu).Microseconds())/puts, "cpu-µs/put")
	b.ReportMetric(float64((serversTime(b)-servers).Microseconds())/puts, "servers-µs/put")
	b.ReportMetric(float64(after.trips-before.trips)/puts, "trips/put")
	turns := float64(after.All - before.All)
	b.ReportMetric(float64(after.Loads-before.Loads)/puts, "loads/put")
	b.ReportMetric(puts/turns, "puts/turn")
	b.ReportMetric(float64(after.Met-before.Met)/turns, "met/turn")
	b.ReportMetric(float64((after.Held-before.Held).Microseconds())/turns, "held-µs/turn")
	b.ReportMetric(float64((after.Held-before.Held).Microseconds())/puts, "held-µs/put")
	b.ReportMetric(float64((after.Busy-before.Busy).Microseconds())/puts, "busy-µs/put")
	b.ReportMetric(0, "ns/op")
}

// counted are the turns of several stores, and their round trips.
type counted struct {
	capstore.Turned
	trips int64
}

func countTurns(stores []*capstore.Store) (sum counted) {
	for _, s := range stores {
		t := capstore.Turns(s)
		sum.All, sum.Met, sum.Loads, sum.Held, sum.Busy = sum.All+t.All, sum.Met+t.Met, sum.Loads+t.Loads, sum.Held+t.Held, sum.Busy+t.Busy
		sum.trips += capstore.Trips(s)
	}
	return sum
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serversTime is what the database servers that this process started have used, as far as their processes still are. The relay
// that delays is none.
func serversTime(b *testing.B) (sum time.Duration) {
	parents, used := map[int]int{}, map[int]time.Duration{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if bytes.Contains(text, []byte("(relay)")) {
			continue
		}
		var pid int
		_, _ = fmt.Sscan(string(text), &pid)
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		for _, f := range fields[11:13] { // in hundredths of a second
			n, _ := strconv.Atoi(f)
			used[pid] += time.Duration(n) * 10 * time.Millisecond
		}
	}
	for pid, d := range used {
		if pid == os.Getpid() {
			continue
		}
		for up := pid; up != 0; up = parents[up] {
			if up == os.Getpid() {
				sum += d
			}
		}
	}
	return sum
}
