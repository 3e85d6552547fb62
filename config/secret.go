package config

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// MinSecretBytes is the least length of a decoded keys.secret.
const MinSecretBytes = 32

const redacted = "REDACTED"

// Secret is bytes that print as REDACTED. The zero Secret is unset and prints as nothing.
type Secret struct{ b []byte }

// NewSecret returns a Secret of a copy of b.
func NewSecret(b []byte) Secret { return Secret{slices.Clone(b)} }

// ParseSecret decodes the text of keys.secret: strict unpadded base64url of at least [MinSecretBytes] bytes. Its
// errors do not repeat the text.
func ParseSecret(text string) (Secret, error) {
	// The decoder skips line breaks even when strict.
	if strings.ContainsAny(text, "\r\n") {
		return Secret{}, errors.New("not base64url without padding: holds a line break")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		var at base64.CorruptInputError
		if errors.As(err, &at) {
			return Secret{}, fmt.Errorf("not base64url without padding: wrong at character %d", int64(at))
		}
		return Secret{}, errors.New("not base64url without padding")
	}
	if len(b) < MinSecretBytes {
		return Secret{}, shortSecretError(len(b))
	}
	return Secret{b}, nil
}

// shortSecretError is the length of a secret that is too short, in the words of the reference.
type shortSecretError int

func (n shortSecretError) Error() string {
	return fmt.Sprintf("Secret required to be at least %d bytes, but was %d", MinSecretBytes, int(n))
}

// Bytes returns a copy of the secret itself.
func (s Secret) Bytes() []byte { return slices.Clone(s.b) }

// IsZero reports whether the secret is unset.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

// Equal compares in time that depends on the lengths alone.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s.b, t.b) == 1 }

// String hides the secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// Format hides the secret from every verb.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'v' && f.Flag('#') {
		text = s.GoString()
	}
	_, _ = f.Write([]byte(text)) // fmt has no place for an error
}

// MarshalText hides the secret from encoders, JSON and TOML among them.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
