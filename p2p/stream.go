package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// negotiate is the serving side of multistream-select.
type negotiate func(io.ReadWriteCloser) (protocol.ID, protocol.HandlerFunc, error)

// inbound serves one stream that a remote opened. Which protocols exist
// depends on whether its peer is authorised at this moment.
func (p *Peer) inbound(st network.Stream) {
	p.mu.Lock()
	s := p.conns[st.Conn()]
	if p.closed || s == nil || s.state == ended {
		p.mu.Unlock()
		_ = st.Reset()
		return
	}
	authorised := s.state == isAuthorised
	p.running.Add(1)
	p.mu.Unlock()
	defer p.running.Done()

	if authorised {
		p.serve(s, st, p.view.Mux().Negotiate)
		return
	}
	select {
	case s.streams <- struct{}{}:
	default:
		p.front.refused("stream")
		_ = st.Reset()
		return
	}
	defer func() { <-s.streams }()
	p.serve(s, st, p.probation.Negotiate)
}

func (p *Peer) serve(s *session, st network.Stream, choose negotiate) {
	_ = st.SetDeadline(time.Now().Add(negotiateTimeout))
	proto, handle, err := choose(st)
	if err != nil {
		p.front.refused("stream")
		_ = st.Reset()
		return
	}
	if err := st.SetProtocol(proto); err != nil { // over a limit
		_ = st.Reset()
		return
	}
	_ = st.SetDeadline(time.Time{})
	if !p.greets(proto) {
		s.markMutual() // its own gate let this stream pass
	}
	_ = handle(proto, st)
}

// hello runs the caller's handler with a context that ends with the session.
func (p *Peer) hello(ctx context.Context, st network.Stream) {
	p.mu.Lock()
	s := p.conns[st.Conn()]
	p.mu.Unlock()
	if s == nil {
		_ = st.Reset()
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	p.running.Go(func() { // Add is safe: inbound holds running above us
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	})
	defer cancel()
	p.o.Hello(ctx, st)
}

// openAuthorised opens a stream to an authorised peer, for the first of protos
// that it speaks.
func (p *Peer) openAuthorised(ctx context.Context, id peer.ID, protos ...protocol.ID) (network.Stream, error) {
	const first, most = 5 * time.Millisecond, 500 * time.Millisecond
	s := p.authorised(id)
	if s == nil {
		if p.Connected(id) {
			return nil, fmt.Errorf("space peer %s: %w", id, ErrNotAuthorised)
		}
		return nil, fmt.Errorf("space peer %s: %w", id, ErrNotConnected)
	}
	for wait := first; ; wait = min(2*wait, most) {
		// If the remote is known to have authorised us a refusal is final.
		certain := closed(s.mutual) || time.Now().After(s.deadline)
		st, err := p.openStream(ctx, s, protos...)
		if err == nil {
			s.markMutual()
			return st, nil
		}
		if certain || ctx.Err() != nil {
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.mutual:
		case <-s.done:
		case <-ctx.Done():
		}
		timer.Stop()
		if closed(s.done) {
			return nil, fmt.Errorf("space peer %s: %w", id, ErrNotConnected)
		}
	}
}

// openStream opens one stream on a connection of s and agrees on a protocol.
func (p *Peer) openStream(ctx context.Context, s *session, protos ...protocol.ID) (network.Stream, error) {
	st, err := p.bareStream(ctx, s)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	_ = st.SetDeadline(time.Now().Add(negotiateTimeout))
	proto, err := multistream.SelectOneOf(protos, st)
	if !stop() {
		return nil, fmt.Errorf("stream to %s: %w", s.id, ctx.Err())
	}
	if err == nil {
		err = st.SetProtocol(proto)
	}
	if err != nil {
		_ = st.Reset()
		return nil, fmt.Errorf("stream to %s: %w: %w", s.id, ErrNotAuthorised, err)
	}
	_ = st.SetDeadline(time.Time{})
	return st, nil
}

// openLazy opens a stream for a protocol that the remote is known to speak with this side.
func (p *Peer) openLazy(ctx context.Context, s *session, proto protocol.ID) (network.Stream, error) {
	st, err := p.bareStream(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := st.SetProtocol(proto); err != nil {
		_ = st.Reset()
		return nil, fmt.Errorf("stream to %s: %w: %w", s.id, ErrNotAuthorised, err)
	}
	return newLazyStream(st, proto), nil
}

// bareStream opens a stream on a connection of s.
func (p *Peer) bareStream(ctx context.Context, s *session) (network.Stream, error) {
	st, err := p.swarm.NewStream(network.WithNoDial(ctx, "space peers are dialed by Connect"), s.id)
	if err != nil {
		return nil, fmt.Errorf("stream to %s: %w: %w", s.id, ErrNotConnected, err)
	}
	p.mu.Lock()
	ours := p.conns[st.Conn()] == s && s.state != ended
	p.mu.Unlock()
	if !ours { // the peer came back in the meantime and is in probation
		_ = st.Reset()
		return nil, fmt.Errorf("stream to %s: %w", s.id, ErrNotConnected)
	}
	return st, nil
}

// lazyStream is a stream whose protocol is agreed on while it is used: what is written does not wait for the other
// side's answer. A refusal is told by Read.
type lazyStream struct {
	network.Stream
	proto protocol.ID
	rw    multistream.LazyConn
}

func newLazyStream(s network.Stream, proto protocol.ID) *lazyStream {
	return &lazyStream{Stream: s, proto: proto, rw: multistream.NewMSSelect(s, proto)}
}

func (s *lazyStream) Read(b []byte) (int, error) {
	n, err := s.rw.Read(b)
	if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
		err = fmt.Errorf("stream for %s: %w: %w", s.proto, ErrNotAuthorised, err)
	}
	return n, err
}

func (s *lazyStream) Write(b []byte) (int, error) { return s.rw.Write(b) }

// Close waits for the other side's answer, but not for ever.
func (s *lazyStream) Close() error {
	_ = s.SetReadDeadline(time.Now().Add(negotiateTimeout))
	return s.rw.Close()
}

func (s *lazyStream) CloseWrite() error {
	_ = s.rw.Flush() // what went wrong is told by Read
	return s.Stream.CloseWrite()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
