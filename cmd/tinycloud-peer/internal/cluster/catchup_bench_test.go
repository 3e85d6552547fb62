package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
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
	w, err := cluster.NewWAN(net.JoinHostPort("127.0.0.1", p.Port()), rtt)
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

// archive is the size of a Space's CAR, with its blocks and log entries. The peer is stopped for it.
func archive(b *testing.B, o *cluster.Owner, p *cluster.Peer) float64 {
	b.Helper()
	if err := p.Stop(); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "space.car")
	if out, err := p.Verb(b.Context(), "export", o.Space.String(), path); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return float64(info.Size())
}

// BenchmarkCatchUp measures how long a process that joins needs for a history of epochs with 1 KiB values, from the
// join to equal states of all processes: a third one is there when it costs nothing to reach it. bytes/CAR is what
// it exchanged with the first, in relation to a CAR of the Space.
func BenchmarkCatchUp(b *testing.B) {
	for _, epochs := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint("epochs=", epochs), func(b *testing.B) {
			c, o := hosts(b, 2, true)
			first, second := c.Peers()[0], c.Peers()[1]
			fill(b, o, first, epochs)
			if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
				b.Fatal(err)
			}
			car := archive(b, o, second)
			for _, rtt := range []time.Duration{100 * time.Millisecond, 20 * time.Millisecond, 0} {
				b.Run(fmt.Sprint("rtt=", rtt), func(b *testing.B) {
					others := []*cluster.Peer{first}
					if rtt == 0 {
						others = append(others, second)
						if err := second.Start(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
					for b.Loop() {
						b.StopTimer()
						late, way := newcomer(b, c, o), wan(b, first, rtt)
						b.StartTimer()
						joinOver(b, o, late, first, way)
						awaitEntries(b, late, float64(epochs))
						b.ReportMetric(b.Elapsed().Seconds(), "s-durable")
						if _, err := o.AwaitSame(b.Context(), append(others, late)); err != nil {
							b.Fatal(err)
						}
						b.StopTimer()
						b.ReportMetric(float64(way.Bytes())/car, "bytes/CAR")
						if err := late.Kill(); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
				})
			}
		})
	}
}

// BenchmarkCatchUpKilled measures what a newcomer that is killed at 50 random moments receives and sends in all, in
// relation to a CAR of the Space.
func BenchmarkCatchUpKilled(b *testing.B) {
	const epochs, kills = 100_000, 50
	c, o := hosts(b, 2, true)
	first, second := c.Peers()[0], c.Peers()[1]
	fill(b, o, first, epochs)
	if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
		b.Fatal(err)
	}
	car := archive(b, o, second)
	for b.Loop() {
		late, way := newcomer(b, c, o), wan(b, first, 0)
		joinOver(b, o, late, first, way)
		killed := 0.0
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
		if _, err := o.AwaitSame(b.Context(), []*cluster.Peer{first, late}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(killed, "kills-under-way")
		b.ReportMetric(float64(way.Bytes())/car, "bytes/CAR")
		if err := late.Kill(); err != nil {
			b.Fatal(err)
		}
	}
}
