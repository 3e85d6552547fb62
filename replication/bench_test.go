package replication_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// history makes a host with n writes of about a kilobyte.
func history(b *testing.B, f *fabric, o *owner, n int) *node {
	first := newNode(b, f, o, "first")
	first.delegate(o.header)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n; i += 16 {
				if err := first.tryPut(fmt.Sprint("key/", i), random(uint64(i), 1024)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return first
}

// payload is the size of everything a new host lacks.
func payload(b testing.TB, n *node) (bytes int) {
	err := n.store.Missing(context.Background(), n.o.space, nil, 4096, func(x hostlog.Bundle) error {
		bytes += len(x.Epoch) + len(x.Entry.Encode()) + len(x.Sig)
		for _, group := range [][][]byte{x.Events, x.Ops} {
			for _, y := range group {
				bytes += len(y)
			}
		}
		for _, v := range x.Values {
			bytes += len(v.Bytes)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes
}

// BenchmarkCatchUp measures how long a new host takes for 10,000 epochs, verified and durable, over an
// unbuffered pipe, with both hosts on this machine's cores.
func BenchmarkCatchUp(b *testing.B) {
	const writes = 10_000
	f, o := newFabric(b), newOwner("bench")
	first := history(b, f, o, writes)
	whole := payload(b, first)
	epochs := first.status().Epochs
	runs, sent, spent, used := 0, 0, time.Duration(0), time.Duration(0)
	for b.Loop() {
		runs++
		b.StopTimer()
		done := make(chan struct{}, 1)
		late := &node{t: b, o: o, name: keys(fmt.Sprint("late ", runs)), f: f, dir: b.TempDir(), values: newMemValues()}
		var got int64
		late.commit = func(c capstore.Commit) {
			if got += int64(c.Remote); got >= epochs {
				select {
				case done <- struct{}{}:
				default:
				}
			}
		}
		late.start(b)
		before := f.sent()
		b.StartTimer()
		began, cpu := time.Now(), cpuTime(b)
		late.join(first)
		<-done
		spent += time.Since(began)
		used += cpuTime(b) - cpu
		b.StopTimer()
		sent += f.sent() - before
		late.stop()
		b.StartTimer()
	}
	b.ReportMetric(float64(epochs)*float64(runs)/spent.Seconds(), "epochs/s")
	b.ReportMetric(float64(used.Microseconds())/float64(epochs)/float64(runs), "cpu-µs/epoch")
	b.ReportMetric(float64(sent)/float64(runs)/float64(whole), "bytes/payload")
}

// cpuTime is what the process has used: that of both hosts.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLive measures from the answer of a put on one host to its being durable on the other.
func BenchmarkLive(b *testing.B) {
	f, o := newFabric(b), newOwner("bench live")
	first := newNode(b, f, o, "first")
	first.delegate(o.header)
	arrived := make(chan time.Time, 1024)
	second := &node{t: b, o: o, name: "second", f: f, dir: b.TempDir(), values: newMemValues()}
	second.commit = func(c capstore.Commit) {
		for range c.Remote {
			arrived <- time.Now()
		}
	}
	second.start(b)
	second.join(first)
	for range first.status().Epochs {
		<-arrived
	}
	var lags []time.Duration
	for i := 0; b.Loop(); i++ {
		first.put(fmt.Sprint("key/", i%100), fmt.Sprint(i))
		answered := time.Now()
		at := <-arrived
		lags = append(lags, max(0, at.Sub(answered)))
	}
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "p99-ms")
}
