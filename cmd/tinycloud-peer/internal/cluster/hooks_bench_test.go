package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
)

// stream opens a stream of events at a peer and calls f with the number in each event's path, until the
// context ends.
func stream(ctx context.Context, o *cluster.Owner, p *cluster.Peer, opened func(), f func(i int)) error {
	body := fmt.Sprintf(`{"subscriptions":[{"space":%q,"service":"kv","pathPrefix":"hook"}]}`, o.Space)
	made, err := o.Call(ctx, p, http.MethodPost, "/hooks/tickets", o.Token("hooks/kv/hook", "tinycloud.hooks/subscribe"), nil, strings.NewReader(body))
	if err != nil {
		return err
	}
	var ticket struct{ Ticket string }
	if err := json.Unmarshal([]byte(made.Body), &ticket); err != nil {
		return fmt.Errorf("%d %s: %w", made.Status, made.Body, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/hooks/events?ticket="+url.QueryEscape(ticket.Ticket), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // broken off
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("stream: %s", resp.Status)
	}
	opened()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		// Decoding JSON a hundred times for each write would be what is measured.
		if _, path, ok := strings.Cut(lines.Text(), `"path":"hook/`); ok {
			number, _, _ := strings.Cut(path, `"`)
			i, err := strconv.Atoi(number)
			if err != nil {
				return err
			}
			f(i)
		}
	}
	return nil
}

// BenchmarkHooks measures, with 100 streams open and 500 puts a second, from the answer to a put to its event
// at each stream, over HTTP to a process of its own, and counts the events that did not come. Tickets end
// after a minute, so b.N is below 25,000.
func BenchmarkHooks(b *testing.B) {
	const streams, rate, writers = 100, 500, 8
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	seen := make([][]time.Time, streams)
	var open, all sync.WaitGroup
	got := make(chan struct{}, streams)
	for s := range streams {
		seen[s] = make([]time.Time, b.N)
		open.Add(1)
		all.Go(func() {
			count := 0
			opened := sync.OnceFunc(open.Done)
			defer opened()
			err := stream(ctx, o, p, opened, func(i int) {
				if seen[s][i] = time.Now(); count == b.N-1 {
					got <- struct{}{}
				}
				count++
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	open.Wait()
	answered := make([]time.Time, b.N)
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	b.ResetTimer()
	drive(b, writers, b.N, func(ctx context.Context, i int) error {
		<-tick.C
		err := o.Put(ctx, p, fmt.Sprint("hook/", i), value(i))
		answered[i] = time.Now()
		return err
	})
	b.StopTimer()
	patience := time.After(10 * time.Second)
	for range streams {
		select {
		case <-got:
			continue
		case <-patience:
		}
		break
	}
	stop()
	all.Wait()
	reportEvents(b, seen, answered)
}

// reportEvents reports the time from each answer to its event at each stream.
func reportEvents(b *testing.B, seen [][]time.Time, answered []time.Time) {
	b.Helper()
	var took []time.Duration
	for _, times := range seen {
		for i, at := range times {
			if !at.IsZero() {
				took = append(took, max(0, at.Sub(answered[i])))
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(len(seen)*b.N-len(took)), "lost")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	if len(took) > 0 {
		percentiles(b, took)
	}
}
