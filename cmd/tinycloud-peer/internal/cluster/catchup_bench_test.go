package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
)

// newcomer starts a peer that hosts the Space and knows no other host of it yet.
func newcomer(b *testing.B, c *cluster.Cluster, o *cluster.Owner) *cluster.Peer {
	b.Helper()
	p, err := c.Add(b.Context())
	if err == nil {
		err = o.Host(b.Context(), p)
	}
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// wan opens a way to a peer.
func wan(b *testing.B, p *cluster.Peer, rtt time.Duration) *cluster.WAN {
	b.Helper()
	w, err := cluster.NewWAN(b.Context(), net.JoinHostPort("127.0.0.1", p.Port()), rtt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = w.Close() })
	return w
}

// joinOver has a peer replicate the Space with another one that it reaches over a WAN.
func joinOver(b *testing.B, o *cluster.Owner, p, with *cluster.Peer, w *cluster.WAN) {
	b.Helper()
	v, err := with.Admin.Space(b.Context(), o.Space)
	if err == nil {
		_, err = p.Admin.Join(b.Context(), o.Space, node.JoinRequest{Addrs: w.Through(v.Addrs)})
	}
	if err != nil {
		b.Fatal(err)
	}
}

// entries is how many log entries came to a peer by catching up since it started.
func entries(b *testing.B, p *cluster.Peer) float64 {
	b.Helper()
	m, _, err := p.Metrics(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return m["tinycloud_catchup_entries_total"]
}

// cpuOf returns the seconds of processor time that a peer has used since it started.
func cpuOf(b *testing.B, p *cluster.Peer) float64 {
	b.Helper()
	m, _, err := p.Metrics(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return m["process_cpu_seconds_total"]
}

// awaitEntries waits for a number of entries without having the peer compute its state meanwhile.
func awaitEntries(b *testing.B, p *cluster.Peer, n float64) {
	b.Helper()
	err := cluster.Poll(b.Context(), 50*time.Millisecond, func() (bool, error) { return entries(b, p) >= n, nil })
	if err != nil {
		b.Fatal(err)
	}
}

// fill writes a history of 1 KiB values with 16 clients.
func fill(b *testing.B, o *cluster.Owner, p *cluster.Peer, epochs int) {
	b.Helper()
	drive(b, 16, epochs, func(ctx context.Context, i int) error { return o.Put(ctx, p, fmt.Sprint("k/", i), value(i)) })
}

// past is a Space with a history, on two processes of which the second is stopped. Others are told of ways to these.
type past struct {
	c    *cluster.Cluster
	o    *cluster.Owner
	ways []*cluster.WAN
	car  float64 // bytes of the Space's CAR, with its blocks and log entries
}

func newPast(b *testing.B, epochs int) *past {
	b.Helper()
	c, o := hosts(b, 2, true)
	h := &past{c: c, o: o}
	for _, p := range c.Peers() {
		if err := p.Stop(); err != nil {
			b.Fatal(err)
		}
		w := wan(b, p, 0)
		p.Set("TINYCLOUD_P2P_ANNOUNCE=" + w.Addr())
		if err := p.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		h.ways = append(h.ways, w)
	}
	first, second := c.Peers()[0], c.Peers()[1]
	fill(b, o, first, epochs)
	if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
		b.Fatal(err)
	}
	if err := second.Stop(); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "space.car")
	if out, err := second.Verb(b.Context(), "export", o.Space.String(), path); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	h.car = float64(info.Size())
	return h
}

// join has a new process join so many of the hosts, over ways of a round trip time and a rate, see [cluster.WAN.Set]. It
// returns what had gone over these before.
func (h *past) join(b *testing.B, n int, rtt time.Duration, bits int) (late *cluster.Peer, before []int64) {
	b.Helper()
	late = newcomer(b, h.c, h.o)
	for _, w := range h.ways {
		w.Set(rtt, bits)
		before = append(before, w.Bytes())
	}
	b.StartTimer()
	for i, p := range h.c.Peers()[:n] {
		joinOver(b, h.o, late, p, h.ways[i])
	}
	return late, before
}

// report tells what went over ways, in relation to the CAR.
func (h *past) report(b *testing.B, before []int64) {
	b.Helper()
	all := 0.0
	for i, w := range h.ways {
		bytes := float64(w.Bytes()-before[i]) / h.car
		all += bytes
		b.ReportMetric(bytes, fmt.Sprint("of-host-", i))
	}
	b.ReportMetric(all, "bytes/CAR")
}

// BenchmarkCatchUp measures how long a process that joins one or two others needs for a history of epochs with 1 KiB
// values, from the join to equal states of all. bytes/CAR is what it exchanged with them, in relation to a CAR of
// the Space; cpu-µs/epoch is the processor time of each process until all is durable. Links are without a bound, or of so many Mbit/s to each of the others.
func BenchmarkCatchUp(b *testing.B) {
	type way struct {
		mbits int
		rtt   time.Duration
	}
	wide := []way{{0, 0}, {0, 20 * time.Millisecond}, {0, 100 * time.Millisecond}}
	narrow := []way{{20, 0}, {20, 100 * time.Millisecond}}
	for _, c := range []struct {
		epochs int
		ways   []way
	}{{10_000, wide}, {20_000, narrow}, {100_000, wide}} {
		b.Run(fmt.Sprint("epochs=", c.epochs), func(b *testing.B) {
			h := newPast(b, c.epochs)
			for n := 1; n <= 2; n++ {
				if n == 2 {
					if err := h.c.Peers()[1].Start(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				for _, w := range c.ways {
					b.Run(fmt.Sprintf("hosts=%d/rtt=%s/mbits=%d", n, w.rtt, w.mbits), func(b *testing.B) {
						for b.Loop() {
							h.catchUp(b, c.epochs, n, w.rtt, w.mbits*1e6)
						}
					})
				}
			}
		})
	}
}

func (h *past) catchUp(b *testing.B, epochs, n int, rtt time.Duration, bits int) {
	b.Helper()
	b.StopTimer()
	used := make([]float64, n)
	for i, p := range h.c.Peers()[:n] {
		used[i] = cpuOf(b, p)
	}
	late, before := h.join(b, n, rtt, bits)
	began, fresh := time.Now(), cpuOf(b, late)
	awaitEntries(b, late, float64(epochs))
	b.ReportMetric(time.Since(began).Seconds(), "s-durable")
	perEpoch := 1e6 / float64(epochs)
	b.ReportMetric((cpuOf(b, late)-fresh)*perEpoch, "cpu-µs/epoch-newcomer")
	for i, p := range h.c.Peers()[:n] {
		b.ReportMetric((cpuOf(b, p)-used[i])*perEpoch, fmt.Sprint("cpu-µs/epoch-host-", i))
	}
	if _, err := h.o.AwaitSame(b.Context(), append(slices.Clone(h.c.Peers()[:n]), late)); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	h.report(b, before)
	if err := late.Kill(); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}

// spoken is what a peer sent and received since it started, in streams of the sync protocol and handshakes.
func spoken(b *testing.B, p *cluster.Peer) (bytes float64) {
	b.Helper()
	m, _, err := p.Metrics(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for name, n := range m {
		if strings.HasPrefix(name, "tinycloud_sync_bytes_total{") {
			bytes += n
		}
	}
	return bytes
}

// BenchmarkCatchUpKilled measures what a newcomer that is killed at 50 random moments and its host say to each other in
// all, in relation to a CAR of the Space. The host counts it, because after a kill it is reached directly.
func BenchmarkCatchUpKilled(b *testing.B) {
	const epochs, kills = 100_000, 50
	h := newPast(b, epochs)
	first := h.c.Peers()[0]
	for b.Loop() {
		killed, before := 0.0, spoken(b, first)
		late, _ := h.join(b, 1, 0, 0)
		for range kills {
			life, quiet := rand.Float64()*epochs/kills, time.Now()
			for last := 0.0; last < life && time.Since(quiet) < 5*time.Second; {
				if now := entries(b, late); now > last {
					last, quiet = now, time.Now()
				}
			}
			if time.Since(quiet) < 5*time.Second {
				killed++
			}
			if err := late.Kill(); err != nil {
				b.Fatal(err)
			}
			if err := late.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := h.o.AwaitSame(b.Context(), []*cluster.Peer{first, late}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(killed, "kills-under-way")
		b.ReportMetric((spoken(b, first)-before)/h.car, "bytes/CAR")
		if err := late.Kill(); err != nil {
			b.Fatal(err)
		}
	}
}
