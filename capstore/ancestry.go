package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// ancestry is what is wrong, if anything, with what a delegation rests on.
type ancestry struct {
	revoked tinycloud.Hash // one of them that is revoked
	expired bool           // one of them has expired
	early   bool           // one of them is not valid yet
}

func (a ancestry) inWindow() bool { return !a.expired && !a.early }

// look takes the window of a delegation into account.
func (a *ancestry) look(t *Token, now time.Time) {
	switch {
	case t.ValidAt(now, 0):
	case !t.Expires.IsZero() && now.After(t.Expires):
		a.expired = true
	default:
		a.early = true
	}
}

// ancestors walks what a delegation rests on, nearest first, up to the first that is revoked.
func (c *chain) ancestors(ctx context.Context, p *Token, now time.Time) (a ancestry, err error) {
	if len(dependent(p)) == 0 {
		return a, nil
	}
	seen := map[tinycloud.Hash]bool{p.ID: true}
	todo := []*Token{p}
	for len(todo) > 0 {
		t := todo[0]
		todo = todo[1:]
		for _, id := range t.Proofs {
			if seen[id] {
				continue
			}
			if seen[id] = true; len(seen) > judge.MaxChain {
				return a, errTraversal()
			}
			parent, err := c.s.token(ctx, c.q, id)
			if err != nil {
				return a, err
			}
			if parent == nil {
				continue // an owner may cite what does not exist
			}
			if c.revoked(id) {
				a.revoked = id
				return a, nil
			}
			a.look(parent, now)
			todo = append(todo, parent)
		}
	}
	return a, nil
}
