package hostlog

import (
	"strings"

	"github.com/multiformats/go-multibase"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
)

// Key is a host: the Ed25519 public key of a node's Space key.
type Key [32]byte

// String returns the host's did:key.
func (h Key) String() string { return did.EncodeEd25519(h[:]) }

// Signed reports whether a signature is one of this host, by the rules of ZIP 215 (docs/protocol.md, "Signature").
func (h Key) Signed(msg []byte, sig Signature) bool { return did.VerifyEd25519(h[:], msg, sig[:]) }

// MaxChain bounds the tokens by which a host proves that it is one: its delegation and those it rests on.
const MaxChain = 16

// KeyOf returns the host a DID names, in either of the spellings hosts have used for their key: the standard one, and
// an early one with a multicodec of one byte (docs/protocol.md, "Keys of a node").
func KeyOf(p tinycloud.Principal) (h Key, ok bool) {
	text, ok := strings.CutPrefix(string(p), "did:key:")
	if !ok || len(text) > 64 {
		return h, false
	}
	_, b, err := multibase.Decode(text)
	if err != nil || len(b) < 33 || b[0] != 0xed {
		return h, false
	}
	b = b[1:]
	if len(b) == 33 && b[0] == 1 {
		b = b[1:]
	}
	if len(b) != len(h) {
		return h, false
	}
	return Key(b), true
}
