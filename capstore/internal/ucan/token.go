package ucan

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// MaxSize bounds a token in characters.
const MaxSize = 64 << 10

// MaxFacts bounds the number of facts.
const MaxFacts = 256

// Token is a decoded UCAN. Its signature is not verified yet.
type Token struct {
	Algorithm    string // of the header, as claimed
	Issuer       tinycloud.Principal
	IssuerURL    string // iss as written, mostly with the key as fragment
	Audience     tinycloud.Principal
	Capabilities []recap.Capability // sorted
	Proofs       recap.Proofs
	NotBefore    *time.Time
	Expires      *time.Time // never nil
	Nonce        string
	Facts        []json.RawMessage // as received
	Bytes        []byte            // the whole token as received
	Hash         tinycloud.Hash    // of Bytes: the id of the event
	signed       int               // length of header.payload in Bytes
	signature    []byte
}

// Decode reads a compact JWS. The error is of class [tinycloud.ErrUndecodable].
func Decode(text string) (*Token, error) {
	if len(text) > MaxSize {
		return nil, undecodable("token of %d characters", len(text))
	}
	b := []byte(text)
	return DecodeBytes(b, tinycloud.Sum(b))
}

// DecodeBytes is [Decode] of bytes whose hash is known. The token keeps them.
func DecodeBytes(text []byte, hash tinycloud.Hash) (*Token, error) {
	if len(text) > MaxSize {
		return nil, undecodable("token of %d characters", len(text))
	}
	head, rest, ok1 := bytes.Cut(text, dot)
	body, sig, ok2 := bytes.Cut(rest, dot)
	if !ok1 || !ok2 || len(head) == 0 || len(body) == 0 || len(sig) == 0 {
		return nil, undecodable("not three parts")
	}
	t := &Token{Bytes: text, Hash: hash, signed: len(head) + 1 + len(body)}
	var err error
	if t.Algorithm, err = headers.Of(string(head), readHeader); err != nil {
		return nil, err
	}
	var room [1 << 10]byte // the payload is read into texts
	payload, err := decodeBase64(room[:0], body)
	if err != nil {
		return nil, err
	}
	if t.signature, err = decodeBase64(nil, sig); err != nil {
		return nil, err
	}
	if err := t.readPayload(string(payload)); err != nil {
		return nil, err
	}
	return t, nil
}

var dot = []byte{'.'}

// base64url is that of RFC 7515, with no bits left over.
var base64url = base64.RawURLEncoding.Strict()

// decodeBase64 appends what a text says.
func decodeBase64(to, text []byte) ([]byte, error) {
	if bytes.IndexByte(text, '\r') >= 0 || bytes.IndexByte(text, '\n') >= 0 { // which the base64 package would skip
		return nil, undecodable("line break in base64url")
	}
	b, err := base64url.AppendDecode(to, text)
	if err != nil {
		return nil, undecodable("base64url: %v", err)
	}
	return b, nil
}

// SignedBytes returns the issuer's key, the bytes signed and the signature, for a caller that verifies
// many at once with [did.VerifyEd25519Batch]; ok is false when the token needs [Token.VerifySignature].
func (t *Token) SignedBytes() (item did.BatchItem, ok bool) {
	key, err := t.key()
	if err != nil || key.Algorithm() != did.EdDSA || t.Algorithm != did.EdDSA {
		return did.BatchItem{}, false
	}
	return did.BatchItem{Pub: key.Bytes(), Msg: t.Bytes[:t.signed], Sig: t.signature}, true
}

// VerifySignature checks that the issuer signed the token. The error is a [tinycloud.Refusal]: of class
// [tinycloud.ErrForged], or of [tinycloud.ErrUnauthorized] for an issuer that is no did:key.
func (t *Token) VerifySignature() error {
	key, err := t.key()
	if err != nil {
		return err
	}
	if key.Verify(t.Algorithm, t.Bytes[:t.signed], t.signature) != nil {
		return errForged()
	}
	return nil
}

// key returns the key that iss names. Its fragment, if any, has to repeat the key's own text.
func (t *Token) key() (did.Key, error) {
	text, fragment, hasFragment := strings.Cut(t.IssuerURL, "#")
	key, err := did.Parse(string(t.Issuer))
	switch {
	case isRefusal(err):
		return did.Key{}, err
	case err != nil, text != key.String(), hasFragment && fragment != key.Fragment():
		return did.Key{}, errForged()
	}
	return key, nil
}

func errForged() error {
	return tinycloud.Refuse(tinycloud.ErrForged, "Failed to verify signature")
}

func undecodable(format string, args ...any) error {
	return fmt.Errorf("ucan: %s: %w", fmt.Sprintf(format, args...), tinycloud.ErrUndecodable)
}
