package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// idleFor is over how long idle processes are watched: the mean time between two comparisons of two hosts.
const idleFor = 60 * time.Second

// BenchmarkManySpaces measures two idle processes that replicate 1,000 Spaces with each other, each of one key:
// once these have been joined, and after both were started again; at once, and when all rest that may.
func BenchmarkManySpaces(b *testing.B) {
	const spaces = 1000
	c := cluster.New(cluster.Options{Binary: program(b), Dir: b.TempDir()})
	b.Cleanup(func() { _ = c.Close() })
	for range 2 {
		if _, err := c.Add(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	x, y := c.Peers()[0], c.Peers()[1]
	began := time.Now()
	populate(b, spaces, func(ctx context.Context, o *cluster.Owner) error {
		if err := hosted(ctx, o, x); err != nil {
			return err
		}
		if err := o.Host(ctx, y); err != nil {
			return err
		}
		return o.Join(ctx, y, x)
	})
	connected(b, c.Peers(), spaces)
	b.ReportMetric(time.Since(began).Seconds(), "s-join")
	idle(b, c.Peers(), "joined")
	rested(b, c.Peers(), spaces)
	idle(b, c.Peers(), "rested")
	for _, p := range c.Peers() {
		if err := p.Stop(); err != nil {
			b.Fatal(err)
		}
	}
	began = time.Now()
	for _, p := range c.Peers() {
		if err := p.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	connected(b, c.Peers(), spaces)
	b.ReportMetric(time.Since(began).Seconds(), "s-reconnect")
	idle(b, c.Peers(), "restarted")
	rested(b, c.Peers(), spaces)
	idle(b, c.Peers(), "rested-again")
}

// BenchmarkHostedAlone measures an idle process that hosts 10,000 Spaces of one key that no other host has:
// once these have been made, and after it was started again.
func BenchmarkHostedAlone(b *testing.B) {
	const spaces = 10_000
	c := cluster.New(cluster.Options{Binary: program(b), Dir: b.TempDir()})
	b.Cleanup(func() { _ = c.Close() })
	p, err := c.Add(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	populate(b, spaces, func(ctx context.Context, o *cluster.Owner) error { return hosted(ctx, o, p) })
	idle(b, c.Peers(), "made")
	if err := p.Stop(); err != nil {
		b.Fatal(err)
	}
	if err := p.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	idle(b, c.Peers(), "restarted")
}

// BenchmarkNeighbour measures puts of 1 KiB in a Space, by one client, while nothing else happens on its process and
// while another Space of it catches up with 30,000 epochs.
func BenchmarkNeighbour(b *testing.B) {
	const epochs, idlePuts = 30_000, 1000
	c, o := hosts(b, 1, false)
	first := c.Peers()[0]
	fill(b, o, first, epochs)
	p, quiet := newcomer(b, c, o), cluster.NewOwner("quiet")
	b.Cleanup(quiet.Close)
	if err := hosted(b.Context(), quiet, p); err != nil {
		b.Fatal(err)
	}
	report := func(when string, took []time.Duration) {
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms-"+when)
		b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms-"+when)
	}
	put := func(_ context.Context, i int) error { return quiet.Put(b.Context(), p, fmt.Sprint("k/", i), value(i)) }
	report("alone", drive(b, 1, idlePuts, put))
	began := time.Now()
	if err := o.Join(b.Context(), p, first); err != nil {
		b.Fatal(err)
	}
	caughtUp := make(chan struct{})
	go func() {
		defer close(caughtUp)
		if err := cluster.Poll(b.Context(), 50*time.Millisecond, func() (bool, error) {
			n, err := metric(b.Context(), p, "tinycloud_catchup_entries_total")
			return n >= epochs, err
		}); err != nil {
			b.Error(err)
		}
	}()
	var took []time.Duration
	for i := idlePuts; ; i++ {
		select {
		case <-caughtUp:
			b.ReportMetric(epochs/time.Since(began).Seconds(), "epochs/s")
			report("beside", took)
			return
		default:
			took = append(took, drive(b, 1, 1, func(ctx context.Context, _ int) error { return put(ctx, i) })...)
		}
	}
}

// populate makes a number of Spaces, eight at a time. The clients have gone afterwards.
func populate(b *testing.B, spaces int, make func(context.Context, *cluster.Owner) error) {
	b.Helper()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(8)
	for range spaces {
		g.Go(func() error {
			o := cluster.NewOwner("many")
			defer o.Close()
			return make(ctx, o)
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// hosted makes a peer a host of a Space with one key.
func hosted(ctx context.Context, o *cluster.Owner, p *cluster.Peer) error {
	if err := o.Host(ctx, p); err != nil {
		return err
	}
	if _, err := o.SignIn(ctx, p); err != nil {
		return err
	}
	return o.Put(ctx, p, "key", value(0))
}

// connected waits until every Space of every peer is connected with another host, or rests after it was.
func connected(b *testing.B, peers []*cluster.Peer, spaces int) {
	b.Helper()
	await(b, peers, spaces, "tinycloud_authorised_peers", "tinycloud_resting_spaces")
}

// rested waits until all Spaces rest but those that a node keeps awake.
func rested(b *testing.B, peers []*cluster.Peer, spaces int) {
	b.Helper()
	const awake = 128
	await(b, peers, spaces-awake, "tinycloud_resting_spaces")
}

// await waits until some metrics of every peer add up to at least a number.
func await(b *testing.B, peers []*cluster.Peer, least int, names ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeoutCause(b.Context(), 10*time.Minute, fmt.Errorf("%v: less than %d", names, least))
	defer cancel()
	for _, p := range peers {
		if err := cluster.Poll(ctx, 100*time.Millisecond, func() (bool, error) {
			sum := 0.0
			for _, name := range names {
				n, err := metric(ctx, p, name)
				if err != nil {
					return false, err
				}
				sum += n
			}
			return sum >= float64(least), nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// metric reads one figure of a peer.
func metric(ctx context.Context, p *cluster.Peer, name string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Stats, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", p.Name, name)
}

// idle reports the memory and CPU time of the hungriest of some processes that are left alone.
func idle(b *testing.B, peers []*cluster.Peer, when string) {
	b.Helper()
	http.DefaultClient.CloseIdleConnections()
	before := make([]float64, len(peers))
	for i, p := range peers {
		before[i] = cpu(b, p)
	}
	time.Sleep(idleFor)
	var most, busiest float64
	for i, p := range peers {
		rss := resident(b, p)
		share := 100 * (cpu(b, p) - before[i]) / idleFor.Seconds()
		b.Logf("%s, %s: %.0f MiB RSS, %.1f %% of a core", p.Name, when, rss, share)
		most, busiest = max(most, rss), max(busiest, share)
	}
	b.ReportMetric(most, "MiB-"+when)
	b.ReportMetric(busiest, "%core-"+when)
}

// cpu returns the seconds of CPU time a process has used.
func cpu(b *testing.B, p *cluster.Peer) float64 {
	b.Helper()
	const ticks = 100 // a second, for whoever reads /proc
	text := procFile(b, p, "stat")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	if err != nil {
		b.Fatal(err)
	}
	return (user + system) / ticks
}

// resident returns how much memory a process has, in MiB.
func resident(b *testing.B, p *cluster.Peer) float64 { return memory(b, p, "VmRSS:") }

// memory reads a size in MiB.
func memory(b *testing.B, p *cluster.Peer, field string) float64 {
	b.Helper()
	for line := range strings.Lines(procFile(b, p, "status")) {
		if text, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatal("no ", field)
	return 0
}

func procFile(b *testing.B, p *cluster.Peer, name string) string {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}
