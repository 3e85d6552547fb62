package replication

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Metrics counts what the replicas of a node do together. Register [Metrics.Collectors] once.
type Metrics struct {
	traffic *prometheus.CounterVec // bytes by kind and direction
	entries *prometheus.CounterVec // log entries from peers by outcome
	caught  prometheus.Counter     // log entries that streams brought
	refusal *prometheus.CounterVec // refusals by layer
	gossip  *prometheus.CounterVec // gossip messages by outcome
	blocks  *prometheus.CounterVec // bytes by direction
	values  *prometheus.CounterVec // fetches of values by outcome
}

// NewMetrics returns counters at zero.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tinycloud", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		traffic: counter("sync_bytes_total", "Bytes of handshakes and sync streams.", "kind", "direction"),
		entries: counter("sync_entries_total", "Log entries that peers sent.", "outcome"),
		caught: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tinycloud", Name: "catchup_entries_total", Help: "New log entries that came by a stream of catching up.",
		}),
		refusal: counter("refused_total", "Peers and messages refused.", "layer"),
		gossip:  counter("gossip_messages_total", "Gossip messages.", "outcome"),
		blocks:  counter("block_bytes_total", "Bytes of blocks exchanged with peers.", "direction"),
		values:  counter("fetched_values_total", "Values fetched from peers.", "outcome"),
	}
	// At zero, so that the families are there from the start and their rates begin with the first event.
	m.Blocks(0, 0)
	m.applied(hostlog.Applied{})
	for _, layer := range []string{"connection", "circuit", "hello", "where", "pair", "stream", "sync", "gossip"} {
		m.refusal.WithLabelValues(layer)
	}
	for _, outcome := range []string{"arrived", "failed"} {
		m.values.WithLabelValues(outcome)
	}
	return m
}

// Collectors returns everything that is counted.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.traffic, m.entries, m.caught, m.refusal, m.blocks, m.gossip, m.values}
}

// Bytes returns what counts the bytes of streams of a kind.
func (m *Metrics) Bytes(kind string) func(in, out int) {
	received, sent := m.traffic.WithLabelValues(kind, "in"), m.traffic.WithLabelValues(kind, "out")
	return func(in, out int) {
		received.Add(float64(in))
		sent.Add(float64(out))
	}
}

func (m *Metrics) applied(a hostlog.Applied) {
	m.entries.WithLabelValues("new").Add(float64(a.New))
	m.entries.WithLabelValues("duplicate").Add(float64(a.Duplicate))
	if a.Gap {
		m.entries.WithLabelValues("gap").Inc()
	}
	m.entries.WithLabelValues("parked").Add(float64(a.Held))
	if a.Parked {
		m.entries.WithLabelValues("parked").Inc()
	}
}

// Blocks counts bytes of blocks that came and went.
func (m *Metrics) Blocks(in, out int) {
	m.blocks.WithLabelValues("in").Add(float64(in))
	m.blocks.WithLabelValues("out").Add(float64(out))
}

// Refused counts a refusal of a layer below.
func (m *Metrics) Refused(layer string) { m.refuse(layer) }

func (m *Metrics) refuse(layer string) { m.refusal.WithLabelValues(layer).Inc() }
