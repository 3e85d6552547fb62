package cacao

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/siwe"
)

// MaxSize bounds the bytes of a token, before base64.
const MaxSize = 64 << 10

// Token is a decoded CACAO. Its signature is not verified yet.
type Token struct {
	Message      siwe.Message
	Issuer       tinycloud.Principal // who delegates or revokes
	Audience     string              // the URI the message is for, as signed
	Delegatee    tinycloud.Principal // the DID of Audience, or the URI up to '#' if it is none
	Capabilities []recap.Capability  // sorted; none when the last resource is no recap
	Proofs       recap.Proofs
	IssuedAt     time.Time
	NotBefore    *time.Time
	Expires      *time.Time
	Nonce        string
	Signature    [siwe.SignatureSize]byte
	Bytes        []byte         // as received
	Hash         tinycloud.Hash // of Bytes: the id of the event
}

// Decode reads an Authorization header. The error is of class [tinycloud.ErrUndecodable].
func Decode(header string) (*Token, error) {
	if len(header) > base64.URLEncoding.EncodedLen(MaxSize) {
		return nil, undecodable("header of %d characters", len(header))
	}
	if strings.ContainsAny(header, "\r\n") { // which the base64 package would skip
		return nil, undecodable("line break in base64url")
	}
	b, err := base64.URLEncoding.Strict().DecodeString(header)
	if err != nil {
		return nil, undecodable("base64url: %v", err)
	}
	return DecodeBytes(b)
}

// DecodeBytes reads the bytes of a token and keeps them. The error is of class
// [tinycloud.ErrUndecodable].
func DecodeBytes(b []byte) (*Token, error) {
	if len(b) > MaxSize {
		return nil, undecodable("%d bytes", len(b))
	}
	var w wireToken
	if err := decoding.Unmarshal(b, &w); err != nil {
		return nil, undecodable("CBOR: %v", err)
	}
	if w.Header.Type != headerType || w.Signature.Type != signatureType || len(w.Signature.Bytes) != siwe.SignatureSize {
		return nil, undecodable("type %q, signature %q of %d bytes", w.Header.Type, w.Signature.Type, len(w.Signature.Bytes))
	}
	m, err := w.Payload.message()
	if err != nil {
		return nil, undecodable("payload: %v", err)
	}
	t := &Token{Message: *m, Signature: [siwe.SignatureSize]byte(w.Signature.Bytes), Bytes: b}
	if !bytes.Equal(Encode(m, t.Signature), b) {
		return nil, undecodable("not the canonical encoding")
	}
	if err := t.derive(); err != nil {
		return nil, err
	}
	return t, nil
}

// derive fills what follows from the message.
func (t *Token) derive() (err error) {
	m := &t.Message
	t.Hash = tinycloud.Sum(t.Bytes)
	t.Issuer, t.Audience, t.Nonce = m.Principal(), m.URI, m.Nonce
	if t.Delegatee, err = tinycloud.ParsePrincipal(m.URI); err != nil {
		bare, _, _ := strings.Cut(m.URI, "#")
		t.Delegatee = tinycloud.Principal(bare)
	}
	if t.IssuedAt, err = siwe.ParseTime(m.IssuedAt); err != nil {
		return undecodable("%v", err)
	}
	if t.NotBefore, t.Expires, err = m.Window(); err != nil {
		return undecodable("%v", err)
	}
	if n := len(m.Resources); n > 0 && strings.HasPrefix(m.Resources[n-1], recap.Prefix) {
		if t.Capabilities, t.Proofs, err = recap.Decode(m.Resources[n-1]); err != nil {
			return err
		}
		return recap.CheckStatement(m.Statement, t.Capabilities)
	}
	return nil
}

// Encode returns the bytes of a message and its signature.
func Encode(m *siwe.Message, sig [siwe.SignatureSize]byte) []byte {
	b, err := encoding.Marshal(toWire(m, sig))
	if err != nil {
		panic("cacao: " + err.Error()) // strings and bytes always encode
	}
	return b
}

// Header returns the Authorization header that carries the bytes of a token.
func Header(b []byte) string { return base64.URLEncoding.EncodeToString(b) }

// VerifySignature checks that the issuer signed the message. The error is a [tinycloud.Refusal] of
// class [tinycloud.ErrForged].
func (t *Token) VerifySignature() error {
	_, account, _ := t.Issuer.EIP155()
	signer, err := siwe.Recover(t.Message.Text(), t.Signature)
	if err != nil || signer != account {
		return tinycloud.Refuse(tinycloud.ErrForged, "Failed to verify signature")
	}
	return nil
}

func undecodable(format string, args ...any) error {
	return fmt.Errorf("cacao: %s: %w", fmt.Sprintf(format, args...), tinycloud.ErrUndecodable)
}
