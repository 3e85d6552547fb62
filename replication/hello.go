package replication

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

const (
	helloTimeout = 10 * time.Second
	roleDialer   = "dialer"
	roleAnswerer = "responder"
)

// helloTag binds a handshake to the Space, the connection's two peers, both nonces, and what the side tells of itself.
// Only who knows the Space id can make it.
func helloTag(space tinycloud.SpaceID, dialer, responder peer.ID, ours *handshake, role string, told []byte) (tag [32]byte) {
	key := tinycloud.Sum([]byte(space.String()))
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	parts := [][]byte{
		[]byte(ours.version[1:]), []byte(dialer), []byte(responder), ours.dialer[:], ours.responder[:], []byte(role),
	}
	if ours.version != FirstHello {
		digest := tinycloud.Sum(told)
		parts = append(parts, digest[:])
	}
	for _, part := range parts {
		_, _ = h.Write(part) // a hasher returns no error
	}
	h.Sum(tag[:0])
	return tag
}

// handshake holds the version and the nonces of one run.
type handshake struct {
	version           protocol.ID
	dialer, responder [32]byte
}

func nonce() (n [32]byte) {
	_, _ = rand.Read(n[:]) // never fails
	return n
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
	hs := &handshake{version: g.version, responder: nonce()}
	if err := g.sendNonce(hs.responder); err != nil {
		return err
	}
	theirs, err := g.receiveProof()
	if err != nil {
		return err
	}
	hs.dialer = theirs.nonce
	proven, err := r.verifyProof(ctx, id, g, theirs, helloTag(r.space, id, r.self, hs, roleDialer, theirs.told))
	if err != nil {
		return err
	}
	ours, err := r.ownProof(ctx, g)
	if err != nil {
		return err
	}
	ours.nonce, ours.tag = hs.responder, helloTag(r.space, id, r.self, hs, roleAnswerer, ours.told)
	// The dialer uses the connection as soon as it has the answer.
	r.admit(id, proven)
	return g.sendProof(ours)
}

// sayHello runs the handshake as the dialer, which knows the Space and whom it called.
func (r *Replica) sayHello(ctx context.Context, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	s, err := r.net.Peer.NewStream(ctx, id, HelloProtocols()...)
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
	hs := &handshake{version: g.version, dialer: nonce()}
	if hs.responder, err = g.receiveNonce(); err != nil {
		return err
	}
	ours.nonce, ours.tag = hs.dialer, helloTag(r.space, r.self, id, hs, roleDialer, ours.told)
	if err := g.sendProof(ours); err != nil {
		return err
	}
	theirs, err := g.receiveProof()
	if err != nil {
		return fmt.Errorf("refused, the reason is in the other side's log: %v: %w", err, tinycloud.ErrUnauthorized)
	}
	if theirs.nonce != hs.responder {
		return fmt.Errorf("proof of another handshake: %w", tinycloud.ErrForged)
	}
	proven, err := r.verifyProof(ctx, id, g, theirs, helloTag(r.space, r.self, id, hs, roleAnswerer, theirs.told))
	if err != nil {
		return err
	}
	r.net.Peer.AuthorisedBy(id)
	r.admit(id, proven)
	return nil
}

// ownProof is what this side shows, but for the nonce and the tag.
func (r *Replica) ownProof(ctx context.Context, g *greeting) (*proof, error) {
	chain, err := r.o.Store.HostChain(ctx, r.space)
	if err != nil {
		return nil, fmt.Errorf("own host delegation: %w", err)
	}
	p := &proof{chain: chain}
	if g.tells() {
		p.told, err = encodeTold(r.o.Hello)
	}
	return p, err
}

// proven is what a peer has shown.
type proven struct {
	expires time.Time // of its delegation; zero: never
	hello   hostlog.Hello
}

func (r *Replica) verifyProof(ctx context.Context, id peer.ID, g *greeting, p *proof, want [32]byte) (is proven, err error) {
	host, err := hostOf(id)
	switch {
	case err != nil:
		return is, err
	case subtle.ConstantTimeCompare(p.tag[:], want[:]) != 1:
		return is, fmt.Errorf("tag is of another space or connection: %w", tinycloud.ErrForged)
	case id == r.self:
		return is, fmt.Errorf("peer has this node's own key: %w", tinycloud.ErrInvalid)
	case r.offences.banned(host):
		return is, fmt.Errorf("host was cut off for what it sent: %w", tinycloud.ErrForbidden)
	case len(p.chain) == 0 || len(p.chain) > hostlog.MaxChain:
		return is, fmt.Errorf("chain of %d tokens: %w", len(p.chain), tinycloud.ErrInvalid)
	}
	if g.tells() {
		if is.hello, err = decodeTold(p.told); err != nil {
			return is, err
		}
	}
	is.expires, err = r.o.Store.VerifyHost(ctx, r.space, host, p.chain)
	return is, err
}

// greeting bounds a handshake's stream in bytes and time; stop ends the watch over ctx.
func (r *Replica) greeting(ctx context.Context, s network.Stream) (_ *greeting, stop func() bool, err error) {
	h, stop, err := boundStream(ctx, s, helloTimeout, r.o.Metrics.bytes("hello"))
	return &greeting{h, s.Protocol()}, stop, err
}

func boundStream(ctx context.Context, s network.Stream, limit time.Duration, count func(in, out int)) (*helloStream, func() bool, error) {
	if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	return &helloStream{newFramer(s, maxHelloFrame, limit, count)}, stop, nil
}

type helloStream struct{ f *framer }

func (h *helloStream) send(v any) error {
	b, err := wire.encode(v)
	if err != nil {
		return err
	}
	if len(b) > maxHelloFrame {
		return fmt.Errorf("proof of %d bytes: %w", len(b), tinycloud.ErrTooLarge)
	}
	return h.f.write(b)
}

func (h *helloStream) receive(v any) error {
	b, err := h.f.read()
	if err != nil {
		return err
	}
	return wire.decode(b, v)
}

// hostOf returns the Space key inside a peer ID.
func hostOf(id peer.ID) (hostlog.Key, error) {
	raw := []byte(id)
	// An Ed25519 key is its own peer ID: the identity multihash of a protobuf of type and 32 bytes.
	prefix := []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}
	if len(raw) != len(prefix)+32 || !bytes.HasPrefix(raw, prefix) {
		return hostlog.Key{}, fmt.Errorf("peer %s has no ed25519 key: %w", id, tinycloud.ErrInvalid)
	}
	return hostlog.Key(raw[len(prefix):]), nil
}

// peerOf is the peer ID of a Space key.
func peerOf(host hostlog.Key) peer.ID {
	return peer.ID(append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, host[:]...))
}
