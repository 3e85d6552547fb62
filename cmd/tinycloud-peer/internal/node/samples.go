package node

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

const (
	sampleEvery = 10 * time.Second
	samplesKept = 180 // half an hour
)

// Sample is what the node's metrics said at a time. Rates are of the time since the sample before.
type Sample struct {
	At       time.Time `json:"at"`
	Requests float64   `json:"requests"` // of apps, a second
	Epochs   float64   `json:"epochs"`   // of writes, of this host and of others, a second
	Traffic  float64   `json:"traffic"`  // bytes a second, from and to other hosts
	LagMs    float64   `json:"lagMs"`    // from another host's entry to its commit here, on average; 0: none came
	Peers    float64   `json:"peers"`    // connected hosts, counted per Space
	Stored   float64   `json:"stored"`   // bytes of values
	Memory   float64   `json:"memory"`   // bytes of the process
}

// HistoryView is the answer to GET /admin/history: the oldest sample first.
type HistoryView struct {
	EverySeconds float64  `json:"everySeconds"`
	Samples      []Sample `json:"samples"`
}

// samples are the last ones, in memory.
type samples struct {
	mu   sync.Mutex
	kept []Sample // guarded by mu
}

func (s *samples) add(x Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) >= samplesKept {
		s.kept = append(s.kept[:0], s.kept[1:]...)
	}
	s.kept = append(s.kept, x)
}

func (s *samples) list() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Sample{}, s.kept...)
}

// counted are sums of counters, from which rates come.
type counted struct {
	at                                          time.Time
	requests, epochs, traffic, lagSum, lagCount float64
}

// sample reads the metrics now and then, until the context ends.
func (n *Node) sample(ctx context.Context) {
	before := n.look(nil)
	if !wait.For(ctx, time.Second) { // the first comes soon: somebody may look
		return
	}
	before = n.sampled(before)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before = n.sampled(before)
	}
}

// sampled adds a sample, with rates since before.
func (n *Node) sampled(before counted) (now counted) {
	var x Sample
	now = n.look(&x)
	spent := now.at.Sub(before.at).Seconds()
	rate := func(a, b float64) float64 { return math.Max(0, (a-b)/spent) }
	x.Requests, x.Epochs, x.Traffic = rate(now.requests, before.requests), rate(now.epochs, before.epochs), rate(now.traffic, before.traffic)
	if came := now.lagCount - before.lagCount; came > 0 {
		x.LagMs = 1000 * (now.lagSum - before.lagSum) / came
	}
	n.samples.add(x)
	n.live.sampled(x)
	return now
}

// look reads the metrics. What can't be read is 0.
func (n *Node) look(x *Sample) (c counted) {
	c.at = time.Now()
	families, _ := prometheus.Gatherer(n.registry).Gather() // it gives what it could read
	for _, f := range families {
		switch f.GetName() {
		case "tinycloud_http_requests_total":
			c.requests += sumOf(f)
		case "tinycloud_epochs_total":
			c.epochs += sumOf(f)
		case "tinycloud_sync_bytes_total", "tinycloud_block_bytes_total":
			c.traffic += sumOf(f)
		case "tinycloud_apply_lag_seconds":
			for _, m := range f.GetMetric() {
				c.lagSum += m.GetHistogram().GetSampleSum()
				c.lagCount += float64(m.GetHistogram().GetSampleCount())
			}
		}
		if x == nil {
			continue
		}
		switch f.GetName() {
		case "tinycloud_authorised_peers":
			x.Peers = sumOf(f)
		case "tinycloud_stored_bytes":
			x.Stored = sumOf(f)
		case "process_resident_memory_bytes":
			x.Memory = sumOf(f)
		}
	}
	if x != nil {
		x.At = c.at.UTC().Truncate(time.Millisecond)
	}
	return c
}

func sumOf(f *dto.MetricFamily) (sum float64) {
	for _, m := range f.GetMetric() {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

func (n *Node) adminHistory(*http.Request) (int, any, error) {
	return http.StatusOK, HistoryView{sampleEvery.Seconds(), n.samples.list()}, nil
}
