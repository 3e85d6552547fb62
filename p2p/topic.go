package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Verdict is what [Peer.Join]'s check says of a message.
type Verdict int

// Accept passes a message on to the other hosts, Reject drops it as wrong for
// ever, Ignore drops it without blame. The zero value is none of them and is
// treated as Ignore.
const (
	Accept Verdict = iota + 1
	Reject
	Ignore
)

// Topic is one gossip topic of a Space.
type Topic struct {
	topic *pubsub.Topic
	close func() error
}

// gossipOptions are what hosts of a Space agree on, and what bounds one of them, whoever the others are.
func gossipOptions() []pubsub.Option {
	params := pubsub.DefaultGossipSubParams()
	params.Connectors = 0 // no peer exchange: a view never dials
	params.MaxPendingConnections = 1
	return []pubsub.Option{
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithFloodPublish(true),
		pubsub.WithMaxMessageSize(MaxMessage + messageEnvelope),
		pubsub.WithMaxControlMessageSize(MaxMessage),
		pubsub.WithGossipSubParams(params),
		pubsub.WithValidateWorkers(1),
		pubsub.WithValidateQueueSize(validateQueue),
		pubsub.WithPeerOutboundQueueSize(validateQueue),
	}
}

func newPubSub(ctx context.Context, p *Peer) (*topicFilter, *pubsub.PubSub, error) {
	filter := &topicFilter{p: p, announced: map[peer.ID]map[string]struct{}{}}
	ps, err := pubsub.NewGossipSub(ctx, p.view, append(gossipOptions(),
		pubsub.WithSubscriptionFilter(filter),
		pubsub.WithPeerFilter(func(id peer.ID, _ string) bool { return p.IsAuthorised(id) }),
	)...)
	if err != nil {
		return nil, nil, fmt.Errorf("gossipsub: %w", err)
	}
	return filter, ps, nil
}

// Join takes part in a topic. check gets every message once, in the order of
// arrival and one at a time: from is the authorised peer that handed it over,
// not its author. While check runs at most a few hundred messages wait and the
// rest is lost, so it should hand off what takes long. Messages this Peer
// publishes do not come back. data must not be changed; it may be a little
// longer than [MaxMessage], which whoever sent it is to blame for.
func (p *Peer) Join(topic string, check func(ctx context.Context, from peer.ID, data []byte) Verdict) (*Topic, error) {
	validate := func(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		if from == p.id {
			return pubsub.ValidationAccept
		}
		if !p.IsAuthorised(from) { // evicted while the message waited
			return pubsub.ValidationIgnore
		}
		switch check(ctx, from, m.Data) {
		case Accept:
			return pubsub.ValidationAccept
		case Reject:
			return pubsub.ValidationReject
		}
		return pubsub.ValidationIgnore
	}
	if err := p.pubsub.RegisterTopicValidator(topic, validate, pubsub.WithValidatorInline(true)); err != nil {
		return nil, p.joinError(topic, err)
	}
	t, err := p.pubsub.Join(topic)
	if err != nil {
		return nil, errors.Join(p.joinError(topic, err), p.pubsub.UnregisterTopicValidator(topic))
	}
	// The validator is the reader. Relaying takes part like a subscription
	// does, without a second queue to drain.
	cancel, err := t.Relay()
	if err != nil {
		return nil, errors.Join(p.joinError(topic, err), t.Close(), p.pubsub.UnregisterTopicValidator(topic))
	}
	return &Topic{topic: t, close: sync.OnceValue(func() error {
		cancel()
		err := errors.Join(t.Close(), p.pubsub.UnregisterTopicValidator(topic))
		if errors.Is(err, context.Canceled) {
			return nil // the Peer was closed first
		}
		return err
	})}, nil
}

func (p *Peer) joinError(topic string, err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("topic %q: %w", topic, ErrClosed)
	}
	return fmt.Errorf("topic %q: %w: %w", topic, ErrExists, err)
}

// Publish sends data, at most [MaxMessage] bytes, to every authorised peer
// that joined the topic. It does not wait for any of them and does not fail
// when there are none. data must not be changed afterwards.
func (t *Topic) Publish(ctx context.Context, data []byte) error {
	if len(data) > MaxMessage {
		return fmt.Errorf("message of %d bytes: %w", len(data), ErrInvalid)
	}
	err := t.topic.Publish(ctx, data)
	if ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, pubsub.ErrTopicClosed)) {
		return fmt.Errorf("topic: %w", ErrClosed)
	}
	return err
}

// Peers are the authorised peers known to take part in the topic.
func (t *Topic) Peers() []peer.ID { return t.topic.ListPeers() }

// Close leaves the topic.
func (t *Topic) Close() error { return t.close() }

// topicFilter bounds how many topics a remote can make us remember. A remote
// announces its topics once, maybe before we join, so names can't be checked.
type topicFilter struct {
	p *Peer

	mu        sync.Mutex
	announced map[peer.ID]map[string]struct{} // guarded by mu
}

// CanSubscribe allows our own choice.
func (f *topicFilter) CanSubscribe(string) bool { return true }

// FilterIncomingSubscriptions keeps the first few topics of each peer.
func (f *topicFilter) FilterIncomingSubscriptions(from peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	if !f.p.IsAuthorised(from) {
		return nil, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.announced[from]
	if known == nil {
		known = map[string]struct{}{}
		f.announced[from] = known
	}
	var kept []*pb.RPC_SubOpts
	for _, sub := range subs {
		topic := sub.GetTopicid()
		_, ok := known[topic]
		switch {
		case !sub.GetSubscribe():
			delete(known, topic)
		case !ok && len(known) >= topicsPerPeer:
			continue
		default:
			known[topic] = struct{}{}
		}
		kept = append(kept, sub)
	}
	return kept, nil
}

func (f *topicFilter) forget(id peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.announced, id)
}
