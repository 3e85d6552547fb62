package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Standing tells whether cited delegations, and all that they rest on, are still in force: it returns the
// earliest of their ends, zero for none, or a refusal of class [tinycloud.ErrUnauthorized] when one was
// revoked. It does not judge windows or what they grant.
func (s *Store) Standing(ctx context.Context, proofs []tinycloud.Hash) (ends time.Time, err error) {
	if err := s.fresh(ctx); err != nil {
		return ends, err
	}
	c := s.chain(s.db.Read)
	seen := map[tinycloud.Hash]bool{}
	for todo := proofs; len(todo) > 0; todo = todo[1:] {
		id := todo[0]
		if seen[id] {
			continue
		}
		if seen[id] = true; len(seen) > judge.MaxChain {
			return ends, tinycloud.Refuse(tinycloud.ErrUnauthorized, "delegation-chain-traversal-limit-exceeded")
		}
		if c.revoked(id) {
			return ends, tinycloud.Refuse(tinycloud.ErrUnauthorized, "delegation-revoked: %s", id.EventID())
		}
		t, err := s.token(ctx, s.db.Read, id)
		if err != nil {
			return ends, err
		}
		if t == nil {
			continue // an owner may cite what does not exist
		}
		if !t.Expires.IsZero() && (ends.IsZero() || t.Expires.Before(ends)) {
			ends = t.Expires
		}
		if len(dependent(t)) > 0 {
			todo = append(todo[:len(todo):len(todo)], t.Proofs...)
		}
	}
	return ends, nil
}
