package hostkeys

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"

	"github.com/mr-tron/base58"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	didKeyPrefix = "did:key:z" // z: base58btc
	// ed25519Code is the multicodec ed25519-pub as a varint; version 1.0 of the reference wrote only its first byte.
	ed25519Code       = "\xed\x01"
	legacyEd25519Code = "\xed"
	// maxKeyText bounds base58 decoding, which is quadratic; both spellings take at most 48 characters.
	maxKeyText = 64
	// maxDIDText bounds a DID URL with its fragment.
	maxDIDText = 512
)

// DIDKey returns the did:key of an Ed25519 public key of 32 bytes, did:key:z6Mk….
func DIDKey(key ed25519.PublicKey) string {
	return didKeyPrefix + base58.Encode(append([]byte(ed25519Code), key...))
}

// ParseHostDID returns the public key that a host's DID names: in the spelling of [DIDKey], or in that of version 1.0
// of the reference, did:key:z2D…, which no resolver knows. A fragment is ignored; a path, a query, another method or
// another kind of key is [tinycloud.ErrInvalid].
func ParseHostDID(did string) (ed25519.PublicKey, error) {
	if len(did) > maxDIDText {
		return nil, fmt.Errorf("host DID of %d bytes: %w", len(did), tinycloud.ErrInvalid)
	}
	principal, _, _ := strings.Cut(did, "#")
	text, ok := strings.CutPrefix(principal, didKeyPrefix)
	if !ok || len(text) > maxKeyText {
		return nil, fmt.Errorf("host DID %q: not a did:key of Ed25519: %w", did, tinycloud.ErrInvalid)
	}
	raw, err := base58.Decode(text)
	if err != nil || base58.Encode(raw) != text {
		return nil, fmt.Errorf("host DID %q: not base58: %w", did, tinycloud.ErrInvalid)
	}
	for _, code := range []string{ed25519Code, legacyEd25519Code} {
		key, ok := bytes.CutPrefix(raw, []byte(code))
		if ok && len(key) == ed25519.PublicKeySize {
			return ed25519.PublicKey(key), nil
		}
	}
	return nil, fmt.Errorf("host DID %q: not an Ed25519 key: %w", did, tinycloud.ErrInvalid)
}
