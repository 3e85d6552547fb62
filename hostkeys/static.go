package hostkeys

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// MinSecretBytes is the least length of a secret.
const MinSecretBytes = 32

// Contexts of [Static.Derive] that are fixed by the protocol.
const (
	ContextNode           = "tinycloud/node/identity"
	ContextWebhookSecrets = "tinycloud/hooks/webhook-secrets"
	ContextHookTickets    = "tinycloud/hooks/tickets"
	ContextSignedURLs     = "tinycloud/kv/signed-urls"
	ContextListCursor     = "tinycloud/kv/list-cursor"
	ContextNetworkSeal    = "tinycloud/encryption/network-seal"
)

// cacheSize is in Spaces. An entry is a 64-byte key and a Space id of at most 521 bytes: under 6 MiB in all.
const cacheSize = 8192

// Static derives keys from one secret. It prints as REDACTED and is safe for concurrent use.
type Static struct {
	secret []byte
	keys   *lru.Cache[tinycloud.SpaceID, ed25519.PrivateKey]
}

// New returns a Static over a copy of secret, all of which is hashed. A secret of less than [MinSecretBytes] bytes is
// [tinycloud.ErrInvalid].
func New(secret []byte) (*Static, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("secret of %d bytes, at least %d are required: %w", len(secret), MinSecretBytes, tinycloud.ErrInvalid)
	}
	keys, err := lru.New[tinycloud.SpaceID, ed25519.PrivateKey](cacheSize)
	if err != nil {
		return nil, fmt.Errorf("key cache: %w", err)
	}
	return &Static{secret: slices.Clone(secret), keys: keys}, nil
}

// SpaceKey returns the key of this host for space. The caller owns the returned slice.
func (s *Static) SpaceKey(space tinycloud.SpaceID) ed25519.PrivateKey {
	key, ok := s.keys.Get(space)
	if !ok {
		key = s.key(space.String())
		s.keys.Add(space, key)
	}
	return slices.Clone(key)
}

// NodeKey returns the key of the node itself, the identity of its libp2p front and the nodeId of /info.
func (s *Static) NodeKey() ed25519.PrivateKey { return s.key(ContextNode) }

// Derive returns BLAKE3(secret ‖ context). A context must never be the text of a Space id.
func (s *Static) Derive(context string) [32]byte {
	h := blake3.New()
	_, _ = h.Write(s.secret) // a hash takes everything
	_, _ = h.WriteString(context)
	var out [32]byte
	h.Sum(out[:0])
	return out
}

func (s *Static) key(text string) ed25519.PrivateKey {
	seed := s.Derive(text)
	return ed25519.NewKeyFromSeed(seed[:])
}

const redacted = "hostkeys.Static(REDACTED)"

// String hides the secret.
func (s *Static) String() string { return redacted }

// GoString hides the secret from %#v.
func (s *Static) GoString() string { return redacted }

// Format hides the secret from every verb.
func (s *Static) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the secret from encoders.
func (s *Static) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the secret from slog.
func (s *Static) LogValue() slog.Value { return slog.StringValue(redacted) }
