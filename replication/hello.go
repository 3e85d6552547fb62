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
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

const (
	helloTimeout = 10 * time.Second
	roleDialer   = "dialer"
	roleAnswerer = "responder"
)

// helloTag binds a handshake to the Space, the connection's two peers and both nonces. Only who knows the
// Space id can make it.
func helloTag(space tinycloud.SpaceID, dialer, responder peer.ID, ours *handshake, role string) (tag [32]byte) {
	key := tinycloud.Sum([]byte(space.String()))
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	for _, part := range [][]byte{
		[]byte(HelloProtocol[1:]), []byte(dialer), []byte(responder), ours.dialer[:], ours.responder[:], []byte(role),
	} {
		_, _ = h.Write(part) // a hasher returns no error
	}
	h.Sum(tag[:0])
	return tag
}

// handshake holds the nonces of one run.
type handshake struct{ dialer, responder [32]byte }

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
	f, stop, err := r.helloFramer(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	hs := &handshake{responder: nonce()}
	if err := f.send(nonceMessage{Nonce: hs.responder}); err != nil {
		return err
	}
	var theirs proofMessage
	if err := f.receive(&theirs); err != nil {
		return err
	}
	hs.dialer = theirs.Nonce
	expires, err := r.verifyProof(ctx, id, &theirs, helloTag(r.space, id, r.self, hs, roleDialer))
	if err != nil {
		return err
	}
	chain, err := r.o.Store.HostChain(ctx, r.space)
	if err != nil {
		return fmt.Errorf("own host delegation: %w", err)
	}
	// The dialer uses the connection as soon as it has the answer.
	r.admit(id, expires)
	return f.send(proofMessage{
		Nonce: hs.responder, Tag: helloTag(r.space, id, r.self, hs, roleAnswerer), Chain: chain,
	})
}

// sayHello runs the handshake as the dialer, which knows the Space and whom it called.
func (r *Replica) sayHello(ctx context.Context, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	chain, err := r.o.Store.HostChain(ctx, r.space)
	if err != nil {
		return fmt.Errorf("own host delegation: %w", err)
	}
	s, err := r.net.Peer.NewStream(ctx, id, HelloProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	f, stop, err := r.helloFramer(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	var first nonceMessage
	if err := f.receive(&first); err != nil {
		return err
	}
	hs := &handshake{dialer: nonce(), responder: first.Nonce}
	err = f.send(proofMessage{Nonce: hs.dialer, Tag: helloTag(r.space, r.self, id, hs, roleDialer), Chain: chain})
	if err != nil {
		return err
	}
	var theirs proofMessage
	if err := f.receive(&theirs); err != nil {
		return fmt.Errorf("refused, the reason is in the other side's log: %v: %w", err, tinycloud.ErrUnauthorized)
	}
	if theirs.Nonce != hs.responder {
		return fmt.Errorf("proof of another handshake: %w", tinycloud.ErrForged)
	}
	expires, err := r.verifyProof(ctx, id, &theirs, helloTag(r.space, r.self, id, hs, roleAnswerer))
	if err != nil {
		return err
	}
	r.net.Peer.AuthorisedBy(id)
	r.admit(id, expires)
	return nil
}

func (r *Replica) verifyProof(ctx context.Context, id peer.ID, p *proofMessage, want [32]byte) (time.Time, error) {
	host, err := hostOf(id)
	switch {
	case err != nil:
		return time.Time{}, err
	case subtle.ConstantTimeCompare(p.Tag[:], want[:]) != 1:
		return time.Time{}, fmt.Errorf("tag is of another space or connection: %w", tinycloud.ErrForged)
	case id == r.self:
		return time.Time{}, fmt.Errorf("peer has this node's own key: %w", tinycloud.ErrInvalid)
	case r.offences.banned(host):
		return time.Time{}, fmt.Errorf("host was cut off for what it sent: %w", tinycloud.ErrForbidden)
	case len(p.Chain) == 0 || len(p.Chain) > maxChain:
		return time.Time{}, fmt.Errorf("chain of %d tokens: %w", len(p.Chain), tinycloud.ErrInvalid)
	}
	return r.o.Store.VerifyHost(ctx, r.space, host, p.Chain)
}

// helloFramer bounds a handshake's stream in bytes and time; stop ends the watch over ctx.
func (r *Replica) helloFramer(ctx context.Context, s network.Stream) (*helloStream, func() bool, error) {
	return boundStream(ctx, s, helloTimeout, r.o.Metrics.bytes("hello"))
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
func hostOf(id peer.ID) (capstore.HostKey, error) {
	raw := []byte(id)
	// An Ed25519 key is its own peer ID: the identity multihash of a protobuf of type and 32 bytes.
	prefix := []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}
	if len(raw) != len(prefix)+32 || !bytes.HasPrefix(raw, prefix) {
		return capstore.HostKey{}, fmt.Errorf("peer %s has no ed25519 key: %w", id, tinycloud.ErrInvalid)
	}
	return capstore.HostKey(raw[len(prefix):]), nil
}

// peerOf is the peer ID of a Space key.
func peerOf(host capstore.HostKey) peer.ID {
	return peer.ID(append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, host[:]...))
}
