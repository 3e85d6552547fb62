package did

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"math/big"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secp "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/mr-tron/base58"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recent"
)

// The JWS algorithms, each of which fits exactly one kind of key.
const (
	EdDSA  = "EdDSA"  // Ed25519
	ES256K = "ES256K" // secp256k1, SHA-256
	ES256  = "ES256"  // P-256, SHA-256
)

// Multicodec prefixes of public keys, as varints.
const (
	ed25519Codec   = "\xed\x01"
	secp256k1Codec = "\xe7\x01"
	p256Codec      = "\x80\x24"
)

const keyPrefix = "did:key:"

// Key is a public key read from a did:key.
type Key struct {
	alg  string
	text string // the multibase text, "z6Mk…"
	raw  []byte // 32 bytes of Ed25519, else a compressed point of 33
	secp *secp256k1.PublicKey
	p256 *ecdsa.PublicKey
}

// Parse reads a did:key without fragment. The only spelling of a key is multibase base58btc. Other
// methods and kinds of key are a [tinycloud.Refusal] of class [tinycloud.ErrUnauthorized]; a damaged
// did:key is of class [tinycloud.ErrInvalid].
func Parse(did string) (Key, error) {
	return keys.Of(did, parse)
}

// keys are those that were read lately.
var keys = recent.New[Key]()

func parse(did string) (Key, error) {
	text, ok := strings.CutPrefix(did, keyPrefix)
	if !ok {
		return Key{}, tinycloud.Refuse(tinycloud.ErrUnauthorized, "DID method not supported")
	}
	if len(text) < 2 || len(text) > 64 || text[0] != 'z' {
		return Key{}, fmt.Errorf("did:key: not base58btc: %w", tinycloud.ErrInvalid)
	}
	b, err := base58.Decode(text[1:])
	if err != nil || len(b) < 3 {
		return Key{}, fmt.Errorf("did:key: not base58btc: %w", tinycloud.ErrInvalid)
	}
	k := Key{text: strings.Clone(text), raw: b[2:]}
	switch string(b[:2]) {
	case ed25519Codec:
		k.alg = EdDSA
		if len(k.raw) != 32 {
			return Key{}, fmt.Errorf("did:key: Ed25519 key of %d bytes: %w", len(k.raw), tinycloud.ErrInvalid)
		}
		return k, nil
	case secp256k1Codec:
		k.alg = ES256K
		return k, k.parseSecp256k1()
	case p256Codec:
		k.alg = ES256
		return k, k.parseP256()
	}
	return Key{}, tinycloud.Refuse(tinycloud.ErrUnauthorized, "DID key type not supported")
}

func (k *Key) parseSecp256k1() error {
	pub, err := secp256k1.ParsePubKey(k.raw)
	if err != nil || len(k.raw) != 33 {
		return fmt.Errorf("did:key: not a compressed secp256k1 point: %w", tinycloud.ErrInvalid)
	}
	k.secp = pub
	return nil
}

func (k *Key) parseP256() error {
	if len(k.raw) != 33 {
		return fmt.Errorf("did:key: P-256 key of %d bytes: %w", len(k.raw), tinycloud.ErrInvalid)
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), k.raw)
	if x == nil {
		return fmt.Errorf("did:key: not a compressed P-256 point: %w", tinycloud.ErrInvalid)
	}
	point := make([]byte, 65)
	point[0] = 4
	x.FillBytes(point[1:33])
	y.FillBytes(point[33:])
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return fmt.Errorf("did:key: P-256 point: %v: %w", err, tinycloud.ErrInvalid)
	}
	k.p256 = pub
	return nil
}

// Algorithm returns the one JWS algorithm that fits the key.
func (k Key) Algorithm() string { return k.alg }

// Bytes returns the public key: 32 bytes of Ed25519, or the 33 of a compressed point.
func (k Key) Bytes() []byte { return bytes.Clone(k.raw) }

// Fragment returns the multibase text that names the key, as DID URLs repeat it after '#'.
func (k Key) Fragment() string { return k.text }

// String returns the did:key.
func (k Key) String() string { return keyPrefix + k.text }

// Verify checks a signature of a message by a JWS algorithm, which must be the one that fits the key.
// The error is of class [tinycloud.ErrForged].
func (k Key) Verify(alg string, msg, sig []byte) error {
	if alg != k.alg || alg == "" {
		return fmt.Errorf("algorithm does not fit a key of %s: %w", k.alg, tinycloud.ErrForged)
	}
	ok := false
	switch alg {
	case EdDSA:
		ok = VerifyEd25519(k.raw, msg, sig)
	case ES256K:
		ok = verifySecp256k1(k.secp, msg, sig)
	case ES256:
		ok = verifyP256(k.p256, msg, sig)
	}
	if !ok {
		return fmt.Errorf("%s signature: %w", alg, tinycloud.ErrForged)
	}
	return nil
}

func verifySecp256k1(pub *secp256k1.PublicKey, msg, sig []byte) bool {
	if len(sig) != 64 {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) || s.IsOverHalfOrder() {
		return false
	}
	digest := sha256.Sum256(msg)
	return secp.NewSignature(&r, &s).Verify(digest[:], pub)
}

func verifyP256(pub *ecdsa.PublicKey, msg, sig []byte) bool {
	if len(sig) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	// s and n-s verify alike; n is odd, so the lower half ends at (n-1)/2.
	if s.Cmp(new(big.Int).Rsh(pub.Params().N, 1)) > 0 {
		return false
	}
	digest := sha256.Sum256(msg)
	return ecdsa.Verify(pub, digest[:], r, s)
}

// EncodeEd25519 returns the did:key of a 32-byte Ed25519 public key.
func EncodeEd25519(pub []byte) string { return encode(ed25519Codec, pub) }

func encode(codec string, pub []byte) string {
	return keyPrefix + "z" + base58.Encode(append([]byte(codec), pub...))
}
