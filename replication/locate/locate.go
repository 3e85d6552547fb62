package locate

import (
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/crypto/chacha20poly1305"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

// Protocol is spoken between fronts.
const Protocol = "/tinycloud/where/1"

const (
	timeout = 10 * time.Second
	// RefusedAfter is when a question that is not answered ends, whatever was wrong with it.
	RefusedAfter = 250 * time.Millisecond
	roleSeal     = "seal"
)

// questionFrame and answerFrame are the frames of a question for a Space's peer; a [wire.Nonce] comes first. An answer of
// zeros says that there is none; askers that don't know it take it for one of another question.
type questionFrame struct {
	_      struct{} `cbor:",toarray"`
	Nonce  [32]byte
	Tag    [32]byte
	Sealed []byte // a proofFrame
}

type proofFrame struct {
	_     struct{} `cbor:",toarray"`
	Host  [32]byte
	Sig   [64]byte
	Chain [][]byte // the host's delegation and its proofs
}

type answerFrame struct {
	_    struct{} `cbor:",toarray"`
	Tag  [32]byte
	Host [32]byte // of the Space peer
}

// Metrics counts what questions cost.
type Metrics interface {
	// Bytes returns what counts the bytes of streams of a kind.
	Bytes(kind string) func(in, out int)
	// Refused counts a refusal.
	Refused(layer string)
}

// uncounted is nobody's [Metrics].
type uncounted struct{}

func (uncounted) Bytes(string) func(in, out int) { return func(int, int) {} }
func (uncounted) Refused(string)                 {}

// Locator asks other nodes which of their Space peers is the one of a Space, and answers them
// (/tinycloud/where/1). One serves all Spaces of a node.
//
//	responder → nonce; caller → nonce, tag, sealed proof; responder → tag, Space peer; or zeros, for none
//
// Both tags and the key of the seal follow from the secret of the Space, the two node peers and the two
// nonces. The secret is the digest of the Space id or, between nodes that found each other by it, the
// Space's rendezvous secret. Who does not know it learns nothing from either message; who does and is no host
// of the Space is told that there is none, at the same time and in the same way as if it were not there: whatever
// is wrong with a question, it gets the same bytes. That is the only no: a node that can't tell, because it starts or
// ends, just closes the stream, as those of older versions always do. The proof inside is a host delegation
// and a signature by the host it names over the same peers and nonces: a copy of it is of no use elsewhere.
//
// Source: docs/replication.md, "where/1" and "Rendezvous secret".
type Locator struct{ o Options }

// Options are all required, but Trusted, Ready, Log and Metrics.
type Options struct {
	Node   peer.ID                                    // of the node key
	Key    func(tinycloud.SpaceID) ed25519.PrivateKey // this node's key of a Space
	Spaces func() []tinycloud.SpaceID                 // hosted ones
	Store  interface {
		// Rendezvouses returns the rendezvous secrets of the Spaces that have one.
		Rendezvouses(ctx context.Context) (map[tinycloud.SpaceID]tinycloud.Hash, error)
		HostChain(ctx context.Context, space tinycloud.SpaceID) ([][]byte, error)
		VerifyHost(ctx context.Context, space tinycloud.SpaceID, host hostlog.Key, tokens [][]byte) (time.Time, error)
	}
	// Trusted names nodes that are told at once that there is none; nil: nobody.
	Trusted func(peer.ID) bool
	// Ready returns nil when Spaces names all that are hosted here. It is called before a question is denied.
	Ready   func(context.Context) error
	Metrics Metrics // nil: not counted
	Log     *slog.Logger
}

// New returns a locator.
func New(o Options) (*Locator, error) {
	if o.Node == "" || o.Key == nil || o.Spaces == nil || o.Store == nil {
		return nil, fmt.Errorf("locator without node, keys, spaces or store: %w", tinycloud.ErrInvalid)
	}
	if o.Metrics == nil {
		o.Metrics = uncounted{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Locator{o}, nil
}

// inquiry is what both sides of one question know but the secret.
type inquiry struct {
	caller, responder peer.ID
	hs                wire.Nonces
}

// digest stands for the run; every derived value has it inside.
func (w *inquiry) digest() tinycloud.Hash {
	b := []byte(Protocol[1:])
	for _, part := range [][]byte{[]byte(w.caller), []byte(w.responder), w.hs.Dialer[:], w.hs.Responder[:]} {
		b = append(append(b, byte(len(part))), part...)
	}
	return tinycloud.Sum(b)
}

// derive is the tag of a role, or the key of the seal. BLAKE3 of a secret and what follows it is a MAC, and
// a question is tried against all Spaces of a node.
func (w *inquiry) derive(secret, digest tinycloud.Hash, role string) [32]byte {
	var b [80]byte
	n := copy(b[:], secret[:])
	n += copy(b[n:], digest[:])
	n += copy(b[n:], role)
	return tinycloud.Sum(b[:n])
}

// signed is what the caller's Space key signs.
func (w *inquiry) signed(digest tinycloud.Hash) []byte {
	return append([]byte(Protocol[1:]), digest[:]...)
}

func secretOf(space tinycloud.SpaceID) tinycloud.Hash { return tinycloud.Sum([]byte(space.String())) }

// Serve answers one question on a stream that has a deadline.
func (l *Locator) Serve(ctx context.Context, s network.Stream) {
	began := time.Now()
	defer func() { _ = s.Reset() }()
	f, stop, err := l.framer(ctx, s)
	if err == nil {
		defer stop()
		err = l.answer(ctx, f, s.Conn().RemotePeer(), &began)
	}
	if err != nil {
		err = l.deny(ctx, f, s.Conn().RemotePeer(), err, began)
	}
	if err == nil {
		_ = s.Close()
	}
}

// deny tells a node that asked that its Space has no peer here, unless that is not known. cause is never told. began is
// when the question came.
func (l *Locator) deny(ctx context.Context, f *wire.Exchange, caller peer.ID, cause error, began time.Time) error {
	l.o.Metrics.Refused("where")
	l.o.Log.InfoContext(ctx, "question for a space refused", "node", caller, "error", cause)
	if !isDenial(cause) {
		return cause
	}
	if l.o.Ready != nil {
		if err := l.o.Ready(ctx); err != nil {
			return err
		}
	}
	if l.o.Trusted == nil || !l.o.Trusted(caller) {
		if !wait.For(ctx, RefusedAfter-time.Since(began)) {
			return ctx.Err()
		}
	}
	return f.Send(answerFrame{})
}

// isDenial tells what is wrong with a question from what is wrong with this node or the connection.
func isDenial(err error) bool {
	for _, class := range []error{
		tinycloud.ErrInvalid, tinycloud.ErrForged, tinycloud.ErrNotFound, tinycloud.ErrUnauthorized, tinycloud.ErrForbidden,
		tinycloud.ErrUndecodable, tinycloud.ErrUnsupported, tinycloud.ErrTooLarge,
	} {
		if errors.Is(err, class) {
			return !errors.Is(err, tinycloud.ErrUnavailable)
		}
	}
	return false
}

// answer reads a question and answers it. asked is set to when it came.
func (l *Locator) answer(ctx context.Context, f *wire.Exchange, caller peer.ID, asked *time.Time) error {
	run := &inquiry{caller: caller, responder: l.o.Node}
	run.hs.Responder = wire.NewNonce()
	if err := f.Send(wire.Nonce{Nonce: run.hs.Responder}); err != nil {
		return err
	}
	var q questionFrame
	err := f.Receive(&q)
	*asked = time.Now()
	if err != nil {
		return err
	}
	run.hs.Dialer = q.Nonce
	digest := run.digest()
	space, secret, err := l.match(ctx, run, digest, q.Tag)
	if err != nil {
		return err
	}
	if err := l.check(ctx, run, digest, space, secret, q.Sealed); err != nil {
		return err
	}
	return f.Send(answerFrame{
		Tag: run.derive(secret, digest, wire.RoleAnswerer), Host: [32]byte(l.o.Key(space).Public().(ed25519.PublicKey)),
	})
}

// match finds the hosted Space that a tag was made with.
func (l *Locator) match(ctx context.Context, run *inquiry, digest tinycloud.Hash, tag [32]byte) (found tinycloud.SpaceID, with tinycloud.Hash, err error) {
	secrets, err := l.o.Store.Rendezvouses(ctx)
	if err != nil {
		return found, with, err
	}
	err = fmt.Errorf("space is not here, or the tag is of another connection: %w", tinycloud.ErrNotFound)
	try := func(space tinycloud.SpaceID, secret tinycloud.Hash) {
		want := run.derive(secret, digest, wire.RoleDialer)
		if subtle.ConstantTimeCompare(want[:], tag[:]) == 1 {
			found, with, err = space, secret, nil
		}
	}
	for _, space := range l.o.Spaces() {
		try(space, secretOf(space))
	}
	for space, secret := range secrets {
		try(space, secret)
	}
	return found, with, err
}

// check opens a proof and verifies it.
func (l *Locator) check(ctx context.Context, run *inquiry, digest tinycloud.Hash, space tinycloud.SpaceID, secret tinycloud.Hash, sealed []byte) error {
	b, err := run.seal(secret, digest).Open(nil, make([]byte, chacha20poly1305.NonceSize), sealed, nil)
	if err != nil {
		return fmt.Errorf("sealed proof: %v: %w", err, tinycloud.ErrForged)
	}
	var p proofFrame
	if err := wire.Decode(b, &p); err != nil {
		return err
	}
	host := hostlog.Key(p.Host)
	switch {
	case wire.PeerOf(host) == wire.PeerOf(hostlog.Key(l.o.Key(space).Public().(ed25519.PublicKey))):
		return fmt.Errorf("the caller has this node's own key: %w", tinycloud.ErrInvalid)
	case len(p.Chain) == 0 || len(p.Chain) > hostlog.MaxChain:
		return fmt.Errorf("chain of %d tokens: %w", len(p.Chain), tinycloud.ErrInvalid)
	case !host.Signed(run.signed(digest), p.Sig):
		return fmt.Errorf("proof is not signed by %s: %w", host, tinycloud.ErrForged)
	}
	_, err = l.o.Store.VerifyHost(ctx, space, host, p.Chain)
	return err
}

// seal encrypts one message: its key is of one run.
func (w *inquiry) seal(secret, digest tinycloud.Hash) interface {
	Seal(dst, nonce, text, more []byte) []byte
	Open(dst, nonce, sealed, more []byte) ([]byte, error)
} {
	key := w.derive(secret, digest, roleSeal)
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	return aead
}

// Ask asks the node at the other end of a stream for its peer of a Space. private asks with the Space's
// rendezvous secret, so that a node without it can't even test a guess of the Space id; the error is of class
// [tinycloud.ErrNotFound] when there is none. [ErrNone] means that the Space is not there, or that this node is no
// host of it there; [tinycloud.ErrUnauthorized] without it that the node gave no answer: it may later.
func (l *Locator) Ask(ctx context.Context, s network.Stream, space tinycloud.SpaceID, private bool) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() { _ = s.Reset() }()
	secret := secretOf(space)
	if private {
		secrets, err := l.o.Store.Rendezvouses(ctx)
		if err != nil {
			return "", err
		}
		if secret = secrets[space]; secret.IsZero() {
			return "", fmt.Errorf("no rendezvous secret yet: %w", tinycloud.ErrNotFound)
		}
	}
	f, stop, err := l.framer(ctx, s)
	if err != nil {
		return "", err
	}
	defer stop()
	var first wire.Nonce
	if err := f.Receive(&first); err != nil {
		return "", noAnswer(err)
	}
	run := &inquiry{
		caller: l.o.Node, responder: s.Conn().RemotePeer(), hs: wire.Nonces{Dialer: wire.NewNonce(), Responder: first.Nonce},
	}
	digest := run.digest()
	q, err := l.question(ctx, run, digest, space, secret)
	if err != nil {
		return "", err
	}
	if err := f.Send(q); err != nil {
		return "", noAnswer(err)
	}
	var a answerFrame
	if err := f.Receive(&a); err != nil {
		return "", noAnswer(err)
	}
	if a == (answerFrame{}) {
		return "", ErrNone
	}
	want := run.derive(secret, digest, wire.RoleAnswerer)
	if subtle.ConstantTimeCompare(want[:], a.Tag[:]) != 1 {
		return "", fmt.Errorf("answer of another question: %w", tinycloud.ErrForged)
	}
	return wire.PeerOf(a.Host), nil
}

// ErrNone is a node's word that it has no peer of a Space, or does not take the asking one for a host of it.
var ErrNone = fmt.Errorf("the node has no part in the space, or does not know this one as its host: %w", tinycloud.ErrUnauthorized)

func noAnswer(err error) error {
	if errors.Is(err, tinycloud.ErrInvalid) {
		return err
	}
	return fmt.Errorf("the node gives no answer: the space is not there, or its log has the reason: %v: %w", err, tinycloud.ErrUnauthorized)
}

func (l *Locator) question(ctx context.Context, run *inquiry, digest tinycloud.Hash, space tinycloud.SpaceID, secret tinycloud.Hash) (questionFrame, error) {
	chain, err := l.o.Store.HostChain(ctx, space)
	if err != nil {
		return questionFrame{}, fmt.Errorf("own host delegation: %w", err)
	}
	key := l.o.Key(space)
	proof, err := wire.Encode(proofFrame{
		Host: [32]byte(key.Public().(ed25519.PublicKey)), Sig: [64]byte(ed25519.Sign(key, run.signed(digest))), Chain: chain,
	})
	if err != nil {
		return questionFrame{}, err
	}
	return questionFrame{
		Nonce: run.hs.Dialer, Tag: run.derive(secret, digest, wire.RoleDialer),
		Sealed: run.seal(secret, digest).Seal(nil, make([]byte, chacha20poly1305.NonceSize), proof, nil),
	}, nil
}

func (l *Locator) framer(ctx context.Context, s network.Stream) (*wire.Exchange, func() bool, error) {
	return wire.Bound(ctx, s, wire.MaxHello, timeout, l.o.Metrics.Bytes("where"))
}
