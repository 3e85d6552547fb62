package replication

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const helloTimeout = 10 * time.Second

// helloTag binds a handshake to the Space, the connection's two peers, both nonces, and what the side tells of itself.
// Only who knows the Space id can make it.
func helloTag(space tinycloud.SpaceID, dialer, responder peer.ID, ours *wire.Nonces, role string, told []byte) (tag [32]byte) {
	key := tinycloud.Sum([]byte(space.String()))
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	parts := [][]byte{
		[]byte(ours.Version[1:]), []byte(dialer), []byte(responder), ours.Dialer[:], ours.Responder[:], []byte(role),
	}
	if ours.Version != wire.FirstHello {
		digest := tinycloud.Sum(told)
		parts = append(parts, digest[:])
	}
	for _, part := range parts {
		_, _ = h.Write(part) // a hasher returns no error
	}
	h.Sum(tag[:0])
	return tag
}

// ServeHello answers the handshake of a peer that dialed. Until the peer has proven that it is a host of
// the Space it learns nothing but a nonce, and no refusal tells why. ctx has to end with the connection.
func (r *Replica) ServeHello(ctx context.Context, s network.Stream) {
	select {
	case <-r.started:
	case <-r.stopped:
		_ = s.Reset()
		return
	case <-ctx.Done():
		_ = s.Reset()
		return
	}
	id := s.Conn().RemotePeer()
	if err := r.answerHello(ctx, s, id); err != nil {
		_ = s.Reset()
		r.o.Metrics.refuse("hello")
		r.log.InfoContext(ctx, "refused peer", "peer", id, "error", err)
		return
	}
	_ = s.Close()
}

func (r *Replica) answerHello(ctx context.Context, s network.Stream, id peer.ID) error {
	g, stop, err := r.greeting(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	hs := &wire.Nonces{Version: g.Version, Responder: wire.NewNonce()}
	if err := g.SendNonce(hs.Responder); err != nil {
		return err
	}
	theirs, err := g.ReceiveProof()
	if err != nil {
		return err
	}
	hs.Dialer = theirs.Nonce
	proven, err := r.verifyProof(ctx, id, g, theirs, helloTag(r.space, id, r.self, hs, wire.RoleDialer, theirs.Told))
	if err != nil {
		return err
	}
	ours, err := r.ownProof(ctx, g)
	if err != nil {
		return err
	}
	ours.Nonce, ours.Tag = hs.Responder, helloTag(r.space, id, r.self, hs, wire.RoleAnswerer, ours.Told)
	// The dialer uses the connection as soon as it has the answer.
	r.admit(id, proven)
	return g.SendProof(ours)
}

// sayHello runs the handshake as the dialer, which knows the Space and whom it called.
func (r *Replica) sayHello(ctx context.Context, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	s, err := r.net.Peer.NewStream(ctx, id, wire.HelloProtocols()...)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	g, stop, err := r.greeting(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	ours, err := r.ownProof(ctx, g)
	if err != nil {
		return err
	}
	hs := &wire.Nonces{Version: g.Version, Dialer: wire.NewNonce()}
	if hs.Responder, err = g.ReceiveNonce(); err != nil {
		return err
	}
	ours.Nonce, ours.Tag = hs.Dialer, helloTag(r.space, r.self, id, hs, wire.RoleDialer, ours.Told)
	if err := g.SendProof(ours); err != nil {
		return err
	}
	theirs, err := g.ReceiveProof()
	if err != nil {
		return fmt.Errorf("refused, the reason is in the other side's log: %v: %w", err, tinycloud.ErrUnauthorized)
	}
	if theirs.Nonce != hs.Responder {
		return fmt.Errorf("proof of another handshake: %w", tinycloud.ErrForged)
	}
	proven, err := r.verifyProof(ctx, id, g, theirs, helloTag(r.space, r.self, id, hs, wire.RoleAnswerer, theirs.Told))
	if err != nil {
		return err
	}
	r.net.Peer.AuthorisedBy(id)
	r.admit(id, proven)
	return nil
}

// ownProof is what this side shows, but for the nonce and the tag.
func (r *Replica) ownProof(ctx context.Context, g *wire.Greeting) (*wire.OwnProof, error) {
	chain, err := r.o.Store.HostChain(ctx, r.space)
	if err != nil {
		return nil, fmt.Errorf("own host delegation: %w", err)
	}
	p := &wire.OwnProof{Chain: chain}
	if g.Tells() {
		p.Told, err = wire.EncodeTold(r.o.Hello)
	}
	return p, err
}

// proven is what a peer has shown.
type proven struct {
	expires time.Time // of its delegation; zero: never
	hello   hostlog.Hello
}

func (r *Replica) verifyProof(ctx context.Context, id peer.ID, g *wire.Greeting, p *wire.OwnProof, want [32]byte) (is proven, err error) {
	host, err := wire.HostOf(id)
	switch {
	case err != nil:
		return is, err
	case subtle.ConstantTimeCompare(p.Tag[:], want[:]) != 1:
		return is, fmt.Errorf("tag is of another space or connection: %w", tinycloud.ErrForged)
	case id == r.self:
		return is, fmt.Errorf("peer has this node's own key: %w", tinycloud.ErrInvalid)
	case r.offences.banned(host):
		return is, fmt.Errorf("host was cut off for what it sent: %w", tinycloud.ErrForbidden)
	case len(p.Chain) == 0 || len(p.Chain) > hostlog.MaxChain:
		return is, fmt.Errorf("chain of %d tokens: %w", len(p.Chain), tinycloud.ErrInvalid)
	}
	if g.Tells() {
		if is.hello, err = wire.DecodeTold(p.Told); err != nil {
			return is, err
		}
	}
	is.expires, err = r.o.Store.VerifyHost(ctx, r.space, host, p.Chain)
	return is, err
}

// greeting bounds a handshake's stream in bytes and time; stop ends the watch over ctx.
func (r *Replica) greeting(ctx context.Context, s network.Stream) (_ *wire.Greeting, stop func() bool, err error) {
	h, stop, err := wire.Bound(ctx, s, wire.MaxHello, helloTimeout, r.o.Metrics.Bytes("hello"))
	return &wire.Greeting{Exchange: h, Version: s.Protocol()}, stop, err
}
