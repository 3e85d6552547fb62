package capstore

import (
	"context"
	"encoding/base64"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Listed is a delegation as capabilities/read tells it.
type Listed struct {
	Token   *Token
	Parents []tinycloud.Hash
}

// Filter selects delegations; the zero Filter selects all.
type Filter struct {
	Direction string   // "created" or "received" by the invoker's wallet; anything else: both
	Path      string   // prefix of some capability's path
	Actions   []string // some capability's ability is one of these

	After tinycloud.Hash // only those behind it, in the order of ids
}

// Bounds of a page of capabilities/read.
const (
	maxListed      = 10_000   // delegations that are looked at
	maxListedBytes = 4 << 20  // of the answer, about
	maxListedLooks = 16 << 10 // at what they rest on
	listedAtOnce   = 256
)

// Page is a part of the delegations of a Space, ascending by id.
type Page struct {
	IDs  []tinycloud.Hash
	Next tinycloud.Hash // the last that was looked at when there are more, else zero
}

// Capabilities finds the delegations in force that name a Space (docs/protocol.md, "Capabilities"): as many as are
// listed at once. What they are, [Store.Listed] tells one by one, so that they need not be in memory together.
func (s *Store) Capabilities(ctx context.Context, inv *Token, space tinycloud.SpaceID, f Filter) (p Page, err error) {
	if err := s.fresh(ctx); err != nil {
		return p, err
	}
	wallet, err := s.wallet(ctx, inv)
	if err != nil {
		return p, err
	}
	now, size, looks, last := s.o.Now(), 0, 0, f.After
	for seen := 0; ; {
		ids, err := s.mentioned(ctx, s.db.Read, space, last, listedAtOnce)
		if err != nil || len(ids) == 0 {
			return p, err
		}
		for _, id := range ids {
			t, err := s.token(ctx, s.db.Read, id)
			if err != nil {
				return p, err
			}
			c := s.chain(s.db.Read)
			if t != nil && slices.Contains(t.Spaces(), space) && t.ValidAt(now, 0) && !s.isRevoked(id) && f.matches(t, wallet) && c.stands(ctx, t) {
				p.IDs, size = append(p.IDs, id), size+listedSize(t)
			}
			if c.failed != nil {
				return p, c.failed
			}
			last, seen, looks = id, seen+1, looks+c.looked()
			if seen >= maxListed || size >= maxListedBytes || looks >= maxListedLooks {
				more, err := s.mentioned(ctx, s.db.Read, space, last, listedAtOnce)
				if len(more) > 0 {
					p.Next = last
				}
				return p, err
			}
		}
	}
}

// mentioned returns up to limit delegations, and revocations of them, that name a Space, behind one in the order of ids.
func (s *Store) mentioned(ctx context.Context, q querier, space tinycloud.SpaceID, after tinycloud.Hash, limit int) ([]tinycloud.Hash, error) {
	return hashes(ctx, q, "SELECT id FROM mentions WHERE space = ? AND id > ? ORDER BY id LIMIT ?", space.String(), after[:], limit)
}

// listedSize is about how many bytes of JSON a delegation makes: its capabilities repeat the resource.
func listedSize(t *Token) int {
	const each, proof = 64, 200
	n := each + len(t.Signer) + len(t.Audience) + base64.URLEncoding.EncodedLen(len(t.Bytes)) + proof*len(t.Proofs)
	for _, c := range t.Caps {
		n += each + len(c.Resource.String()) + len(c.Ability) + len(c.Caveats)
	}
	return n
}

// Listed returns a delegation of a [Page]; ok is false when it is gone.
func (s *Store) Listed(ctx context.Context, id tinycloud.Hash) (l Listed, ok bool, err error) {
	t, err := s.token(ctx, s.db.Read, id)
	if err != nil || t == nil {
		return l, false, err
	}
	return Listed{Token: t, Parents: t.Proofs}, true, nil
}

func (f Filter) matches(t *Token, wallet tinycloud.Principal) bool {
	switch {
	case f.Direction == "created" && t.Signer != wallet, f.Direction == "received" && t.Audience != wallet:
		return false
	}
	hasPath, hasAction := f.Path == "", len(f.Actions) == 0
	for _, c := range t.Caps {
		path, ok := c.Resource.Path()
		if ok && len(path) >= len(f.Path) && path[:len(f.Path)] == f.Path {
			hasPath = true
		}
		hasAction = hasAction || slices.Contains(f.Actions, c.Ability)
	}
	return hasPath && hasAction
}

// wallet follows an invocation's own chain up to the did:pkh that began it; the invoker when there is
// none.
func (s *Store) wallet(ctx context.Context, inv *Token) (tinycloud.Principal, error) {
	t := inv
	for range judge.MaxChain {
		if _, _, ok := t.Signer.EIP155(); ok || len(t.Proofs) == 0 {
			break
		}
		p, err := s.token(ctx, s.db.Read, t.Proofs[0])
		if err != nil {
			return "", err
		}
		if p == nil {
			break
		}
		t = p
	}
	if _, _, ok := t.Signer.EIP155(); ok {
		return t.Signer, nil
	}
	return inv.Signer, nil
}

// Chain returns a delegation and what it rests on by first proofs, leaf first, as far as it is in force
// and names the Space.
func (s *Store) Chain(ctx context.Context, space tinycloud.SpaceID, id tinycloud.Hash) ([]tinycloud.Hash, error) {
	if err := s.fresh(ctx); err != nil {
		return nil, err
	}
	var out []tinycloud.Hash
	now, c := s.o.Now(), s.chain(s.db.Read)
	for range judge.MaxChain {
		t, err := s.token(ctx, s.db.Read, id)
		if err != nil {
			return nil, err
		}
		if t == nil || t.Kind != token.Delegation || !t.ValidAt(now, 0) || s.isRevoked(id) || !slices.Contains(t.Spaces(), space) || !c.stands(ctx, t) {
			break
		}
		out = append(out, id)
		if len(t.Proofs) == 0 {
			break
		}
		id = t.Proofs[0]
	}
	return out, c.failed
}
