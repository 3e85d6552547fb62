package judge

import (
	"bytes"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/caveat"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/recap"
)

// Bounds of what is looked at. They are part of the rules.
const (
	MaxLooks = 1024 // delegations, to find out whether a token's signer has all that it gives or uses
	MaxChain = 64   // likewise, of one right to host or to revoke
)

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
func Grants(held, wanted recap.Capability) bool { return grants(&held, &wanted) }

func grants(held, wanted *recap.Capability) bool {
	return new(Search).grants(held, wanted)
}

func (s *Search) grants(held, wanted *recap.Capability) bool {
	if !wanted.Resource.Within(&held.Resource) || !Covers(held.Ability, wanted.Ability) {
		return false
	}
	_, ok := s.Keeps(held, wanted)
	return ok
}

// Keeps reports whether the wanted capability keeps the caveats of the held one: none admits any, equal ones admit, and of
// SQL those that list fewer statements, or fix more of their parameters; code says why such a list is none. All others are
// refused, since this node cannot compare them.
func (s *Search) Keeps(held, wanted *recap.Capability) (code string, ok bool) {
	if held.Caveats == nil {
		return "", true
	}
	if held.Resource.Service() == caveat.Service {
		if parent := s.constrained(held.Caveats); parent != nil {
			code = caveat.Within(parent, s.constrained(wanted.Caveats))
			return code, code == ""
		}
	}
	return "", bytes.Equal(held.Caveats, wanted.Caveats)
}

// constrained reads caveats once for all that they are compared with in a search.
func (s *Search) constrained(caveats []byte) *caveat.Constrained {
	if len(caveats) == 0 {
		return nil
	}
	c, ok := s.caveats[&caveats[0]]
	if !ok {
		if s.caveats == nil {
			s.caveats = map[*byte]*caveat.Constrained{}
		}
		c = caveat.Alone(caveats)
		s.caveats[&caveats[0]] = c
	}
	return c
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

// Search looks for paths of delegations from the capabilities of one token up to the owners of their resources. What is
// found of a capability of a delegation is not looked for again, and all that is looked at for the token counts
// together, so that what many capabilities and proofs cost has one bound. It is not safe for concurrent use.
type Search struct {
	find    func(tinycloud.Hash) *token.Token // a delegation of the set, nil when unknown
	live    func(tinycloud.Hash) bool         // nil: revocations do not count
	at      time.Time                         // zero: windows do not count
	slack   time.Duration
	looks   int                           // that are left; below 0 nothing more is found
	found   map[held]bool                 // whether a delegation's signer had a capability to give
	missing []tinycloud.Hash              // proofs not in the set
	revoked tinycloud.Hash                // a revoked delegation that would have helped
	caveats map[*byte]*caveat.Constrained // by their first bytes
	by      tinycloud.Principal           // not "": some token of the path must be of this signer
}

// held names a capability of a delegation: the n-th.
type held struct {
	token tinycloud.Hash
	n     int
	by    bool // the path has to pass a signer
}

// NewSearch begins a search for one token among the delegations that find looks up. What is revoked or out of its window
// now counts all the same.
func NewSearch(find func(tinycloud.Hash) *token.Token) *Search {
	return &Search{find: find, looks: MaxLooks}
}

// At has only delegations count that are in their window at a time, widened by the slack.
func (s *Search) At(at time.Time) *Search {
	s.at, s.slack = at, Slack
	return s
}

// Spend counts looks at delegations that were made without the search.
func (s *Search) Spend(looks int) { s.looks -= looks }

// Looks is how many delegations may still be looked at; below 0 the search has ended without an answer.
func (s *Search) Looks() int { return s.looks }

// Justified reports whether a token's signer holds one of the token's capabilities: as owner of its resource, or by a
// path of delegations to its owner.
func (s *Search) Justified(t *token.Token, c recap.Capability) bool {
	if s.by == t.Signer {
		s.by = ""
		defer func() { s.by = t.Signer }()
	}
	if owner, ok := c.Resource.Owner(); ok && owner == t.Signer && s.by == "" {
		return true
	}
	for _, id := range t.Proofs {
		if s.looks--; s.looks < 0 {
			return false
		}
		parent := s.find(id)
		if parent == nil {
			s.missing = append(s.missing, id)
			continue
		}
		if s.fits(parent, t) && s.through(parent, c) {
			return true
		}
	}
	return false
}

func (s *Search) fits(parent, child *token.Token) bool {
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

func (s *Search) through(parent *token.Token, c recap.Capability) bool {
	for i := range parent.Caps {
		if s.grants(&parent.Caps[i], &c) && s.Holds(parent, i) {
			return true
		}
	}
	return false
}

// Holds reports whether a delegation's signer had the n-th of its capabilities to give.
func (s *Search) Holds(t *token.Token, n int) bool {
	if owner, ok := t.Caps[n].Resource.Owner(); ok && owner == t.Signer && s.by == "" {
		return true
	}
	what := held{t.ID, n, s.by != ""}
	if is, known := s.found[what]; known {
		return is
	}
	if s.found == nil {
		s.found = map[held]bool{}
	}
	s.found[what] = false // what leads back to itself leads nowhere
	is := s.Justified(t, t.Caps[n])
	s.found[what] = is
	return is
}
