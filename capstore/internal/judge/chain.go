package judge

import (
	"bytes"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/recap"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// MaxChain bounds the delegations looked at to justify one capability.
const MaxChain = 64

// Covers reports whether a held ability satisfies a wanted one (docs/protocol.md, "Abilities").
func Covers(held, wanted string) bool {
	if held == wanted || canonicalAbility(held) == canonicalAbility(wanted) {
		return true
	}
	switch held {
	case "tinycloud.sql/admin":
		return wanted == "tinycloud.sql/schema"
	case "tinycloud.sql/*":
		return hasPrefix(wanted, "tinycloud.sql/")
	case "tinycloud.duckdb/*":
		return hasPrefix(wanted, "tinycloud.duckdb/")
	}
	return false
}

func hasPrefix(s, p string) bool { return len(s) > len(p) && s[:len(p)] == p }

func canonicalAbility(a string) string {
	switch a {
	case token.AbilityDelete:
		return token.AbilityDel
	case "tinycloud.sql/select":
		return "tinycloud.sql/read"
	case "tinycloud.duckdb/select":
		return "tinycloud.duckdb/read"
	}
	return a
}

// Grants reports whether holding one capability lets its holder use or pass on another.
func Grants(held, wanted recap.Capability) bool {
	return Covers(held.Ability, wanted.Ability) && wanted.Resource.Extends(held.Resource) && CaveatsWithin(held, wanted)
}

// CaveatsWithin reports whether the wanted capability keeps the caveats of the held one: none admits
// any, equal ones admit, all others are refused, since this node cannot compare them.
func CaveatsWithin(held, wanted recap.Capability) bool {
	return held.Caveats == nil || bytes.Equal(held.Caveats, wanted.Caveats)
}

// WindowWithin reports whether a delegation's window contains its child's, and if not whether the
// expiry is at fault.
func WindowWithin(parent, child *token.Token) (ok, expiry bool) {
	if !parent.Expires.IsZero() && (child.Expires.IsZero() || child.Expires.After(parent.Expires)) {
		return false, true
	}
	if !parent.NotBefore.IsZero() && (child.NotBefore.IsZero() || child.NotBefore.Before(parent.NotBefore)) {
		return false, false
	}
	return true, false
}

// search looks for a path of delegations from a capability up to the owner of its resource.
type search struct {
	find    func(tinycloud.Hash) *token.Token // a delegation of the set, nil when unknown
	live    func(tinycloud.Hash) bool         // nil: revocations do not count
	at      time.Time                         // zero: windows do not count
	slack   time.Duration
	budget  int
	missing []tinycloud.Hash    // proofs not in the set
	revoked tinycloud.Hash      // a revoked delegation that would have helped
	path    []tinycloud.Hash    // of the path found, leaf first
	by      tinycloud.Principal // not "": some token of the path must be of this signer
}

// Justified reports whether a token's signer holds one of the token's capabilities: as owner of its
// resource, or by a path of delegations, which find looks up, to its owner. What is revoked or out of its
// window now counts all the same.
func Justified(t *token.Token, c recap.Capability, find func(tinycloud.Hash) *token.Token) bool {
	s := &search{find: find, budget: MaxChain}
	return s.justify(t, c)
}

// justify reports whether a token's signer holds one of the token's capabilities.
func (s *search) justify(t *token.Token, c recap.Capability) bool {
	if s.by == t.Signer {
		s.by = ""
		defer func() { s.by = t.Signer }()
	}
	if owner, ok := c.Resource.Owner(); ok && owner == t.Signer && s.by == "" {
		return true
	}
	for _, id := range t.Proofs {
		if s.budget--; s.budget < 0 {
			return false
		}
		parent := s.find(id)
		if parent == nil {
			s.missing = append(s.missing, id)
			continue
		}
		if s.fits(parent, t) && s.through(parent, c) {
			s.path = append(s.path, id)
			return true
		}
	}
	return false
}

func (s *search) fits(parent, child *token.Token) bool {
	if parent.Audience != child.Signer {
		return false
	}
	if child.Kind == token.Delegation {
		if ok, _ := WindowWithin(parent, child); !ok {
			return false
		}
	}
	if !s.at.IsZero() && !parent.ValidAt(s.at, s.slack) {
		return false
	}
	if s.live != nil && !s.live(parent.ID) {
		s.revoked = parent.ID
		return false
	}
	return true
}

func (s *search) through(parent *token.Token, c recap.Capability) bool {
	for _, held := range parent.Caps {
		if Grants(held, c) && s.justify(parent, held) {
			return true
		}
	}
	return false
}
