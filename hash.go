package tinycloud

import (
	"encoding/hex"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/zeebo/blake3"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/recent"
)

// Codecs of the CIDs the protocol uses (docs/protocol.md, "Hashes and CIDs").
const (
	RawCodec  = cid.Raw     // events and values on the wire
	CBORCodec = cid.DagCBOR // epochs and operations
)

// Hash is a BLAKE3-256 digest: the id of an event, an epoch, an operation or a value.
type Hash [32]byte

// Sum returns the BLAKE3-256 digest of b.
func Sum(b []byte) Hash { return blake3.Sum256(b) }

// IsZero reports whether h is the zero value, which is the digest of nothing known.
func (h Hash) IsZero() bool { return h == Hash{} }

// String returns 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Multihash returns the 34 bytes 1e 20 ‖ digest.
func (h Hash) Multihash() multihash.Multihash {
	return append(multihash.Multihash{multihash.BLAKE3, 32}, h[:]...)
}

// CID returns the CIDv1 of the digest under a codec.
func (h Hash) CID(codec uint64) cid.Cid { return cid.NewCidV1(codec, h.Multihash()) }

// EventID returns the text form of an event's CID: base32, bafkr4i….
func (h Hash) EventID() string { return h.CID(RawCodec).String() }

// EpochID returns the text form of an epoch's CID: base32, bafyr4i….
func (h Hash) EpochID() string { return h.CID(CBORCodec).String() }

// HashOf returns the digest inside a CID. Only the multihash counts (docs/protocol.md, "Hashes and CIDs"). A
// multihash of another function or length is hashed itself, so that it names nothing that exists here.
func HashOf(c cid.Cid) Hash {
	mh := c.Hash()
	if len(mh) == 34 && mh[0] == multihash.BLAKE3 && mh[1] == 32 {
		return Hash(mh[2:])
	}
	return Sum(append([]byte("foreign multihash "), mh...))
}

// cids are those that were read lately: tokens that come one after another rest on the same delegation.
var cids = recent.New[Hash]()

// ParseCID reads a CID in any multibase. The error is of class [ErrInvalid].
func ParseCID(text string) (Hash, error) {
	if len(text) > 256 {
		return Hash{}, fmt.Errorf("CID of %d characters: %w", len(text), ErrInvalid)
	}
	return cids.Of(text, readCID)
}

func readCID(text string) (Hash, error) {
	c, err := cid.Decode(text)
	if err != nil {
		return Hash{}, fmt.Errorf("CID %q: %w", text, ErrInvalid)
	}
	return HashOf(c), nil
}
