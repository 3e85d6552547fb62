package token

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/ucan"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// Abilities the node itself knows.
const (
	AbilityHost   = "tinycloud.space/host"
	AbilityRevoke = "tinycloud.delegation/revoke"
	AbilityGet    = "tinycloud.kv/get"
	AbilityPut    = "tinycloud.kv/put"
	AbilityDel    = "tinycloud.kv/del"
	AbilityDelete = "tinycloud.kv/delete"
)

// Kind tells what a token does.
type Kind uint8

// The kinds of token.
const (
	Delegation Kind = 1 + iota
	Invocation
	Revocation
)

// Token is a decoded signed token. It is immutable and safe for concurrent use.
type Token struct {
	Kind      Kind
	ID        tinycloud.Hash      // BLAKE3 of Bytes
	Bytes     []byte              // as signed: CACAO bytes or the ASCII of a JWT
	Signer    tinycloud.Principal // delegator, invoker or revoker
	Audience  tinycloud.Principal // delegatee
	Caps      []recap.Capability  // ascending by resource and ability
	Proofs    []tinycloud.Hash
	NotBefore time.Time // zero: no such bound
	Expires   time.Time // zero: never
	IssuedAt  time.Time // zero: not said
	Nonce     string    // of a UCAN, as its signer wrote it
	Facts     []json.RawMessage
	// Target is what a revocation revokes, TargetText the CID as its signer wrote it.
	Target     tinycloud.Hash
	TargetText string

	OpenStart bool // a CACAO is not yet valid in the very instant of its nbf
	verify    func() error
	batch     func() (did.BatchItem, bool)
}

// Decode reads a token that stands in a history. The same bytes can be posted as a delegation or as an
// invocation; hasOps, whether operations are recorded for it, tells which it was.
func Decode(b []byte, hasOps bool) (*Token, error) {
	return DecodeKnown(bytes.Clone(b), tinycloud.Sum(b), hasOps)
}

// DecodeKnown is [Decode] of bytes whose hash is known. The token keeps them.
func DecodeKnown(b []byte, id tinycloud.Hash, hasOps bool) (*Token, error) {
	if len(b) > 0 && b[0] == 'e' { // base64url of '{"'
		u, err := ucan.DecodeBytes(b, id)
		if err != nil {
			return nil, err
		}
		t := fromUCAN(u)
		switch {
		case hasOps:
			t.Kind = Invocation
		case t.Audience == t.Signer && t.setTarget():
			t.Kind = Revocation
		case t.ToSelf(): // grants nothing: a read that the reference recorded
			t.Kind = Invocation
		default:
			t.Kind = Delegation
		}
		return t, nil
	}
	return FromCACAO(b)
}

// FromUCAN reads a JWT; the caller sets its kind.
func FromUCAN(text string) (*Token, error) {
	u, err := ucan.Decode(text)
	if err != nil {
		return nil, err
	}
	return fromUCAN(u), nil
}

func fromUCAN(u *ucan.Token) *Token {
	t := &Token{
		ID: u.Hash, Bytes: u.Bytes, Signer: u.Issuer, Audience: u.Audience, Caps: u.Capabilities,
		Proofs: u.Proofs.Hashes, Nonce: u.Nonce, Facts: u.Facts, verify: u.VerifySignature, batch: u.SignedBytes,
	}
	t.window(u.NotBefore, u.Expires)
	return t
}

// FromCACAO reads the bytes of a CACAO: a revocation when its URI is "ucan:<cid>", else a delegation.
func FromCACAO(b []byte) (*Token, error) {
	c, err := cacao.DecodeBytes(b)
	if err != nil {
		return nil, err
	}
	return fromCACAO(c), nil
}

// FromHeader reads the Authorization value of a CACAO.
func FromHeader(header string) (*Token, error) {
	c, err := cacao.Decode(header)
	if err != nil {
		return nil, err
	}
	return fromCACAO(c), nil
}

func fromCACAO(c *cacao.Token) *Token {
	b := c.Bytes
	t := &Token{
		Kind: Delegation, ID: c.Hash, Bytes: c.Bytes, Signer: c.Issuer, Audience: c.Delegatee,
		Caps: c.Capabilities, Proofs: c.Proofs.Hashes, IssuedAt: c.IssuedAt, OpenStart: true,
		verify: func() error { return verifyCACAO(b) }, batch: func() (did.BatchItem, bool) { return did.BatchItem{}, false },
	}
	t.window(c.NotBefore, c.Expires)
	if text, ok := strings.CutPrefix(c.Audience, "ucan:"); ok {
		if target, err := tinycloud.ParseCID(text); err == nil {
			t.Kind, t.Target, t.TargetText = Revocation, target, text
		}
	}
	return t
}

// verifyCACAO decodes again: kept, the message would be half of what a token takes in memory.
func verifyCACAO(b []byte) error {
	c, err := cacao.DecodeBytes(b)
	if err != nil {
		return err
	}
	return c.VerifySignature()
}

func (t *Token) window(nbf, exp *time.Time) {
	if nbf != nil {
		t.NotBefore = *nbf
	}
	if exp != nil {
		t.Expires = *exp
	}
}

// setTarget finds the delegation a UCAN revokes: the first urn:cid capability to revoke.
func (t *Token) setTarget() bool {
	for _, c := range t.Caps {
		text, ok := strings.CutPrefix(c.Resource.String(), "urn:cid:")
		if !ok || c.Ability != AbilityRevoke {
			continue
		}
		target, err := tinycloud.ParseCID(text)
		if err == nil {
			t.Target, t.TargetText = target, text
			return true
		}
	}
	return false
}

// AsRevocation turns a UCAN into the revocation it signs; false when it names no target. A UCAN for
// another party is a delegation of the right to revoke, not a revocation.
func (t *Token) AsRevocation() bool {
	if t.Kind == Revocation {
		return true
	}
	if t.OpenStart || t.Audience != t.Signer || !t.setTarget() {
		return false
	}
	t.Kind = Revocation
	return true
}

// ToSelf reports whether a token is a UCAN addressed to its own signer, as invocations are.
func (t *Token) ToSelf() bool { return !t.OpenStart && t.Audience == t.Signer }

// Header returns the Authorization value that carries the token.
func (t *Token) Header() string {
	if t.OpenStart {
		return cacao.Header(t.Bytes)
	}
	return string(t.Bytes)
}

// VerifySignature checks the signature. The error is a refusal of class [tinycloud.ErrForged].
func (t *Token) VerifySignature() error { return t.verify() }

// BatchItem returns what a batch verifier needs; ok is false when the token must be verified alone.
func (t *Token) BatchItem() (did.BatchItem, bool) { return t.batch() }

// ValidAt reports whether an instant lies in the token's window, widened by slack at both ends.
func (t *Token) ValidAt(at time.Time, slack time.Duration) bool {
	if !t.NotBefore.IsZero() {
		from := t.NotBefore.Add(-slack)
		if at.Before(from) || (t.OpenStart && slack == 0 && at.Equal(from)) {
			return false
		}
	}
	return t.Expires.IsZero() || !at.After(t.Expires.Add(slack))
}

// Spaces returns the Spaces the capabilities name, each once, in the capabilities' order.
func (t *Token) Spaces() []tinycloud.SpaceID {
	var out []tinycloud.SpaceID
	for _, c := range t.Caps {
		s := c.Resource.Space()
		if s.IsZero() || (len(out) > 0 && out[len(out)-1] == s) {
			continue
		}
		out = append(out, s)
	}
	return out
}

// Places returns the Spaces in whose histories the token stands: those its capabilities name, and of those about encryption
// networks the owners' Spaces of secrets, in which they grant nothing.
func (t *Token) Places() []tinycloud.SpaceID {
	out := t.Spaces()
	for _, c := range t.Caps {
		id, ok := c.Resource.Network()
		if !ok {
			continue
		}
		if s, ok := tinycloud.SecretsOf(id.Owner()); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// Requested returns the capabilities in the order their signer wrote them: of the members of att, and of
// the abilities within each.
func (t *Token) Requested() []recap.Capability {
	return slices.SortedFunc(slices.Values(t.Caps), func(a, b recap.Capability) int { return cmp.Compare(a.Place, b.Place) })
}

// HostsSpace reports whether the token grants the right to host a Space.
func (t *Token) HostsSpace(s tinycloud.SpaceID) bool {
	for _, c := range t.Caps {
		if c.Ability == AbilityHost && c.Resource.Space() == s && c.Resource.Service() == "space" && c.Resource.Bare() {
			return true
		}
	}
	return false
}
