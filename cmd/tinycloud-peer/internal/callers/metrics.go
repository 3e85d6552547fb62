package callers

import "github.com/prometheus/client_golang/prometheus"

// What became of a connection or a request.
const (
	accepted = "accepted"
	refused  = "refused" // there was no room
	closed   = "closed"  // to make room for another
)

// Metrics count the connections and requests that limits were for.
type Metrics struct {
	connections *prometheus.CounterVec
	requests    *prometheus.CounterVec
}

// NewMetrics returns metrics at zero.
func NewMetrics() *Metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tinycloud", Name: name, Help: help}, []string{label})
	}
	m := &Metrics{
		connections: counter("http_connections_total", "HTTP connections: accepted, refused as too many, closed to make room.", "outcome"),
		requests:    counter("http_limited_total", "HTTP requests refused as too many at once, of one client or in all, and bodies that came too slowly.", "by"),
	}
	for _, outcome := range []string{accepted, refused, closed} {
		m.connections.WithLabelValues(outcome)
	}
	for _, by := range []string{byClient, byTotal, byPace} {
		m.requests.WithLabelValues(by)
	}
	return m
}

// Collectors are for a registry.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.connections, m.requests}
}

func (m *Metrics) connection(outcome string) {
	if m != nil {
		m.connections.WithLabelValues(outcome).Inc()
	}
}

func (m *Metrics) limited(by string) {
	if m != nil {
		m.requests.WithLabelValues(by).Inc()
	}
}
