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
	space   SpaceID   // zero for a resource outside any Space
	network NetworkID // zero for what is no encryption network

	// Of a Space's resource, where in the text its parts are: tokens have hundreds of resources.
	service    uint16 // where the service begins
	serviceEnd uint16
	pathEnd    uint16 // of service and path; beyond serviceEnd if there is a path
	fragment   uint16 // where "#fragment" begins, as far as there is one
}

const maxResource = 4096 // bytes of one as written, which its canonical spelling does not exceed

// ParseResource reads a capability's URI. A "tinycloud:" URI that is not of the resource grammar is an
// other URI; what is no URI at all is an error of class [ErrInvalid].
func ParseResource(text string) (Resource, error) { return ParseResourceBeside(text, Resource{}) }

// ParseResourceBeside is [ParseResource], and faster where the resource is in the same Space as another one: most of the
// time goes into the spelling of its owner.
func ParseResourceBeside(text string, other Resource) (Resource, error) {
	u, ok := splitURI(text)
	if !ok || len(text) > maxResource {
		return Resource{}, fmt.Errorf("resource %q is not a URI: %w", clip(text), ErrInvalid)
	}
	if r, ok := spaceResource(u, other.space); ok {
		return r, nil
	}
	r := Resource{text: text}
	if id, err := ParseNetworkID(text); err == nil && isDID(string(id.Owner())) {
		r.network = id
	}
	return r, nil
}

func spaceResource(u uri, space SpaceID) (Resource, bool) {
	left, right, ok := strings.Cut(u.path, "/")
	if !ok || u.scheme != "tinycloud" || u.hasAuthority || !u.normalised() {
		return Resource{}, false
	}
	if space.IsZero() || left != space.String()[len(spacePrefix):] {
		var err error
		if space, err = newSpaceID(left); err != nil {
			return Resource{}, false
		}
	}
	service, path, hasPath := strings.Cut(right, "/")
	if service == "" || strings.Contains(service, ":") {
		return Resource{}, false
	}
	var query, fragment string
	if u.hasQuery {
		query = "?" + u.query
	}
	if u.hasFragment {
		fragment = "#" + u.fragment
	}
	r := Resource{space: space, text: space.String() + "/" + right + query + fragment}
	r.service = uint16(len(space.String()) + len("/"))
	r.serviceEnd = r.service + uint16(len(service))
	if r.pathEnd = r.serviceEnd; hasPath {
		r.pathEnd += uint16(len("/") + len(path))
	}
	r.fragment = r.pathEnd + uint16(len(query))
	return r, true
}

// NewKey returns the resource of a key of a Space's service; ok is false when the key cannot stand in
// a resource.
func (s SpaceID) NewKey(service, key string) (r Resource, ok bool) {
	r, err := ParseResource(s.String() + "/" + service + "/" + key)
	path, ok := r.Path()
	return r, err == nil && r.space == s && ok && path == key && int(r.pathEnd) == len(r.text)
}

// Compact has resources that are kept together share one text, with nothing else in it: a text for each is what breaks up
// memory. Equal ones that follow each other share theirs.
func Compact(resources []*Resource) {
	var all strings.Builder
	ends := make([]int, len(resources))
	for i, r := range resources {
		if i == 0 || r.text != resources[i-1].text {
			all.WriteString(r.text)
		}
		ends[i] = all.Len()
	}
	text := strings.Clone(all.String()) // without the room that is left
	for i, r := range resources {
		r.text = text[ends[i]-len(r.text) : ends[i]]
	}
}

// String returns the resource with its Space id in canonical spelling.
func (r Resource) String() string { return r.text }

// Space returns the Space, or the zero SpaceID for an other URI.
func (r Resource) Space() SpaceID { return r.space }

// InSpace reports whether the resource belongs to a Space.
func (r Resource) InSpace() bool { return !r.space.IsZero() }

// Service returns the service's name, "" for an other URI.
func (r Resource) Service() string { return r.text[r.service:r.serviceEnd] }

// Path returns the path and whether there is one: "…/kv" has none, "…/kv/" has the empty one.
func (r Resource) Path() (string, bool) {
	if !r.hasPath() {
		return "", false
	}
	return r.path(), true
}

func (r *Resource) hasPath() bool { return r.pathEnd > r.serviceEnd }

// path is that of a resource that has one.
func (r *Resource) path() string { return r.text[r.serviceEnd+1 : r.pathEnd] }

// Bare reports whether the resource is the service alone: no path, query or fragment.
func (r Resource) Bare() bool { return r.InSpace() && int(r.serviceEnd) == len(r.text) }

// Owner returns the DID that holds the resource without any delegation: the Space's owner, or the
// owner named in the id of an encryption network.
func (r Resource) Owner() (Principal, bool) {
	if r.InSpace() {
		return r.space.Owner(), true
	}
	id, ok := r.Network()
	return id.Owner(), ok
}

// Network returns the encryption network that the resource is.
func (r Resource) Network() (NetworkID, bool) { return r.network, !r.network.IsZero() }

// Extends reports whether r lies within base (docs/protocol.md, "Attenuation"): same Space, service and fragment, and
// a path that continues base's at a segment boundary. Queries are ignored.
func (r Resource) Extends(base Resource) bool { return r.Within(&base) }

// Within is [Resource.Extends] for who compares many: resources are large.
func (r *Resource) Within(base *Resource) bool {
	if !r.InSpace() || !base.InSpace() {
		return r.otherWithin(*base)
	}
	if base.hasPath() && (!r.hasPath() || !strings.HasPrefix(r.path(), base.path())) {
		return false // first, since this tells most apart
	}
	if r.space != base.space || r.Service() != base.Service() || r.text[r.fragment:] != base.text[base.fragment:] {
		return false
	}
	if !base.hasPath() {
		return true
	}
	rest := r.path()[len(base.path()):]
	return rest == "" || strings.HasSuffix(base.path(), "/") || rest[0] == '/'
}

// otherWithin compares URIs outside any Space. Encryption networks match when they are the same after
// canonicalising, everything else when it is the same text.
func (r Resource) otherWithin(base Resource) bool {
	if r.InSpace() || base.InSpace() {
		return false
	}
	if !r.network.IsZero() || !base.network.IsZero() {
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
