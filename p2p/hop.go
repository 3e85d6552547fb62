package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/util"
)

// hopProtocol is the dialer's half of circuit v2. The other half, between a
// relay and the peer behind it, is a function call here.
const hopProtocol = "/libp2p/circuit/relay/0.2.0/hop"

// handleHop answers one hop request. Nothing but CONNECT is served; a Space
// peer that is unknown, asleep or refused is always NO_RESERVATION.
func (f *Front) handleHop(ctx context.Context, s network.Stream) {
	_ = s.SetDeadline(time.Now().Add(hopTimeout))
	rd := util.NewDelimitedReader(s, hopMessage)
	defer rd.Close()
	var req pb.HopMessage
	if err := rd.ReadMsg(&req); err != nil {
		_ = s.Reset()
		return
	}
	if req.GetType() != pb.HopMessage_CONNECT {
		f.hopRefuse(s, pb.Status_PERMISSION_DENIED)
		return
	}
	dst, err := util.PeerToPeerInfoV2(req.GetPeer())
	if err != nil {
		f.hopRefuse(s, pb.Status_MALFORMED_MESSAGE)
		return
	}
	remote := s.Conn().RemotePeer()
	if !f.admits(remote) {
		f.hopRefuse(s, noReservation)
		return
	}
	if f.relay(ctx, s, dst.ID) {
		return
	}
	if p := f.elsewhere(dst.ID); p != nil {
		f.pass(ctx, p, s, dst.ID)
		return
	}
	f.takeIn(ctx, s, callerOf(s.Conn()), dst.ID)
}

const noReservation = pb.Status_NO_RESERVATION

// takeIn answers a CONNECT that names a Space peer.
func (f *Front) takeIn(ctx context.Context, s network.Stream, by Caller, space peer.ID) {
	remote := by.Front
	p := f.find(ctx, by, space)
	if p == nil {
		f.hopRefuse(s, noReservation)
		return
	}
	slot, ok := p.transport.slot()
	if !ok {
		f.hopRefuse(s, noReservation)
		return
	}
	arrived, ok := p.arrive(remote)
	if !ok {
		slot()
		_ = s.SetDeadline(time.Now().Add(hopTimeout))
		f.hopAnswer(s, noReservation)
		return
	}
	secured := func() { slot(); arrived() }
	// Without a Limit the dialer takes the connection for a full one.
	if err := hopStatus(s, pb.Status_OK); err != nil {
		secured()
		_ = s.Reset()
		return
	}
	_ = s.SetDeadline(time.Time{})
	unhold := f.hold(remote)
	c := newRawConn(s, throughFront(remote), s.Reset, func() { secured(); unhold() })
	c.secured = secured
	if !p.transport.deliver(c) {
		_ = c.Close()
	}
}

func (f *Front) hopRefuse(s network.Stream, st pb.Status) {
	f.refused("circuit")
	f.hopAnswer(s, st)
}

// hopAnswer ends a hop stream with a status.
func (f *Front) hopAnswer(s network.Stream, st pb.Status) {
	if err := hopStatus(s, st); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func hopStatus(s network.Stream, st pb.Status) error {
	return util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{Type: pb.HopMessage_STATUS.Enum(), Status: st.Enum()})
}

// openHop opens a stream to space through a remote front. The front's
// addresses are taken from the peerstore. What is written goes out behind the
// CONNECT, before the front has answered it; whether it refuses is told by the
// first Read. Nothing waits for identify: every front speaks the protocol.
func (f *Front) openHop(ctx context.Context, front, space peer.ID) (network.Stream, error) {
	s, err := f.hopTo(ctx, front)
	if err != nil {
		return nil, err
	}
	h := &hopStream{Stream: s, front: front, space: space}
	if err = h.connect(); err == nil {
		return h, nil
	}
	_ = s.Reset()
	return nil, fmt.Errorf("front %s: %w: %w", front, ErrUnreachable, err)
}

// hopTo opens a stream for a CONNECT.
func (f *Front) hopTo(ctx context.Context, front peer.ID) (network.Stream, error) {
	if !f.admits(front) {
		return nil, fmt.Errorf("front %s is not admitted: %w", front, ErrUnreachable)
	}
	if f.link != nil {
		return f.link.stream(ctx, peer.AddrInfo{ID: front, Addrs: f.host.Peerstore().Addrs(front)}, hopProtocol)
	}
	if _, err := f.swarm.DialPeer(ctx, front); err != nil {
		return nil, fmt.Errorf("front %s: %w: %w", front, ErrUnreachable, err)
	}
	s, err := f.swarm.NewStream(network.WithNoDial(ctx, "dialed above"), front)
	if err != nil {
		return nil, fmt.Errorf("front %s: %w: %w", front, ErrUnreachable, err)
	}
	if err = s.SetProtocol(hopProtocol); err == nil {
		return newLazyStream(s, hopProtocol), nil
	}
	_ = s.Reset()
	return nil, fmt.Errorf("front %s: %w: %w", front, ErrUnreachable, err)
}

// hopStream is a stream behind a CONNECT that may not be answered yet. One goroutine reads it.
type hopStream struct {
	network.Stream
	front, space peer.ID
	answered     bool
}

func (s *hopStream) connect() error {
	_ = s.SetWriteDeadline(time.Now().Add(hopTimeout))
	err := util.NewDelimitedWriter(s).WriteMsg(&pb.HopMessage{
		Type: pb.HopMessage_CONNECT.Enum(),
		Peer: util.PeerInfoToPeerV2(peer.AddrInfo{ID: s.space}),
	})
	return errors.Join(err, s.SetWriteDeadline(time.Time{}))
}

func (s *hopStream) Read(b []byte) (int, error) {
	if !s.answered {
		if err := s.answer(); err != nil {
			return 0, fmt.Errorf("front %s: %w: %w", s.front, ErrUnreachable, err)
		}
		s.answered = true
	}
	return s.Stream.Read(b)
}

func (s *hopStream) answer() error {
	rd := util.NewDelimitedReader(s.Stream, hopMessage)
	defer rd.Close()
	var rep pb.HopMessage
	if err := rd.ReadMsg(&rep); err != nil {
		return err
	}
	if rep.GetType() != pb.HopMessage_STATUS {
		return errors.New("unexpected hop message")
	}
	if st := rep.GetStatus(); st != pb.Status_OK {
		return fmt.Errorf("refuses %s (%s)", s.space, st)
	}
	return nil
}
