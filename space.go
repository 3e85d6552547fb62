package tinycloud

import (
	"fmt"
	"strings"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/recent"
)

// SpaceID names a Space: "tinycloud:" ‖ the owner's DID without "did:" ‖ ":" ‖ name (docs/protocol.md, "Space id").
// It is comparable; String round-trips. All that name one Space share its texts, so that an id is as large as a pointer.
type SpaceID struct {
	ownedID
}

// ParseSpaceID reads a Space id and canonicalises its owner. The error is of class [ErrInvalid].
func ParseSpaceID(text string) (SpaceID, error) {
	u, ok := splitURI(text)
	if !ok || u.scheme != "tinycloud" || u.hasAuthority || u.hasQuery || u.hasFragment ||
		strings.Contains(u.path, "/") || !u.normalised() {
		return SpaceID{}, fmt.Errorf("space id %q: %w", clip(text), ErrInvalid)
	}
	return newSpaceID(u.path)
}

// spaces are ids that were read lately: most of the time goes into the spelling of an owner, and requests name few Spaces.
var spaces = recent.New[SpaceID]()

// newSpaceID reads an id without its scheme.
func newSpaceID(path string) (SpaceID, error) { return spaces.Of(path, readSpaceID) }

func readSpaceID(path string) (SpaceID, error) {
	cut := strings.LastIndexByte(path, ':')
	if cut < 0 {
		return SpaceID{}, fmt.Errorf("space id %q: no name: %w", clip(path), ErrInvalid)
	}
	did, name := "did:"+path[:cut], path[cut+1:]
	// The name and the DID suffix become directory names of the block store.
	if name == "" || name == "." || name == ".." || len(name) > 255 || len(did) > 255 {
		return SpaceID{}, fmt.Errorf("space id %q: name: %w", clip(path), ErrInvalid)
	}
	if !isDID(did) {
		return SpaceID{}, fmt.Errorf("space id %q: owner is not a DID: %w", clip(path), ErrInvalid)
	}
	owner, err := canonicalDID(did)
	if err != nil {
		return SpaceID{}, fmt.Errorf("space id: %w", err)
	}
	return SpaceID{newOwnedID(spacePrefix+string(owner)[len(didPrefix):], owner, name)}, nil
}

// What a Space's id begins with, and its owner.
const (
	spacePrefix = "tinycloud:"
	didPrefix   = "did:"
)

// MarshalText returns the id.
func (s SpaceID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses an id.
func (s *SpaceID) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSpaceID(string(text))
	return err
}

// secretsName is the name of the Space whose hosts keep its owner's encryption networks.
const secretsName = "secrets"

// SecretsOf returns the Space whose hosts keep an owner's encryption networks; ok is false for one who can own none.
func SecretsOf(owner Principal) (id SpaceID, ok bool) {
	did, ok := strings.CutPrefix(string(owner), didPrefix)
	if !ok {
		return id, false
	}
	id, err := ParseSpaceID(spacePrefix + did + ":" + secretsName)
	return id, err == nil && id.Owner() == owner
}

// IsSecrets reports whether the Space is one of [SecretsOf].
func (s SpaceID) IsSecrets() bool { return s.Name() == secretsName }
