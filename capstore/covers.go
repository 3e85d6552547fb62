package capstore

import (
	"context"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Covers reports whether an admitted invocation's signer holds an ability on a subject, under the caveats
// that the invocation itself repeats: as owner of the Space, or by one of the proofs it cites.
func (s *Store) Covers(ctx context.Context, t *Token, about tinycloud.Resource, ability string) bool {
	space := about.Space()
	if space.Owner() == t.Signer {
		return true
	}
	subject, ok := about.Path()
	if !ok {
		return false
	}
	c := s.chain(s.db.Read)
	parents, err := c.parents(ctx, t)
	if err != nil {
		return false
	}
	for _, asked := range t.Caps {
		path, _ := asked.Resource.Path()
		if asked.Ability != ability || asked.Resource.Space() != space || !strings.HasPrefix(subject, path) {
			continue
		}
		wanted := Capability{Resource: about, Ability: ability, Caveats: asked.Caveats}
		if ok, _ := c.granted(ctx, wanted, parents); ok && c.failed == nil {
			return true
		}
	}
	return false
}
