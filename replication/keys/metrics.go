package keys

import "github.com/prometheus/client_golang/prometheus"

// Metrics are those of all Spaces of a node.
type Metrics struct {
	Records   prometheus.Counter     // that were news
	Handed    *prometheus.CounterVec // keys, by outcome
	Forwarded *prometheus.CounterVec // requests to decrypt, by what this node did
	Refused   prometheus.Counter     // questions
	Bytes     *prometheus.CounterVec
}

// NewMetrics returns them, at zero.
func NewMetrics() *Metrics {
	m := &Metrics{
		Records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tinycloud_network_records_total", Help: "Records about encryption networks that other hosts told and that were news.",
		}),
		Handed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tinycloud_network_keys_total", Help: "Keys of encryption networks between hosts: given and taken, and kept from another or refused by one.",
		}, []string{"outcome"}),
		Forwarded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tinycloud_network_forwarded_total", Help: "Requests to decrypt that were sent on to the host they are for, and those answered for other hosts.",
		}, []string{"outcome"}),
		Refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tinycloud_network_questions_refused_total", Help: "Questions of other hosts about encryption networks that ended without an answer.",
		}),
		Bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tinycloud_network_bytes_total", Help: "Bytes between hosts about encryption networks.",
		}, []string{"direction"}),
	}
	for _, outcome := range []string{"given", "taken", "kept", "refused"} {
		m.Handed.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"sent", "answered"} {
		m.Forwarded.WithLabelValues(outcome)
	}
	m.bytes(0, 0)
	return m
}

// Collectors are what there is to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.Records, m.Handed, m.Forwarded, m.Refused, m.Bytes}
}

func (m *Metrics) bytes(in, out int) {
	m.Bytes.WithLabelValues("in").Add(float64(in))
	m.Bytes.WithLabelValues("out").Add(float64(out))
}
