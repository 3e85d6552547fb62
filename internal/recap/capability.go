package recap

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Bounds of a token.
const (
	MaxCapabilities = 256
	MaxProofs       = 32
)

// Capability is one ability on one resource.
type Capability struct {
	Resource tinycloud.Resource
	URI      string // the resource as written, which the user's statement repeats
	Ability  string
	// Caveats is the list of caveats with members sorted and white space removed, so that equal caveats
	// are equal text; nil when no caveat of the list says anything, as in [{}].
	Caveats json.RawMessage
	// Place is where the signer put the capability in the att object, from 0.
	Place int
}

// Proofs are the ids of the delegations a token rests on, in the order written.
type Proofs struct {
	Hashes []tinycloud.Hash
	Texts  []string // the CIDs as written
}

// Capabilities reads an att object, {uri: {ability: [caveat, …]}}. Caveats are refused unless allowed,
// save for members that are null. The error is of class [tinycloud.ErrUndecodable].
func Capabilities(att Value, allowCaveats bool) ([]Capability, error) {
	if att.Kind != Object {
		return nil, undecodable("att is no object")
	}
	var caps []Capability
	var resource tinycloud.Resource
	for _, m := range att.Members {
		var err error
		if resource, err = tinycloud.ParseResourceBeside(m.Name, resource); err != nil || m.Value.Kind != Object {
			return nil, undecodable("att: resource %q", clip(m.Name))
		}
		for _, a := range m.Value.Members {
			caveats, err := parseCaveats(a.Value, allowCaveats)
			if err != nil {
				return nil, err
			}
			if !tinycloud.IsAbility(a.Name) {
				return nil, undecodable("att: ability %q", clip(a.Name))
			}
			if len(caps) == MaxCapabilities {
				return nil, undecodable("more than %d capabilities", MaxCapabilities)
			}
			caps = append(caps, Capability{Resource: resource, URI: m.Name, Ability: a.Name, Caveats: caveats, Place: len(caps)})
		}
	}
	sortCapabilities(caps)
	return caps, onlyOnce(caps)
}

func sortCapabilities(caps []Capability) {
	slices.SortFunc(caps, func(a, b Capability) int {
		return cmp.Or(cmp.Compare(a.URI, b.URI), cmp.Compare(a.Ability, b.Ability))
	})
}

// onlyOnce refuses two spellings of one resource with one ability: they could carry different caveats.
func onlyOnce(caps []Capability) error {
	if len(caps) < 2 {
		return nil
	}
	type meaning struct{ resource, ability string }
	seen := make(map[meaning]bool, len(caps))
	for _, c := range caps {
		m := meaning{c.Resource.String(), c.Ability}
		if seen[m] {
			return undecodable("att: %s on %q twice", c.Ability, clip(m.resource))
		}
		seen[m] = true
	}
	return nil
}

func parseCaveats(list Value, allow bool) (json.RawMessage, error) {
	if list.Kind != Array || len(list.Items) == 0 {
		return nil, undecodable("att: caveats are no list or an empty one")
	}
	said := false
	for _, item := range list.Items {
		if item.Kind != Object {
			return nil, undecodable("att: a caveat is no object")
		}
		for _, m := range item.Members {
			if !allow && m.Value.Kind != Null {
				return nil, undecodable("att: caveat %q in a signed message", clip(m.Name))
			}
			said = said || allow
		}
	}
	if !said {
		return nil, nil
	}
	return AppendCanonical(nil, list), nil
}

// ParseProofs reads a list of CIDs, which all have to begin with prefix. The error is of class
// [tinycloud.ErrUndecodable].
func ParseProofs(prf Value, prefix string) (Proofs, error) {
	var p Proofs
	if prf.Kind != Array {
		return p, undecodable("prf is no list")
	}
	if len(prf.Items) > MaxProofs {
		return p, undecodable("more than %d proofs", MaxProofs)
	}
	for _, item := range prf.Items {
		hash, err := tinycloud.ParseCID(item.Text)
		if item.Kind != String || err != nil || !strings.HasPrefix(item.Text, prefix) {
			return Proofs{}, undecodable("prf: %q is not a CID", clip(item.Text))
		}
		p.Hashes = append(p.Hashes, hash)
		p.Texts = append(p.Texts, item.Text)
	}
	return p, nil
}

// AppendCanonical appends a value with its members sorted by the bytes of their names and no white space. Numbers stay as
// written.
func AppendCanonical(b []byte, v Value) []byte {
	switch v.Kind {
	case String:
		return AppendString(b, v.Text)
	case Array:
		b = append(b, '[')
		for i, item := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendCanonical(b, item)
		}
		return append(b, ']')
	case Object:
		members := slices.SortedFunc(slices.Values(v.Members), func(x, y Member) int {
			return cmp.Compare(x.Name, y.Name)
		})
		b = append(b, '{')
		for i, m := range members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(AppendString(b, m.Name), ':')
			b = AppendCanonical(b, m.Value)
		}
		return append(b, '}')
	}
	return append(b, v.Raw...)
}

const hexDigits = "0123456789abcdef"

// AppendString appends a JSON string with the fewest escapes (RFC 8785 §3.2.2.2). Package encoding/json escapes more: <, >,
// & and two separators of lines.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if c < ' ' {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"')
}

func undecodable(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), tinycloud.ErrUndecodable)
}
