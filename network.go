package tinycloud

import (
	"strings"
)

// NetworkID names an encryption network: "urn:tinycloud:encryption:" ‖ the owner's DID ‖ ":" ‖ name (docs/protocol.md,
// "Encryption networks"). It is comparable; String round-trips. All that name one network share its texts.
type NetworkID struct {
	ownedID
}

const (
	networkPrefix = "urn:tinycloud:encryption:"
	maxNetwork    = 1024 // bytes of an id as written
	// MaxNetworkName is in bytes, for a network that is to be created.
	MaxNetworkName = 128
)

// ParseNetworkID reads the id of a network and canonicalises its owner. An owner that does not begin like a DID stays as
// it is; such a network has no owner who could sign. The error is a refusal of class [ErrInvalid].
func ParseNetworkID(text string) (NetworkID, error) {
	rest, ok := strings.CutPrefix(text, networkPrefix)
	if !ok {
		return NetworkID{}, Refuse(ErrInvalid, "missing %s prefix", networkPrefix)
	}
	cut := strings.LastIndexByte(rest, ':')
	if cut < 0 {
		return NetworkID{}, Refuse(ErrInvalid, "missing owner DID/name separator")
	}
	return makeNetworkID(rest[:cut], rest[cut+1:])
}

// NewNetworkID returns the id of a network that is to be created: the owner has to be a DID, and the name consist of lower
// case letters, digits and hyphens, of which the first is none. The error is a refusal of class [ErrInvalid].
func NewNetworkID(owner, name string) (NetworkID, error) {
	id, err := makeNetworkID(owner, name)
	switch {
	case err != nil:
		return NetworkID{}, err
	case !isDID(owner):
		return NetworkID{}, Refuse(ErrInvalid, "invalid owner principal: not a DID")
	case len(name) > MaxNetworkName:
		return NetworkID{}, Refuse(ErrInvalid, "network name of %d bytes, at most %d", len(name), MaxNetworkName)
	case name[0] == '-' || !spelled(name, inNetwork) || strings.Contains(name, "%"):
		return NetworkID{}, Refuse(ErrInvalid, "network name has to match ^[a-z0-9][a-z0-9-]*$")
	}
	return id, nil
}

func makeNetworkID(owner, name string) (NetworkID, error) {
	switch {
	case len(owner)+len(name) > maxNetwork:
		return NetworkID{}, Refuse(ErrInvalid, "network id of %d bytes, at most %d", len(owner)+len(name), maxNetwork)
	case owner == "":
		return NetworkID{}, Refuse(ErrInvalid, "empty owner DID")
	case name == "":
		return NetworkID{}, Refuse(ErrInvalid, "empty network name")
	case strings.ContainsAny(name, ":/"):
		return NetworkID{}, Refuse(ErrInvalid, "network name may not contain ':' or '/'")
	}
	p := Principal(owner)
	if strings.HasPrefix(owner, "did:") {
		var err error
		if p, err = canonicalDID(owner); err != nil || !isDID(owner) {
			return NetworkID{}, Refuse(ErrInvalid, "invalid owner principal: not a DID")
		}
	}
	return NetworkID{newOwnedID(networkPrefix+string(p), p, name)}, nil
}
