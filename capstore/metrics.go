package capstore

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// metrics count over all Spaces; they name none.
type metrics struct {
	epochs       *prometheus.CounterVec // by outcome
	lag          prometheus.Histogram   // seconds
	equivocation prometheus.Counter
	group        prometheus.Histogram   // jobs
	joined       *prometheus.CounterVec // by ending
	writes       *prometheus.CounterVec // transactions of a server's database, by how they were sent
}

// maxLagSeconds of history that is caught up with is in the histogram's last bucket.
const maxLagSeconds = 3600

func newMetrics() *metrics {
	const prefix = "tinycloud"
	m := &metrics{
		epochs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: prefix, Name: "epochs_total", Help: "Epochs of this host and of others: applied, void when they came, or parked as of the future.",
		}, []string{"outcome"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: prefix, Name: "apply_lag_seconds", Help: "From the time of another host's log entry to its commit here.",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, maxLagSeconds},
		}),
		equivocation: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: prefix, Name: "equivocations_total", Help: "Log entries that continue a host's log at a place that another entry has.",
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: prefix, Name: "commit_group_jobs", Help: "Requests that shared one durable transaction.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, maxGroup},
		}),
	}
	m.joined = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: prefix, Name: "joining_ended_total", Help: "Spaces that are joining no more, by what ended it.",
	}, []string{"by"})
	for _, why := range endings {
		m.joined.WithLabelValues(string(why))
	}
	m.writes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: prefix, Name: "server_transactions_total",
		Help: "Transactions on a server's database: sent whole, in one round trip; those that asked first; and what was supposed wrongly, and then asked.",
	}, []string{"kind"})
	for _, how := range []string{sentWhole, sentAsking, supposedWrong} {
		m.writes.WithLabelValues(how)
	}
	for _, outcome := range []string{"applied", "void", "parked"} {
		m.epochs.WithLabelValues(outcome) // at zero, so that it is there from the start
	}
	return m
}

// How a transaction is sent to a server.
const (
	sentWhole     = "whole"
	sentAsking    = "asked"
	supposedWrong = "wrong"
)

// tally is what a transaction adds to the metrics once it is durable.
type tally struct {
	applied, void int
	equivocations int
	lags          []time.Duration
}

// counted adds up what a durable transaction of some jobs did.
func (t *tx) counted(jobs int) {
	if len(t.order) > 0 { // it changed something
		t.s.metrics.add(t.tally, jobs)
	}
}

func (m *metrics) add(t tally, jobs int) {
	m.epochs.WithLabelValues("applied").Add(float64(t.applied))
	m.epochs.WithLabelValues("void").Add(float64(t.void))
	m.equivocation.Add(float64(t.equivocations))
	for _, d := range t.lags {
		m.lag.Observe(max(0, d.Seconds())) // of a clock that is ahead: 0
	}
	m.group.Observe(float64(jobs))
}

func (m *metrics) parked() { m.epochs.WithLabelValues("parked").Inc() }

// count notes an epoch that is new here.
func (t *tally) count(p *hostlog.Parsed, valid bool, now time.Time) {
	if valid {
		t.applied++
	} else {
		t.void++
	}
	if !p.Own {
		t.lags = append(t.lags, now.Sub(at(p.Entry.At)))
	}
}

// Collectors returns the metrics for the node's registry. Those of the database are read with the values of ctx.
func (s *Store) Collectors(ctx context.Context) []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.epochs, m.lag, m.equivocation, m.group, m.joined, m.writes, &stored{s, func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.WithoutCancel(ctx), collectTime)
	}}}
}

// stored is read from the database when it is asked for.
type stored struct {
	*Store
	within func() (context.Context, context.CancelFunc) // the collector is given no context
}

const collectTime = 2 * time.Second

func wantsDesc() *prometheus.Desc {
	return prometheus.NewDesc("tinycloud_wants", "Values that have to be fetched: due now, or waiting for their next try.", []string{"state"}, nil)
}

func bytesDesc() *prometheus.Desc {
	return prometheus.NewDesc("tinycloud_stored_bytes", "Bytes of the values of all Spaces.", nil, nil)
}

func historyDesc() *prometheus.Desc {
	return prometheus.NewDesc("tinycloud_history_bytes", "Bytes of the histories of all Spaces.", nil, nil)
}

func statesDesc() *prometheus.Desc {
	return prometheus.NewDesc("tinycloud_database_bytes", "Bytes that databases take in files here, as far as they were used.", nil, nil)
}

func pausedDesc() *prometheus.Desc {
	return prometheus.NewDesc("tinycloud_paused_spaces", "Spaces of which values, or the history, of other hosts are not taken, since they hold too much.", []string{"kind"}, nil)
}

// Describe implements [prometheus.Collector].
func (s *stored) Describe(out chan<- *prometheus.Desc) {
	out <- wantsDesc()
	out <- bytesDesc()
	out <- historyDesc()
	out <- statesDesc()
	out <- pausedDesc()
	for _, g := range s.gauges() {
		out <- prometheus.NewDesc(g.Name, g.Help, nil, nil)
	}
}

// Collect implements [prometheus.Collector].
func (s *stored) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := s.within()
	defer cancel()
	var due, all, bytes, states int64
	_, err := s.db.Read.One(ctx, []any{&due, &all, &bytes, &states}, `SELECT (SELECT count(*) FROM wants WHERE due <= ? AND sid NOT IN (SELECT sid FROM spaces WHERE policy = 'lazy' OR policy = '' AND ? = 'lazy')),
		(SELECT count(*) FROM wants), (SELECT coalesce(sum(bytes), 0) FROM spaces), (SELECT coalesce(sum(sizes), 0) FROM spaces)`,
		s.o.Now().UnixMilli(), string(s.o.Policy))
	var history, noValues, noHistory float64
	if err == nil {
		err = s.rooms(ctx, func(_ tinycloud.SpaceID, r Room) {
			history += float64(r.History)
			if r.NoValues() || r.Short {
				noValues++
			}
			if r.NoHistory() {
				noHistory++
			}
		})
	}
	if err != nil { // the families are missing rather than wrong
		s.log.DebugContext(ctx, "database does not tell its metrics", "error", err)
		return
	}
	out <- prometheus.MustNewConstMetric(wantsDesc(), prometheus.GaugeValue, float64(due), "due")
	out <- prometheus.MustNewConstMetric(wantsDesc(), prometheus.GaugeValue, float64(all-due), "waiting")
	out <- prometheus.MustNewConstMetric(bytesDesc(), prometheus.GaugeValue, float64(bytes))
	out <- prometheus.MustNewConstMetric(historyDesc(), prometheus.GaugeValue, history)
	out <- prometheus.MustNewConstMetric(statesDesc(), prometheus.GaugeValue, float64(states))
	out <- prometheus.MustNewConstMetric(pausedDesc(), prometheus.GaugeValue, noValues, "values")
	out <- prometheus.MustNewConstMetric(pausedDesc(), prometheus.GaugeValue, noHistory, "history")
	for _, g := range s.gauges() {
		var n int64
		if _, err := s.db.Read.One(ctx, []any{&n}, g.Query, g.Args...); err != nil {
			s.log.DebugContext(ctx, "database does not tell its metrics", "error", err)
			return
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(g.Name, g.Help, nil, nil), prometheus.GaugeValue, float64(n))
	}
}

// gauges are those of the services.
func (s *stored) gauges() (out []service.Gauge) {
	for _, k := range s.keepers {
		out = append(out, k.Gauges(s.o.Now())...)
	}
	return out
}
