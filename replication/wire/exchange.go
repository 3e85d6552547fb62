package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// What the two sides of a question are called in the tags that they make.
const (
	RoleDialer   = "dialer"
	RoleAnswerer = "responder"
)

// Nonces holds the version and the nonces of one run.
type Nonces struct {
	Version           protocol.ID
	Dialer, Responder [32]byte
}

// NewNonce makes a nonce.
func NewNonce() (n [32]byte) {
	_, _ = rand.Read(n[:]) // never fails
	return n
}

// Stream is what an exchange needs of one.
type Stream interface {
	io.ReadWriter
	Deadliner
	SetDeadline(time.Time) error
	Reset() error
}

// Exchange is a stream of a few frames each way, bounded in bytes and time.
type Exchange struct{ f *Framer }

// Bound makes an exchange of a stream, whose frames have at most so many bytes. stop ends the watch over ctx.
func Bound(ctx context.Context, s Stream, most int, limit time.Duration, count func(in, out int)) (x *Exchange, stop func() bool, err error) {
	if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, nil, err
	}
	stop = context.AfterFunc(ctx, func() { _ = s.Reset() })
	return &Exchange{NewFramer(s, most, limit, count)}, stop, nil
}

// Send writes a frame.
func (h *Exchange) Send(v any) error {
	b, err := Encode(v)
	if err != nil {
		return err
	}
	if len(b) > MaxHello {
		return fmt.Errorf("frame of %d bytes: %w", len(b), tinycloud.ErrTooLarge)
	}
	return h.f.Write(b)
}

// Receive reads the next frame.
func (h *Exchange) Receive(v any) error {
	b, err := h.f.Read()
	if err != nil {
		return err
	}
	return Decode(b, v)
}

// HostOf returns the Space key inside a peer ID.
func HostOf(id peer.ID) (hostlog.Key, error) {
	raw := []byte(id)
	// An Ed25519 key is its own peer ID: the identity multihash of a protobuf of type and 32 bytes.
	prefix := []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}
	if len(raw) != len(prefix)+32 || !bytes.HasPrefix(raw, prefix) {
		return hostlog.Key{}, fmt.Errorf("peer %s has no ed25519 key: %w", id, tinycloud.ErrInvalid)
	}
	return hostlog.Key(raw[len(prefix):]), nil
}

// PeerOf is the peer ID of a Space key.
func PeerOf(host hostlog.Key) peer.ID {
	return peer.ID(append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, host[:]...))
}
