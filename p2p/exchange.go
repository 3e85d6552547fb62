package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// exchange is the bitswap of one Space. An idle one would keep seven
// goroutines and a ticker, so it runs only from a fetch, or a message of a peer,
// until there was neither for a while, no peer waits for a block, and the last
// block, which nobody waits for once its sending began, is sent.
//
// Streams that peers opened outlive it: their next message starts it again.
// Those that it opened end with it.
type exchange struct {
	p *Peer

	mu     sync.Mutex
	now    *engine // guarded by mu; nil while it rests
	closed bool    // guarded by mu

	resting sync.WaitGroup // engines that are being closed; Add under mu while not closed
}

// engine is one run of bitswap.
type engine struct {
	*bitswap.Bitswap
	host *blockHost

	// Guarded by exchange.mu:
	users int
	quiet bool        // no peer waited for a block when it was last looked at
	timer *time.Timer // to the next look, while there are no users
}

// newExchange returns the exchange of a Peer, with which ctx ends.
func newExchange(ctx context.Context, p *Peer) *exchange {
	x := &exchange{p: p}
	p.view.SetStreamHandler(blockPrefix+bsnet.ProtocolBitswap, func(s network.Stream) { x.serve(ctx, s) })
	return x
}

// enter starts bitswap, or keeps it running until leave is called, once.
func (x *exchange) enter(ctx context.Context) (e *engine, leave func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, nil, fmt.Errorf("blocks of %s: %w", x.p.id, ErrClosed)
	}
	if x.now == nil {
		x.now = x.start(ctx)
	}
	e = x.now
	e.timer.Stop()
	e.users++
	e.quiet = false
	return e, func() { x.leave(e) }, nil
}

func (x *exchange) leave(e *engine) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.users--; e.users == 0 && !x.closed {
		e.timer.Reset(blocksIdle)
	}
}

// start begins a run, which outlives the one who starts it. x.mu is held.
func (x *exchange) start(ctx context.Context) *engine {
	e := &engine{host: &blockHost{view: x.p.view, net: &blockNetwork{gatedNetwork: x.p.view.net}}}
	e.timer = time.AfterFunc(blocksIdle, func() { x.look(e) })
	// Nobody comes or goes between bitswap's look at the peers and what it is
	// told of them.
	x.p.transition.Lock()
	defer x.p.transition.Unlock()
	e.Bitswap = newBitswap(context.WithoutCancel(ctx), x.p, e.host)
	return e
}

// look ends a run that two looks in a row found idle.
func (x *exchange) look(e *engine) {
	x.mu.Lock()
	if x.now != e || x.closed || e.users > 0 {
		x.mu.Unlock()
		return
	}
	idle := !slices.ContainsFunc(x.p.Authorised(), func(id peer.ID) bool { return len(e.WantlistForPeer(id)) > 0 })
	if !idle || !e.quiet {
		e.quiet = idle
		e.timer.Reset(blocksIdle)
		x.mu.Unlock()
		return
	}
	x.now = nil
	x.resting.Add(1)
	x.mu.Unlock()
	defer x.resting.Done()
	e.timer.Stop()
	_ = e.Close() // always nil
}

// close ends it for good.
func (x *exchange) close() error {
	x.mu.Lock()
	x.closed = true
	e := x.now
	x.mu.Unlock()
	x.resting.Wait()
	if e == nil {
		return nil
	}
	e.timer.Stop()
	return e.Close()
}

// serve reads the messages of one stream.
func (x *exchange) serve(ctx context.Context, s network.Stream) {
	for {
		m, _, err := message.FromNet(s)
		if err == nil {
			err = x.receive(ctx, s.Conn(), m)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			err = s.Close()
		default:
			err = s.Reset()
		}
		if err != nil {
			x.p.log.DebugContext(ctx, "stream of blocks not closed", "error", err)
		}
		return
	}
}

func (x *exchange) receive(ctx context.Context, from network.Conn, m message.BitSwapMessage) error {
	e, leave, err := x.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	e.host.heard(from)
	e.ReceiveMessage(ctx, from.RemotePeer(), m)
	return nil
}

// blockHost is the view as an engine gets it: streams that peers open go to
// the exchange instead.
type blockHost struct {
	*view
	net *blockNetwork
}

var _ host.Host = (*blockHost)(nil)

func (h *blockHost) Network() network.Network                            { return h.net }
func (h *blockHost) SetStreamHandler(protocol.ID, network.StreamHandler) {}

// heard tells bitswap that a peer answers, which it may have given up.
func (h *blockHost) heard(from network.Conn) {
	if h.view.p.IsAuthorised(from.RemotePeer()) {
		h.net.subscriber.Connected(h.net, from)
	}
}

// blockNetwork keeps who subscribed through it.
type blockNetwork struct {
	*gatedNetwork
	subscriber network.Notifiee
}

func (n *blockNetwork) Notify(s network.Notifiee) {
	n.subscriber = s
	n.gatedNetwork.Notify(s)
}
