package capstore

import (
	"fmt"
	"strings"
	"unicode"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cacao"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

type (
	// Token is a decoded signed token.
	Token = token.Token
	// Capability is one ability on one resource.
	Capability = recap.Capability
)

// ParseDelegation reads the Authorization value of a delegation: a CACAO, or a UCAN when it contains a dot
// (docs/protocol.md, "Tokens"). The error is of class [tinycloud.ErrUndecodable].
func ParseDelegation(header string) (*Token, error) {
	t, err := parseToken(header)
	if err != nil {
		return nil, err
	}
	// A history tells the kinds apart by their bytes, so what reads as a revocation there is none here.
	if t.AsRevocation() {
		return nil, fmt.Errorf("a revocation is no delegation: %w", tinycloud.ErrUndecodable)
	}
	if t.ToSelf() {
		return nil, fmt.Errorf("a delegation to its own signer grants nothing: %w", tinycloud.ErrUndecodable)
	}
	t.Kind = token.Delegation
	return t, nil
}

// ParseInvocation reads the Authorization value of an invocation, which is always a UCAN.
func ParseInvocation(header string) (*Token, error) {
	if !strings.Contains(header, ".") {
		return nil, fmt.Errorf("an invocation is a UCAN: %w", tinycloud.ErrUndecodable)
	}
	t, err := token.FromUCAN(header)
	if err != nil {
		return nil, err
	}
	t.Kind = token.Invocation
	return t, nil
}

// ParseRevocation reads the Authorization value of a revocation (docs/protocol.md, "Revocations"). A token that names
// no target is a refusal of class [tinycloud.ErrForbidden]: a proof is never taken as the target.
func ParseRevocation(header string) (*Token, error) {
	t, err := parseToken(header)
	if err != nil {
		return nil, err
	}
	if !t.AsRevocation() {
		return nil, tinycloud.Refuse(tinycloud.ErrForbidden, "Revocation names no target")
	}
	return t, nil
}

func parseToken(header string) (*Token, error) {
	if strings.Contains(header, ".") {
		return token.FromUCAN(header)
	}
	t, err := token.FromHeader(header)
	if err != nil {
		return nil, err
	}
	if err := readable(t); err != nil {
		return nil, err
	}
	return t, nil
}

// readable refuses a text that its signer's wallet may have shown in another order than it says: who can put such
// characters into a statement can show one capability and have another signed. Histories that have such texts stay as
// they are judged.
func readable(t *Token) error {
	c, err := cacao.DecodeBytes(t.Bytes)
	if err != nil {
		return err
	}
	for _, text := range []*string{c.Message.Statement, &c.Message.Nonce, c.Message.RequestID} {
		if text != nil && strings.ContainsFunc(*text, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }) {
			return tinycloud.Refuse(tinycloud.ErrUndecodable, "The signed text has characters that change its direction")
		}
	}
	return nil
}
