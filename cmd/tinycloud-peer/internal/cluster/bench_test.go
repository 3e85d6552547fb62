package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// program builds the command into a directory of the benchmark.
func program(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "tinycloud-peer")
	build := exec.CommandContext(b.Context(), "go", "build", "-o", path, "github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return path
}

// hosts starts processes, with some settings, that all host a Space; joined ones replicate with the first.
func hosts(b *testing.B, n int, join bool, env ...string) (*cluster.Cluster, *cluster.Owner) {
	b.Helper()
	c, o := cluster.New(cluster.Options{Binary: program(b), Dir: b.TempDir(), Env: env}), cluster.NewOwner("bench")
	b.Cleanup(func() { o.Close(); _ = c.Close() })
	for i := range n {
		p, err := c.Add(b.Context())
		if err == nil {
			err = o.Host(b.Context(), p)
		}
		if err == nil && join && i > 0 {
			err = o.Join(b.Context(), p, c.Peers()[0])
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if _, err := o.SignIn(b.Context(), c.Peers()[0]); err != nil {
		b.Fatal(err)
	}
	if join {
		if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
			b.Fatal(err)
		}
	}
	return c, o
}

func value(i int) []byte {
	v := make([]byte, 1024)
	copy(v, fmt.Sprint("value ", i))
	return v
}

// drive runs n operations from a number of clients and returns their durations. None may fail.
func drive(b *testing.B, clients, n int, op func(ctx context.Context, i int) error) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				begin := time.Now()
				if err := op(b.Context(), i); err != nil {
					b.Errorf("request %d: %v", i, err)
				}
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	return took
}

func percentiles(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
}

// BenchmarkLive measures, at 100 writes a second, from the answer to a put on one process to the value
// being read on another, near or over a distance.
func BenchmarkLive(b *testing.B) {
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond} {
		b.Run(fmt.Sprint("rtt=", rtt), func(b *testing.B) {
			c, o := hosts(b, 1, false)
			from, to := c.Peers()[0], newcomer(b, c, o)
			joinOver(b, o, to, from, wan(b, from, rtt))
			if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
				b.Fatal(err)
			}
			live(b, o, from, to)
		})
	}
}

func live(b *testing.B, o *cluster.Owner, from, to *cluster.Peer) {
	took := make([]time.Duration, b.N)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var reading sync.WaitGroup
	b.ResetTimer()
	for i := range b.N {
		<-tick.C
		key := fmt.Sprint("live/", i)
		if err := o.Put(b.Context(), from, key, value(i)); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		reading.Go(func() { // over a distance more than one is on its way
			for {
				_, err := o.Get(b.Context(), to, key)
				if err == nil {
					break
				}
				if (!errors.Is(err, tinycloud.ErrNotFound) && !errors.Is(err, tinycloud.ErrUnavailable)) || time.Since(begin) > 10*time.Second {
					b.Error(err)
					return
				}
				time.Sleep(200 * time.Microsecond) // leaves the two cores to the processes
			}
			took[i] = time.Since(begin)
		})
	}
	reading.Wait()
	percentiles(b, took)
}
