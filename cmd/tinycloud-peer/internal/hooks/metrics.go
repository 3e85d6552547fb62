package hooks

import "github.com/prometheus/client_golang/prometheus"

// Outcomes of a delivery.
const (
	outcomeDelivered = "delivered"
	outcomeRetry     = "retry"     // failed, to be tried again
	outcomeAbandoned = "abandoned" // failed for the last time
	outcomeDropped   = "dropped"   // too many waited
)

// metrics carry no Space, path or URL.
type metrics struct {
	streams    prometheus.Gauge
	events     prometheus.Counter
	lagged     prometheus.Counter
	deliveries *prometheus.CounterVec // by outcome
}

func newMetrics() *metrics {
	const prefix = "tinycloud"
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: prefix, Name: "hook_streams", Help: "Streams of events that are open.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: prefix, Name: "hook_events_total", Help: "Events written to streams.",
		}),
		lagged: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: prefix, Name: "hook_streams_lagged_total", Help: "Times a stream fell behind and read on from the database.",
		}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: prefix, Name: "hook_deliveries_total", Help: "Deliveries to webhooks by outcome.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{outcomeDelivered, outcomeRetry, outcomeAbandoned, outcomeDropped} {
		m.deliveries.WithLabelValues(outcome) // at zero, so that the family is there from the start
	}
	return m
}

// Collectors returns the metrics for the node's registry.
func (h *Hooks) Collectors() []prometheus.Collector {
	m := h.metrics
	return []prometheus.Collector{m.streams, m.events, m.lagged, m.deliveries}
}
