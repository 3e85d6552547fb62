package encryption

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
)

// Sizes in bytes.
const (
	keySize   = 32
	nonceSize = 12
	tagSize   = 16
	// version is the first byte of a box. The reference takes what begins otherwise for plain text; here that is no box.
	version  = 1
	minBox   = 1 + nonceSize + tagSize
	minWraps = keySize + minBox
)

// Errors of boxes say nothing of what is in them.
var (
	errBox    = errors.New("sealed key of no known form")
	errOpen   = errors.New("sealed key does not open")
	errPublic = errors.New("invalid public key")
)

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// box encrypts: 01 ‖ nonce ‖ AES-256-GCM of the text and its tag.
func box(random io.Reader, key, text []byte) ([]byte, error) {
	gcm, err := aead(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+nonceSize, minBox+len(text))
	out[0] = version
	if _, err := io.ReadFull(random, out[1:]); err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	return gcm.Seal(out, out[1:], text, nil), nil
}

// open decrypts a box. The caller clears what it returns.
func open(key, b []byte) ([]byte, error) {
	if len(b) < minBox || b[0] != version {
		return nil, errBox
	}
	gcm, err := aead(key)
	if err != nil {
		return nil, err
	}
	text, err := gcm.Open(nil, b[1:1+nonceSize], b[1+nonceSize:], nil)
	if err != nil {
		return nil, errOpen
	}
	return text, nil
}

// wrap seals a key to a public one: an ephemeral public key, and a box under the secret that is shared with it. That
// secret is the key as it is: the form is what clients know, and has no place for more.
func wrap(random io.Reader, to, text []byte) ([]byte, error) {
	var seed [keySize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	shared, err := agree(seed[:], to)
	if err != nil {
		return nil, err
	}
	defer clear(shared)
	from, err := public(seed[:])
	if err != nil {
		return nil, err
	}
	b, err := box(random, shared, text)
	return append(from, b...), err
}

// unwrap opens what was sealed to a private key. The caller clears what it returns.
func unwrap(private, w []byte) ([]byte, error) {
	if err := wrapped(w); err != nil {
		return nil, err
	}
	shared, err := agree(private, w[:keySize])
	if err != nil {
		return nil, err
	}
	defer clear(shared)
	return open(shared, w[keySize:])
}

// wrapped refuses what has not the form of something sealed.
func wrapped(w []byte) error {
	if len(w) < minWraps || w[keySize] != version {
		return errBox
	}
	return nil
}

// agree is X25519. Points of small order, with which anybody shares a secret, are refused.
func agree(private, with []byte) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, errors.New("invalid private key")
	}
	p, err := ecdh.X25519().NewPublicKey(with)
	if err != nil {
		return nil, errPublic
	}
	shared, err := k.ECDH(p)
	if err != nil {
		return nil, errPublic
	}
	return shared, nil
}

// public is the public key of a private one.
func public(private []byte) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, errors.New("invalid private key")
	}
	return k.PublicKey().Bytes(), nil
}
