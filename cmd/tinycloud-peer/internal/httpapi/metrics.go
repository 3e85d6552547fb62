package httpapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics carry no Space, key or path: their label sets are fixed.
type metrics struct {
	requests      *prometheus.CounterVec   // by route and status
	invoke        *prometheus.HistogramVec // seconds, by action
	authorization *prometheus.HistogramVec // seconds, by request
	put, get      prometheus.Histogram     // seconds
}

func newMetrics() *metrics {
	const prefix = "tinycloud"
	seconds := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: prefix, Name: name, Help: help, Buckets: prometheus.DefBuckets}
	}
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: prefix, Name: "http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "status"}),
		invoke: prometheus.NewHistogramVec(seconds("authorized_invoke_duration_seconds",
			"Time of a delegation or invocation, from its header to its answer."), []string{"action"}),
		authorization: prometheus.NewHistogramVec(seconds("authorization_duration_seconds",
			"Time until an invocation is admitted."), []string{"request"}),
		put: prometheus.NewHistogram(seconds("kv_put_seconds", "Time of a put, from its first body byte to durable.")),
		get: prometheus.NewHistogram(seconds("kv_get_seconds", "Time of a get, until its last body byte was written.")),
	}
}

func (m *metrics) authorized(action string, began time.Time) {
	m.invoke.WithLabelValues(action).Observe(time.Since(began).Seconds())
}

func observe(h prometheus.Observer, began time.Time) { h.Observe(time.Since(began).Seconds()) }

// Collectors returns the metrics for the node's registry.
func (a *API) Collectors() []prometheus.Collector {
	m := a.metrics
	return []prometheus.Collector{m.requests, m.invoke, m.authorization, m.put, m.get}
}
