package tinycloud

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Resource is what a capability is about: a service of a Space and optionally a path in it, or any other URI
// (docs/protocol.md, "Resource").
type Resource struct {
	text    string
	space   SpaceID // zero for a resource outside any Space
	service string
	path    string
	hasPath bool
	tail    string // "?query" and "#fragment" as written
	frag    string // "#fragment" or ""
	network string // canonical id of an encryption network, else ""
}

// ParseResource reads a capability's URI. A "tinycloud:" URI that is not of the resource grammar is an
// other URI; what is no URI at all is an error of class [ErrInvalid].
func ParseResource(text string) (Resource, error) {
	u, ok := splitURI(text)
	if !ok || len(text) > 4096 {
		return Resource{}, fmt.Errorf("resource %q is not a URI: %w", clip(text), ErrInvalid)
	}
	if r, ok := spaceResource(u); ok {
		return r, nil
	}
	r := Resource{text: text}
	if id, err := ParseNetworkID(text); err == nil && isDID(string(id.owner)) {
		r.network = id.text
	}
	return r, nil
}

func spaceResource(u uri) (Resource, bool) {
	left, right, ok := strings.Cut(u.path, "/")
	if !ok || u.scheme != "tinycloud" || u.hasAuthority || !u.normalised() {
		return Resource{}, false
	}
	space, err := newSpaceID(left)
	if err != nil {
		return Resource{}, false
	}
	r := Resource{space: space}
	r.service, r.path, r.hasPath = strings.Cut(right, "/")
	if r.service == "" || strings.Contains(r.service, ":") {
		return Resource{}, false
	}
	if u.hasQuery {
		r.tail = "?" + u.query
	}
	if u.hasFragment {
		r.frag = "#" + u.fragment
		r.tail += r.frag
	}
	r.text = space.text + "/" + right + r.tail
	return r, true
}

// NewKey returns the resource of a key of a Space's service; ok is false when the key cannot stand in
// a resource.
func (s SpaceID) NewKey(service, key string) (r Resource, ok bool) {
	r, err := ParseResource(s.text + "/" + service + "/" + key)
	return r, err == nil && r.space == s && r.hasPath && r.path == key && r.tail == ""
}

// Compact returns the same resource with texts that are no parts of longer ones, for who keeps it beside another one that
// is compact; of the same Space they share its texts.
func (r Resource) Compact(beside Resource) Resource {
	again, err := ParseResource(strings.Clone(r.text))
	if err != nil || again != r {
		return r
	}
	if again.space == beside.space {
		again.space = beside.space
	}
	return again
}

// String returns the resource with its Space id in canonical spelling.
func (r Resource) String() string { return r.text }

// Space returns the Space, or the zero SpaceID for an other URI.
func (r Resource) Space() SpaceID { return r.space }

// InSpace reports whether the resource belongs to a Space.
func (r Resource) InSpace() bool { return !r.space.IsZero() }

// Service returns the service's name, "" for an other URI.
func (r Resource) Service() string { return r.service }

// Path returns the path and whether there is one: "…/kv" has none, "…/kv/" has the empty one.
func (r Resource) Path() (string, bool) { return r.path, r.hasPath }

// Bare reports whether the resource is the service alone: no path, query or fragment.
func (r Resource) Bare() bool { return r.InSpace() && !r.hasPath && r.tail == "" }

// Owner returns the DID that holds the resource without any delegation: the Space's owner, or the
// owner named in the id of an encryption network.
func (r Resource) Owner() (Principal, bool) {
	if r.InSpace() {
		return r.space.owner, true
	}
	id, ok := r.Network()
	return id.owner, ok
}

// Network returns the encryption network that the resource is.
func (r Resource) Network() (NetworkID, bool) {
	if r.network == "" {
		return NetworkID{}, false
	}
	id, err := ParseNetworkID(r.network)
	return id, err == nil
}

// Extends reports whether r lies within base (docs/protocol.md, "Attenuation"): same Space, service and fragment, and
// a path that continues base's at a segment boundary. Queries are ignored.
func (r Resource) Extends(base Resource) bool { return r.Within(&base) }

// Within is [Resource.Extends] for who compares many: resources are large.
func (r *Resource) Within(base *Resource) bool {
	if !r.InSpace() || !base.InSpace() {
		return r.otherWithin(*base)
	}
	if base.hasPath && !strings.HasPrefix(r.path, base.path) {
		return false // first, since this tells most apart
	}
	if r.space != base.space || r.service != base.service || r.frag != base.frag {
		return false
	}
	if !base.hasPath {
		return true
	}
	rest, ok := strings.CutPrefix(r.path, base.path)
	return ok && r.hasPath && (rest == "" || strings.HasSuffix(base.path, "/") || rest[0] == '/')
}

// otherWithin compares URIs outside any Space. Encryption networks match when they are the same after
// canonicalising, everything else when it is the same text.
func (r Resource) otherWithin(base Resource) bool {
	if r.InSpace() || base.InSpace() {
		return false
	}
	if r.network != "" || base.network != "" {
		return r.network == base.network
	}
	return r.text == base.text
}

// IsAbility reports whether s is of the form namespace/name (docs/protocol.md, "Abilities").
func IsAbility(s string) bool {
	ns, name, ok := strings.Cut(s, "/")
	return ok && abilityPart(ns) && abilityPart(name)
}

func abilityPart(s string) bool {
	for _, c := range s {
		if !unicode.IsLetter(c) && !unicode.IsNumber(c) && !strings.ContainsRune("-_.+*", c) {
			return false
		}
	}
	return s != "" && utf8.ValidString(s)
}
