package encryption

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// A key is handed over to a transport key that its receiver made for that alone, and announces signed by its Space key
// and its node key. What is signed, what the key of the box is derived from and what the box authenticates is the same:
// the Space, the network, the version, the public key, both hosts with their nodes, and the transport key. So an
// announcement is of use to that holder alone and for that key alone, and so is its answer. The form that clients know
// (box.go) could bind none of it.

const (
	askContext = "tinycloud/keys/1 ask\x00"
	keyContext = "tinycloud/keys/1 key\x00"

	// MaxAsk bounds an announcement, in bytes; MaxGiven the answer.
	MaxAsk   = 4 << 10
	MaxGiven = 256
)

// ask is an announcement.
type ask struct {
	space     tinycloud.SpaceID
	network   tinycloud.NetworkID
	version   int64
	public    []byte        // of the key that is asked for
	to, from  hostlog.Party // who asks, and who holds it
	transport []byte        // X25519 public key
	hostSig   hostlog.Signature
	nodeSig   hostlog.Signature
}

// context is what everything is bound to.
func (a *ask) context() []byte {
	b := cbor.AppendHead(nil, cbor.Array, 9)
	b = cbor.AppendText(b, a.space.String())
	b = cbor.AppendText(b, a.network.String())
	b = cbor.AppendHead(b, cbor.Uint, uint64(a.version))
	for _, x := range [][]byte{a.public, a.to.Host[:], a.to.Node[:], a.from.Host[:], a.from.Node[:], a.transport} {
		b = cbor.AppendBytes(b, x)
	}
	return b
}

func (a *ask) encode() []byte {
	b := cbor.AppendHead(nil, cbor.Array, 3)
	b = cbor.AppendBytes(b, a.context())
	b = cbor.AppendBytes(b, a.hostSig[:])
	return cbor.AppendBytes(b, a.nodeSig[:])
}

// decodeAsk reads an announcement in its one spelling. The error is of class [tinycloud.ErrInvalid].
func decodeAsk(b []byte) (*ask, error) {
	if len(b) > MaxAsk {
		return nil, fmt.Errorf("announcement of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	outer := dag.NewReader(b)
	if outer.Count(cbor.Array, 3) != 3 {
		outer.Fail("announcement")
	}
	in := dag.NewReader(outer.Bytes())
	a := &ask{}
	a.hostSig = hostlog.Signature(fixed(outer, len(a.hostSig)))
	a.nodeSig = hostlog.Signature(fixed(outer, len(a.nodeSig)))
	if err := outer.End(); err != nil {
		return nil, err
	}
	if in.Count(cbor.Array, 9) != 9 {
		in.Fail("announcement")
	}
	space, network := in.Text(), in.Text()
	version := in.Head(cbor.Uint)
	a.public = fixed(in, keySize)
	a.to.Host, a.to.Node = hostlog.Key(fixed(in, keySize)), hostlog.Key(fixed(in, keySize))
	a.from.Host, a.from.Node = hostlog.Key(fixed(in, keySize)), hostlog.Key(fixed(in, keySize))
	a.transport = fixed(in, keySize)
	if version < 1 || version > maxVersion {
		in.Fail("version")
	}
	if err := in.End(); err != nil {
		return nil, err
	}
	a.version = int64(version)
	var err error
	if a.space, err = tinycloud.ParseSpaceID(space); err != nil {
		return nil, err
	}
	if a.network, err = tinycloud.ParseNetworkID(network); err != nil {
		return nil, fmt.Errorf("announcement: %w", err)
	}
	if a.space.String() != space || a.network.String() != network {
		return nil, fmt.Errorf("announcement is not canonical: %w", tinycloud.ErrInvalid)
	}
	return a, nil
}

func (a *ask) signed() []byte { return append([]byte(askContext), a.context()...) }

func (a *ask) sign(host, node ed25519.PrivateKey) {
	a.hostSig = hostlog.Signature(ed25519.Sign(host, a.signed()))
	a.nodeSig = hostlog.Signature(ed25519.Sign(node, a.signed()))
}

// proves checks that both keys of who asks say so.
func (a *ask) proves() error {
	if !a.to.Host.Signed(a.signed(), a.hostSig) || !a.to.Node.Signed(a.signed(), a.nodeSig) {
		return fmt.Errorf("announcement: %w", tinycloud.ErrForged)
	}
	return nil
}

// carrier is what a private key travels in, by the secret that two X25519 keys share.
func (a *ask) carrier(shared, ephemeral []byte) (cipher.AEAD, error) {
	salt := append(bytes.Clone(ephemeral), a.transport...)
	k, err := hkdf.Key(sha256.New, shared, salt, keyContext+string(a.context()), keySize)
	if err != nil {
		return nil, err
	}
	defer clear(k)
	return aead(k)
}

// give seals a private key for who asks: an ephemeral public key, and a box.
func (a *ask) give(random io.Reader, private []byte) ([]byte, error) {
	var seed [keySize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	shared, err := agree(seed[:], a.transport)
	if err != nil {
		return nil, fmt.Errorf("announcement: %v: %w", err, tinycloud.ErrInvalid)
	}
	defer clear(shared)
	ephemeral, err := public(seed[:])
	if err != nil {
		return nil, err
	}
	gcm, err := a.carrier(shared, ephemeral)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	return gcm.Seal(append(ephemeral, nonce...), nonce, private, a.context()), nil
}

// take opens what was given to the announcement with the private half of its transport key, and checks that it is the
// key that was asked for. The caller clears it.
func (a *ask) take(transport *ecdh.PrivateKey, given []byte) ([]byte, error) {
	if len(given) != keySize+nonceSize+keySize+tagSize {
		return nil, fmt.Errorf("key of %d bytes: %w", len(given), tinycloud.ErrInvalid)
	}
	ephemeral, nonce, sealed := given[:keySize], given[keySize:keySize+nonceSize], given[keySize+nonceSize:]
	with, err := ecdh.X25519().NewPublicKey(ephemeral)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", errPublic, tinycloud.ErrInvalid)
	}
	shared, err := transport.ECDH(with)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", errPublic, tinycloud.ErrInvalid)
	}
	defer clear(shared)
	gcm, err := a.carrier(shared, ephemeral)
	if err != nil {
		return nil, err
	}
	private, err := gcm.Open(nil, nonce, sealed, a.context())
	if err != nil {
		return nil, fmt.Errorf("%v: %w", errOpen, tinycloud.ErrForged)
	}
	pub, err := public(private)
	if err != nil || !bytes.Equal(pub, a.public) {
		clear(private)
		return nil, fmt.Errorf("private key of another public key: %w", tinycloud.ErrForged)
	}
	return private, nil
}
