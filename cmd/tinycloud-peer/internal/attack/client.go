package attack

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Client is one attacker. Its key is both its peer ID and, when an owner delegates to it, its host of a Space.
type Client struct {
	host.Host
	Key  ed25519.PrivateKey
	Told *Transcript // what it was sent, on every stream of every connection
}

// New makes an attacker with a random key. The caller closes it.
func New() (*Client, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	told := &Transcript{}
	h, err := libp2p.New(libp2p.Identity(id), libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, recorder{yamux.DefaultTransport, told}),
		libp2p.EnableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return nil, err
	}
	return &Client{h, key, told}, nil
}

// HostKey is the key as hosts of a Space have it.
func (c *Client) HostKey() hostlog.Key {
	return hostlog.Key(c.Key.Public().(ed25519.PublicKey))
}

// Dial connects with a Space peer at its full address and returns its ID.
func (c *Client) Dial(ctx context.Context, addr string) (peer.ID, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return "", err
	}
	return info.ID, c.Connect(ctx, *info)
}

// Hang closes all connections with a peer.
func (c *Client) Hang(id peer.ID) { _ = c.Network().ClosePeer(id) }

// Gone reports whether the peer closed its connections.
func (c *Client) Gone(id peer.ID) bool { return c.Network().Connectedness(id) != network.Connected }

// Proof is how the dialer of a handshake answers the responder's nonce: the frame to send, nil for silence.
type Proof func(dialer, responder peer.ID, nonce [32]byte) []byte

// Prove returns the proof of an honest dialer for a Space, with a chain of tokens.
func Prove(space tinycloud.SpaceID, chain ...[]byte) Proof {
	return func(dialer, responder peer.ID, theirs [32]byte) []byte {
		var ours [32]byte
		_, _ = rand.Read(ours[:]) // never fails
		return proofFrame(ours, Tag(space, dialer, responder, ours, theirs, "dialer"), chain)
	}
}

// ErrRefused says that a handshake was ended by the other side without an answer.
var ErrRefused = errors.New("refused")

// Hello runs a handshake with a connected Space peer. The error is [ErrRefused] when nothing came after the nonce;
// and says how the stream ended; answer is what came.
func (c *Client) Hello(ctx context.Context, id peer.ID, proof Proof) (answer []byte, err error) {
	s, err := c.NewStream(ctx, id, HelloProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset() //nolint:errcheck // over
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	first, err := ReadFrame(s, 1<<10)
	if err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	nonce, err := nonceOf(first)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(proof(c.ID(), id, nonce)); err != nil {
		return nil, err
	}
	answer, err = io.ReadAll(s)
	if len(answer) == 0 {
		return nil, fmt.Errorf("%w: %v", ErrRefused, err)
	}
	return answer, nil // how the stream ends is the other side's affair
}

// Speaks reports whether a Space peer agrees to a protocol.
func (c *Client) Speaks(ctx context.Context, id peer.ID, proto protocol.ID) bool {
	s, err := c.NewStream(ctx, id, proto)
	if err != nil {
		return false
	}
	_ = s.Reset()
	return true
}

// Transcript is what a client was sent.
type Transcript struct {
	mu    sync.Mutex
	bytes bytes.Buffer // guarded by mu
}

// maxTranscript keeps a flood from filling the test's memory.
const maxTranscript = 64 << 20

func (t *Transcript) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bytes.Len()+len(b) <= maxTranscript {
		t.bytes.Write(b)
	}
}

// Len is how many bytes came.
func (t *Transcript) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes.Len()
}

// Holds returns those of some secrets, by name, of which the bytes, or the bytes of their text in any case, came.
func (t *Transcript) Holds(secrets map[string][]byte) (found []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lower := strings.ToLower(t.bytes.String())
	for name, secret := range secrets {
		if bytes.Contains(t.bytes.Bytes(), secret) || strings.Contains(lower, strings.ToLower(string(secret))) {
			found = append(found, name)
		}
	}
	return found
}

// recorder is a stream multiplexer that writes down what its streams bring.
type recorder struct {
	network.Multiplexer
	told *Transcript
}

func (r recorder) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	m, err := r.Multiplexer.NewConn(c, server, scope)
	if err != nil {
		return nil, err
	}
	return recordedConn{m, r.told}, nil
}

type recordedConn struct {
	network.MuxedConn
	told *Transcript
}

func (c recordedConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.MuxedConn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return recordedStream{s, c.told}, nil
}

func (c recordedConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.MuxedConn.AcceptStream()
	if err != nil {
		return nil, err
	}
	return recordedStream{s, c.told}, nil
}

type recordedStream struct {
	network.MuxedStream
	told *Transcript
}

func (s recordedStream) Read(b []byte) (int, error) {
	n, err := s.MuxedStream.Read(b)
	s.told.add(b[:n])
	return n, err
}
