package p2p

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/x/rate"
	goyamux "github.com/libp2p/go-yamux/v5"
)

// The bounds of this package. What is not here is an option.
const (
	// MaxMessage is the largest payload of [Topic.Publish], in bytes.
	MaxMessage = 64 << 10
	// MaxFetch is the largest number of blocks one [Peer.Fetch] asks for.
	MaxFetch = 512
	// ProbationBytes is how much is read from a connection, noise and
	// multiplexing included, before its peer is authorised.
	ProbationBytes = 64 << 10

	defaultProbation = 10 * time.Second
	defaultMaxPeers  = 64

	messageEnvelope  = 4 << 10          // gossipsub's own fields around a message
	negotiateTimeout = 10 * time.Second // to agree on the protocol of one stream
	hopTimeout       = 10 * time.Second // to answer one CONNECT
	hopMessage       = 4 << 10          // bytes of one hop message
	crossingTime     = 2 * time.Second  // to wait for an attempt to connect from the other side
	probationStreams = 8                // open at once on one probation peer, both hello and refused
	probationPeers   = 16               // at once on one Space; a newcomer pushes the oldest out
	connsPerPeer     = 4                // simultaneous dials make two
	handshakes       = 32               // unfinished noise handshakes at once on one Space
	validateQueue    = 256              // gossip messages waiting for a verdict, per Space
	topicsPerPeer    = 8                // announced topics remembered, per remote
	connsPerIP       = 64               // physical connections with one IPv4 address or IPv6 /56

	// Between two looks whether a Space's bitswap is idle; longer than it tries to
	// send a message, which is 2 min.
	blocksIdle = 150 * time.Second

	// What a stream may send before the other side has read, at first. It grows from there, but over a
	// distance that takes round trips, on the physical connection and again on the Space's.
	streamWindow = 1 << 20

	maxProcesses = 64 // of one node, linked to the one that has the front

	maxNodes = 512 // other nodes connected at once, above which idle ones are dropped

	wakeBurst      = 64              // CONNECTs to sleeping Spaces one origin may make at once
	wakePerSecond  = 16              // and then per second
	wakeGlobal     = 256             // per second, all remotes together
	wakeConcurrent = 16              // Wake calls running at once
	wakeWait       = 2 * time.Second // for one of these
	limitedRemotes = 1024            // remotes remembered by one limiter

	maxCircuits      = 64       // between other fronts, through this one
	circuitsPerFront = 8        // that one front asked for
	circuitBuffer    = 16 << 10 // bytes each way

	guardedBurst     = 64               // streams of one protocol of [Front.Handle] that one origin may open at once
	guardedPerSecond = 8                // and then per second
	guardedGlobal    = 128              // per second, all origins together
	guardedStreams   = 16               // running at once
	trustedBurst     = 128              // as guardedBurst, of a remote that is trusted
	trustedPerSecond = 64               // likewise
	trustedGlobal    = 256              // likewise
	guardedTimeout   = 10 * time.Second // of one
)

// frontLimits lets one node pair carry thousands of Spaces: the library's
// defaults refuse hop streams beyond some 130.
//
// Busy peers, which are processes of the same node, may carry as much as all others.
func frontLimits(busy []peer.ID) (network.ResourceManager, error) {
	const perPeer, all = 8192, 40000
	hop := rcmgr.ResourceLimits{Streams: all, StreamsInbound: all, StreamsOutbound: all, Memory: 4 << 30}
	processes := map[peer.ID]rcmgr.ResourceLimits{}
	for _, id := range busy {
		processes[id] = rcmgr.ResourceLimits{Conns: maxProcesses, ConnsInbound: maxProcesses, Streams: all, StreamsInbound: all, StreamsOutbound: all, Memory: 4 << 30}
	}
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: 2 * maxNodes, ConnsInbound: maxNodes + maxNodes/2, ConnsOutbound: 2 * maxNodes,
			Streams: all, StreamsInbound: all, StreamsOutbound: all, Memory: 4 << 30,
		},
		Transient:    rcmgr.ResourceLimits{Streams: 2048, StreamsInbound: 2048, StreamsOutbound: 2048, Memory: 512 << 20},
		PeerDefault:  rcmgr.ResourceLimits{Streams: perPeer, StreamsInbound: perPeer, StreamsOutbound: perPeer, Memory: 2 << 30},
		Protocol:     map[protocol.ID]rcmgr.ResourceLimits{hopProtocol: hop, processProtocol: hop},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{hopProtocol: {Streams: perPeer, StreamsInbound: perPeer, StreamsOutbound: perPeer, Memory: 2 << 30}, processProtocol: hop},
		Peer:         processes,
	}
	// Several nodes may sit behind one address, and a restarted one dials anew.
	v4 := rcmgr.ConnLimitPerSubnet{PrefixLength: 32, ConnCount: connsPerIP}
	v6 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerIP}, {PrefixLength: 48, ConnCount: 4 * connsPerIP}}
	perIP := rate.Limit{RPS: 8, Burst: 2 * connsPerIP}
	return newLimits(cfg,
		rcmgr.WithLimitPerSubnet([]rcmgr.ConnLimitPerSubnet{v4}, v6),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{ // loopback: no limit
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perIP}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perIP}},
				GracePeriod:      time.Minute,
			},
		}))
}

// spaceLimits are shared by all Space peers of a front; a remote is bounded
// through PeerDefault because a remote Space peer belongs to one Space.
func spaceLimits() (network.ResourceManager, error) {
	const conns, streams, perPeer = 20000, 200000, 512
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: conns, ConnsInbound: conns, ConnsOutbound: conns,
			Streams: streams, StreamsInbound: streams, StreamsOutbound: streams, Memory: 4 << 30,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: 4096, ConnsInbound: 4096, ConnsOutbound: 4096,
			Streams: 8192, StreamsInbound: 8192, StreamsOutbound: 8192, Memory: 1 << 30,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 8, ConnsInbound: 8, ConnsOutbound: 8,
			Streams: perPeer, StreamsInbound: perPeer / 2, StreamsOutbound: perPeer / 2, Memory: 256 << 20,
		},
		// Streams count for their protocol too, on all Spaces together.
		ProtocolDefault:     rcmgr.ResourceLimits{Streams: streams, StreamsInbound: streams, StreamsOutbound: streams, Memory: 4 << 30},
		ProtocolPeerDefault: rcmgr.ResourceLimits{Streams: perPeer, StreamsInbound: perPeer / 2, StreamsOutbound: perPeer / 2, Memory: 256 << 20},
	}
	// The default limiter refuses what has no IP address.
	return newLimits(cfg, rcmgr.WithConnRateLimiters(&rate.Limiter{GlobalLimit: rate.Limit{RPS: 2000, Burst: 8000}}))
}

func newLimits(cfg rcmgr.PartialLimitConfig, opts ...rcmgr.Option) (network.ResourceManager, error) {
	limiter := rcmgr.NewFixedLimiter(cfg.Build(rcmgr.DefaultLimits.AutoScale()))
	rm, err := rcmgr.NewResourceManager(limiter, append(opts, rcmgr.WithMetricsDisabled())...)
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return rm, nil
}

// frontMuxer is yamux as libp2p sets it up, but for the window.
func frontMuxer() *yamux.Transport {
	cfg := *yamux.DefaultTransport.Config()
	cfg.InitialStreamWindowSize = streamWindow
	return (*yamux.Transport)((*goyamux.Config)(&cfg))
}

// spaceMuxer is yamux without its own clocks: the physical connection below
// already notices death, and a ping per idle Space and peer would add up.
func spaceMuxer() *yamux.Transport {
	cfg := *frontMuxer().Config()
	cfg.EnableKeepAlive = false
	cfg.MeasureRTTInterval = 24 * time.Hour
	cfg.MaxIncomingStreams = 512
	cfg.AcceptBacklog = 64
	return (*yamux.Transport)((*goyamux.Config)(&cfg))
}
