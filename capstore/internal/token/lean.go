package token

import (
	"unique"
	"unsafe"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// Lean returns what verdicts need of a token, with none of its bytes and facts, and no text that is a part of a longer
// one. It can't be verified or sent.
func (t *Token) Lean() *Token {
	l := *t
	l.Bytes, l.Facts, l.TargetText = nil, nil, ""
	l.Signer, l.Audience = tinycloud.Principal(shared(string(t.Signer))), tinycloud.Principal(shared(string(t.Audience)))
	l.Proofs = append([]tinycloud.Hash(nil), t.Proofs...)
	l.Caps = make([]recap.Capability, len(t.Caps))
	resources := make([]*tinycloud.Resource, len(t.Caps))
	for i, c := range t.Caps {
		l.Caps[i] = recap.Capability{Resource: c.Resource, Ability: shared(c.Ability)}
		if c.Caveats != nil {
			l.Caps[i].Caveats = append([]byte{}, c.Caveats...)
		}
		resources[i] = &l.Caps[i].Resource
	}
	tinycloud.Compact(resources)
	l.verify = func() error { panic("token: a lean token has no signature") }
	l.batch = func() (did.BatchItem, bool) { return did.BatchItem{}, false }
	return &l
}

// shared is a text that all tokens that have it share: abilities, and those who sign often.
func shared(text string) string { return unique.Make(text).Value() }

// Stored returns the token without its facts, as it is kept to be sent and listed. Its signature is verified from its
// bytes.
func (t *Token) Stored() *Token {
	s := *t
	s.Facts = nil
	if b := s.Bytes; len(b) > 0 {
		s.verify = func() error {
			again, err := Decode(b, false)
			if err != nil {
				return err
			}
			return again.VerifySignature()
		}
	}
	s.batch = func() (did.BatchItem, bool) { return did.BatchItem{}, false }
	return &s
}

const (
	sizeOfToken      = int(unsafe.Sizeof(Token{}))
	sizeOfCapability = int(unsafe.Sizeof(recap.Capability{}))
)

// Size is about how many bytes of memory the token takes, less those of its facts.
func (t *Token) Size() int {
	n := sizeOfToken + len(t.Signer) + len(t.Audience) + len(t.Proofs)*len(tinycloud.Hash{})
	n += 2 * len(t.Bytes) // texts of a decoded token are parts of the decoded payload
	var last tinycloud.Resource
	for i, c := range t.Caps {
		n += sizeOfCapability + len(c.Caveats) + len(c.Ability)
		if c.Resource != last || i == 0 {
			n += len(c.Resource.String())
			last = c.Resource
		}
	}
	return n
}
