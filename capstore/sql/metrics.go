package sql

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// metrics count over all databases; they name none.
type metrics struct {
	writes   *prometheus.CounterVec // by outcome
	ran      *prometheus.CounterVec // by outcome
	rewinds  *prometheus.CounterVec // by kind
	replayed prometheus.Counter
	lag      prometheus.Histogram   // seconds
	budgets  *prometheus.CounterVec // by kind
}

// Outcomes of requests that may write, and of writes that run.
const (
	outcomeDurable = "durable"
	outcomeNothing = "nothing" // it changed nothing
	outcomeRefused = "refused" // it failed when it was tried, or was not made durable
	outcomeApplied = "applied"
	outcomeFailed  = "failed"
)

// Kinds of rewinds.
const (
	rewindBack  = "back"
	rewindAside = "aside" // on a copy
	rewindAnew  = "anew"  // from files that were lost
)

func newMetrics() *metrics {
	counter := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tinycloud", Name: name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v) // at zero, so that it is there from the start
		}
		return c
	}
	return &metrics{
		writes:  counter("sql_writes_total", "Requests of clients that may write databases, by what became of them.", "outcome", outcomeDurable, outcomeNothing, outcomeRefused),
		ran:     counter("sql_run_total", "Writes of the history that ran in a database here, also those that ran again.", "outcome", outcomeApplied, outcomeFailed),
		rewinds: counter("sql_rewinds_total", "Databases that went back for an earlier write, that were replayed aside, or made anew.", "kind", rewindBack, rewindAside, rewindAnew),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tinycloud", Name: "sql_replayed_total", Help: "Writes that databases went back over, to run them again.",
		}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "tinycloud", Name: "sql_follow_lag_seconds", Help: "From the time of the newest write that a database follows to when it has run here.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 60, 600, 3600},
		}),
		budgets: counter("sql_budgets_total", "Writes that failed because they took too much, by what.", "kind", engine.Budgets...),
	}
}

// Collectors returns the metrics for the node's registry.
func (s *Service) Collectors() []prometheus.Collector {
	m := s.metrics
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tinycloud", Name: "sql_open_databases", Help: "Databases whose files are open, or about to be.",
	}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.open))
	})
	return []prometheus.Collector{m.writes, m.ran, m.rewinds, m.replayed, m.lag, m.budgets, open}
}

// spent counts what a write ran out of.
func (m *metrics) spent(r engine.Result) {
	if r.Over != "" {
		m.budgets.WithLabelValues(r.Over).Inc()
	}
}

// followed counts a write that ran.
func (m *metrics) followed(r engine.Result) {
	if r.Err != nil {
		m.ran.WithLabelValues(outcomeFailed).Inc()
	} else {
		m.ran.WithLabelValues(outcomeApplied).Inc()
	}
	m.spent(r)
}

// answered counts a request that may write.
func (m *metrics) answered(out written, err error) {
	switch {
	case err != nil:
		m.writes.WithLabelValues(outcomeRefused).Inc()
	case out.epoch.IsZero():
		m.writes.WithLabelValues(outcomeNothing).Inc()
	default:
		m.writes.WithLabelValues(outcomeDurable).Inc()
	}
}

// caughtUp notes how long after it was written the newest write has run.
func (m *metrics) caughtUp(written int64, now time.Time) {
	m.lag.Observe(max(0, now.Sub(time.UnixMilli(written)).Seconds())) // of a clock that is ahead: 0
}
