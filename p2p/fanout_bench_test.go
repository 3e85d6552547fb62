package p2p_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"google.golang.org/protobuf/proto"

	"github.com/TinyCloudLabs/tinycloud-peer/p2p"
)

// BenchmarkFanOut counts what one message of 1,500 bytes, about a put of 1 KiB, costs the hosts of a Space: gossipsub
// as every Space has it, over connections in memory. degree 0: all are connected with all, as hosts are that can
// reach each other. For docs/scale.md.
func BenchmarkFanOut(b *testing.B) {
	for _, c := range []struct{ hosts, degree int }{{2, 0}, {8, 0}, {16, 0}, {32, 0}, {64, 0}, {64, 16}, {128, 16}} {
		b.Run(fmt.Sprintf("hosts=%d/degree=%d", c.hosts, c.degree), func(b *testing.B) { fanOut(b, c.hosts, c.degree) })
	}
}

// counts are of all hosts together.
type counts struct {
	first, again, lost         atomic.Int64 // messages that came, that came another time, that a full queue lost
	sent, publisher, control   atomic.Int64 // bytes; of the one who publishes; those without a message
	publisherCopies, wantedNot atomic.Int64
}

// tally is one host's.
type tally struct {
	*counts
	publishes bool
}

func (c tally) DeliverMessage(*pubsub.Message)   { c.first.Add(1) }
func (c tally) DuplicateMessage(*pubsub.Message) { c.again.Add(1) }
func (c tally) DropRPC(rpc *pubsub.RPC, _ peer.ID) {
	c.lost.Add(int64(len(rpc.GetPublish())))
}

func (c tally) SendRPC(rpc *pubsub.RPC, _ peer.ID) {
	n, copies := int64(proto.Size(&rpc.RPC)), int64(len(rpc.GetPublish()))
	c.sent.Add(n)
	if copies == 0 {
		c.control.Add(n)
	}
	c.wantedNot.Add(int64(len(rpc.GetControl().GetIdontwant())))
	if c.publishes {
		c.publisher.Add(n)
		c.publisherCopies.Add(copies)
	}
}

func (tally) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (tally) OnClosedOutboundStream(peer.ID)                       {}
func (tally) Join(string)                                          {}
func (tally) Leave(string)                                         {}
func (tally) Graft(peer.ID, string)                                {}
func (tally) Prune(peer.ID, string)                                {}
func (tally) ValidateMessage(*pubsub.Message)                      {}
func (tally) RejectMessage(*pubsub.Message, string)                {}
func (tally) ThrottlePeer(peer.ID)                                 {}
func (tally) RecvRPC(*pubsub.RPC)                                  {}
func (tally) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (tally) UndeliverableMessage(*pubsub.Message)                 {}

func fanOut(b *testing.B, hosts, degree int) {
	net := mocknet.New()
	defer func() { _ = net.Close() }()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	total := &counts{}
	var topics []*pubsub.Topic
	var came sync.WaitGroup
	for i := range hosts {
		h, err := net.GenPeer()
		if err != nil {
			b.Fatal(err)
		}
		ps, err := pubsub.NewGossipSub(ctx, h, append(p2p.GossipOptions(), pubsub.WithRawTracer(tally{total, i == 0}))...)
		if err != nil {
			b.Fatal(err)
		}
		if err := ps.RegisterTopicValidator(topicID, func(_ context.Context, from peer.ID, _ *pubsub.Message) pubsub.ValidationResult {
			if from != h.ID() {
				came.Done()
			}
			return pubsub.ValidationAccept
		}, pubsub.WithValidatorInline(true)); err != nil {
			b.Fatal(err)
		}
		topic, err := ps.Join(topicID)
		if err == nil {
			_, err = topic.Relay()
		}
		if err != nil {
			b.Fatal(err)
		}
		topics = append(topics, topic)
	}
	if err := net.LinkAll(); err != nil {
		b.Fatal(err)
	}
	connectHosts(b, net, degree)
	most := degree
	if degree == 0 {
		most = hosts - 1
	}
	known := 0 // by all hosts; in memory, a few streams of many that are opened at once are lost
	for deadline := time.Now().Add(30 * time.Second); known < hosts*most && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		known = 0
		for _, t := range topics {
			known += len(t.ListPeers())
		}
	}
	if 10*known < 9*hosts*most {
		b.Fatalf("%d connections of %d", known, hosts*most)
	}
	const settle = 10 * time.Second // heartbeats, so that the mesh is made
	time.Sleep(settle)
	before := total.control.Load()
	time.Sleep(settle)
	idle := float64(total.control.Load()-before) / settle.Seconds() / float64(hosts)
	for _, c := range []*atomic.Int64{&total.first, &total.again, &total.lost, &total.sent, &total.publisher, &total.control, &total.publisherCopies, &total.wantedNot} {
		c.Store(0)
	}
	data := make([]byte, 1500)
	n := 0
	for b.Loop() {
		n++
		copy(data, fmt.Sprint(n))
		came.Add(hosts - 1)
		if err := topics[0].Publish(ctx, append([]byte(nil), data...)); err != nil {
			b.Fatal(err)
		}
		came.Wait()
	}
	time.Sleep(5 * time.Second) // what is said of them later
	per := float64(n * (hosts - 1))
	b.ReportMetric(float64(total.again.Load()+total.first.Load())/per, "copies/host")
	b.ReportMetric(float64(total.sent.Load())/per, "B/host")
	b.ReportMetric(float64(total.publisherCopies.Load())/float64(n), "publisher-copies")
	b.ReportMetric(float64(total.publisher.Load())/float64(n), "publisher-B")
	b.ReportMetric(float64(total.lost.Load()), "lost")
	b.ReportMetric(idle, "idle-B/s/host")
	b.ReportMetric(float64(known)/float64(hosts), "peers/host")
}

// connectHosts connects all with all, or each with at least so many others, by chance.
func connectHosts(b *testing.B, net mocknet.Mocknet, degree int) {
	b.Helper()
	ids := net.Peers()
	r := rand.New(rand.NewPCG(1, 2))
	for i, id := range ids {
		if degree == 0 {
			for _, other := range ids[i+1:] {
				if _, err := net.ConnectPeers(id, other); err != nil {
					b.Fatal(err)
				}
			}
			continue
		}
		for len(net.Net(id).Peers()) < degree {
			other := ids[r.IntN(len(ids))]
			if other == id || len(net.Net(id).ConnsToPeer(other)) > 0 {
				continue
			}
			if _, err := net.ConnectPeers(id, other); err != nil {
				b.Fatal(err)
			}
		}
	}
}
