package attack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	hop "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"google.golang.org/protobuf/proto"
)

// Gossip is a stream of gossipsub that a client writes by hand.
type Gossip struct {
	network.Stream
	key crypto.PrivKey
	seq uint64
}

// Gossip opens a stream of gossipsub to a Space peer that authorised this client.
func (c *Client) Gossip(ctx context.Context, id peer.ID) (*Gossip, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(c.Key)
	if err != nil {
		return nil, err
	}
	s, err := c.NewStream(ctx, id, pubsub.GossipSubID_v11)
	return &Gossip{s, key, uint64(time.Now().UnixNano())}, err
}

// Say publishes messages on the Space's topic, signed as gossipsub demands, in one RPC.
func (g *Gossip) Say(messages ...[]byte) error {
	rpc := &pb.RPC{}
	for _, data := range messages {
		m, err := g.sign(data)
		if err != nil {
			return err
		}
		rpc.Publish = append(rpc.Publish, m)
	}
	return g.Send(rpc)
}

func (g *Gossip) sign(data []byte) (*pb.Message, error) {
	id, err := peer.IDFromPrivateKey(g.key)
	if err != nil {
		return nil, err
	}
	g.seq++
	topic := Topic
	m := &pb.Message{Data: data, Topic: &topic, From: []byte(id), Seqno: binary.BigEndian.AppendUint64(nil, g.seq)}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	m.Signature, err = g.key.Sign(append([]byte(pubsub.SignPrefix), b...))
	return m, err
}

// Send writes an RPC as it is.
func (g *Gossip) Send(rpc *pb.RPC) error {
	b, err := proto.Marshal(rpc)
	if err != nil {
		return err
	}
	_, err = g.Write(Frame(b))
	return err
}

// Hop asks a front to connect with a Space peer and returns the status.
func (c *Client) Hop(ctx context.Context, front peer.ID, space []byte) (hop.Status, error) {
	id := hop.Peer{Id: space}
	b, err := proto.Marshal(&hop.HopMessage{Type: hop.HopMessage_CONNECT.Enum(), Peer: &id})
	if err != nil {
		return 0, err
	}
	answer, err := c.HopRaw(ctx, front, Frame(b))
	if err != nil {
		return 0, err
	}
	var m hop.HopMessage
	if err := proto.Unmarshal(answer, &m); err != nil {
		return 0, err
	}
	if m.GetType() != hop.HopMessage_STATUS || len(answer) > 8 {
		return 0, fmt.Errorf("answer of %d bytes and type %s", len(answer), m.GetType())
	}
	return m.GetStatus(), nil
}

// HopRaw sends bytes instead of a CONNECT and returns the frame that comes back.
func (c *Client) HopRaw(ctx context.Context, front peer.ID, raw []byte) ([]byte, error) {
	s, err := c.NewStream(ctx, front, "/libp2p/circuit/relay/0.2.0/hop")
	if err != nil {
		return nil, err
	}
	defer s.Reset() //nolint:errcheck // over
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if _, err := s.Write(raw); err != nil && !errors.Is(err, network.ErrReset) {
		return nil, err
	}
	b, err := ReadFrame(s, 1<<10)
	if errors.Is(err, network.ErrReset) {
		err = io.EOF
	}
	return b, err
}
