package node

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// collectors are the metrics of replication.
func (s *spaces) collectors() []prometheus.Collector {
	gauge := func(name, help string, labels prometheus.Labels, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "tinycloud", Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(value()) })
	}
	hosted := func() int { return len(s.n.store.Spaces()) }
	running := func() int { return len(s.snapshot()) }
	authorised := func() int { return s.sum(func(a *active) int { return len(a.peer.Authorised()) }) }
	waiting := func() int { return s.sum(func(a *active) int { return a.peer.Waiting() }) }
	const peers = "Connected peers, counted per Space."
	return append(s.metrics.Collectors(),
		gauge("hosted_spaces", "Spaces this node is a host of.", nil, hosted),
		gauge("active_spaces", "Spaces whose peer is open.", nil, running),
		gauge("sleeping_spaces", "Spaces whose peer is not open.", nil, func() int { return max(0, hosted()-running()) }),
		gauge("resting_spaces", "Of those the ones whose hosts are connected.", nil, s.resting),
		gauge("replicated_shards", "Of 64 shards of Spaces those that this process replicates.", nil, s.shardCount),
		gauge("paired_nodes", "Nodes that this one is paired with.", nil, s.n.store.PairedCount),
		gauge("differing_databases", "Databases of which another host made other content of the same writes.", nil, s.n.differing),
		gauge("authorised_peers", "Connected hosts, counted per Space.", nil, authorised),
		gauge("peers", peers, prometheus.Labels{"state": "authorised"}, authorised),
		gauge("peers", peers, prometheus.Labels{"state": "probation"}, waiting),
	)
}

// sum adds something up over the Spaces whose peer is open.
func (s *spaces) sum(of func(*active) int) (total int) {
	for _, a := range s.snapshot() {
		total += of(a)
	}
	return total
}

// register makes the registry of all that is counted.
func (n *Node) register(ctx context.Context) {
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.registry.MustRegister(n.api.Collectors()...)
	n.registry.MustRegister(n.spaces.collectors()...)
	n.registry.MustRegister(n.spaces.keyMetrics.Collectors()...)
	n.registry.MustRegister(n.store.Collectors(ctx)...)
	n.registry.MustRegister(n.hooks.Collectors()...)
	n.registry.MustRegister(n.callers.Collectors()...)
	for _, x := range n.o.Services {
		if c, ok := x.(interface{ Collectors() []prometheus.Collector }); ok {
			n.registry.MustRegister(c.Collectors()...)
		}
	}
}
