package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// chain reads delegations for strict checks, as the reference makes them: every cited proof has to
// exist and fit.
type chain struct {
	s     *Store
	q     querier
	extra map[tinycloud.Hash]tinycloud.Hash // revocations of the running transaction

	failed  error // why a delegation could not be read
	wanting bool  // a cited delegation, or one that it rests on, is not here

	search *judge.Search // for the token that is checked
}

// proven is a token that was found to be granted all it needs, as what it was used: of a delegation the proofs have to
// last as long as itself, of an invocation not.
type proven struct {
	token tinycloud.Hash
	kind  token.Kind
}

// maxProofs is how many delegations a token may cite. Replicated ones may cite more.
const maxProofs = 8

func errTraversal() error {
	return tinycloud.Refuse(tinycloud.ErrUnauthorized, "delegation-chain-traversal-limit-exceeded")
}

func (s *Store) chain(q querier) *chain {
	return &chain{s: s, q: q}
}

func (c *chain) revoked(id tinycloud.Hash) bool {
	if _, ok := c.extra[id]; ok {
		return true
	}
	return c.s.isRevoked(id)
}

func (c *chain) parents(ctx context.Context, t *Token) ([]*Token, error) {
	if len(t.Proofs) > maxProofs {
		return nil, errTraversal()
	}
	out := make([]*Token, 0, len(t.Proofs))
	for _, id := range t.Proofs {
		p, err := c.s.token(ctx, c.q, id)
		if err != nil {
			return nil, err
		}
		if p == nil || p.Kind != token.Delegation {
			c.wanting = p == nil
			return nil, errNoParent()
		}
		out = append(out, p)
	}
	return out, nil
}

func errNoParent() error {
	return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Cannot find parent delegation")
}

// depends reports whether a token's signer holds a capability by proofs alone, owning not what it is about.
func depends(t *Token, c Capability) bool {
	owner, ok := c.Resource.Owner()
	return !ok || owner != t.Signer
}

func dependent(t *Token) []Capability {
	var out []Capability
	for _, c := range t.Caps {
		if depends(t, c) {
			out = append(out, c)
		}
	}
	return out
}

func (c *chain) authorise(ctx context.Context, t *Token, now time.Time) error {
	wanted := dependent(t)
	if len(wanted) == 0 {
		return nil
	}
	if len(t.Proofs) == 0 || repeated(t.Proofs) {
		return errNoParent()
	}
	parents, err := c.parents(ctx, t)
	if err != nil {
		return err
	}
	for _, p := range parents {
		if p.Audience != t.Signer {
			return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Unauthorized Invoker")
		}
	}
	for _, p := range parents {
		inWindow, err := c.lives(ctx, p, now, "delegation-revoked", "invoked")
		if err != nil {
			return err
		}
		if !inWindow || !p.ValidAt(now, 0) {
			return errAction(wanted[0])
		}
	}
	return c.all(ctx, t, wanted, parents, func(w Capability, caveats string) error {
		if caveats != "" {
			return tinycloud.Refuse(tinycloud.ErrUnauthorized, "invocation-caveats-not-subset-of-chain: %s", caveats)
		}
		return errAction(w)
	})
}

// all checks that a token's proofs grant each of its capabilities that needs them. That they do follows from the bytes of
// the tokens alone, so it is found out once, and what was found out before the writer's transaction costs nothing in it.
// refuse makes the refusal of what is not granted.
func (c *chain) all(ctx context.Context, t *Token, wanted []Capability, parents []*Token, refuse func(w Capability, caveats string) error) error {
	as := proven{t.ID, t.Kind}
	if c.s.granted.Contains(as) {
		c.wanting = false
		return nil
	}
	c.begin(ctx)
	for _, w := range wanted {
		c.search.Spend(len(t.Proofs)) // as hosts that judge it will look at them
		switch ok, caveats := c.granted(ctx, w, parents); {
		case c.failed != nil:
			return c.failed
		case c.search.Looks() < 0, ok && w.Ability == token.AbilityHost && !c.hosts(ctx, t, w):
			return errTraversal()
		case !ok:
			return refuse(w, caveats)
		}
	}
	if !t.ID.IsZero() {
		c.s.granted.Add(as, struct{}{})
	}
	return nil
}

func repeated(ids []tinycloud.Hash) bool {
	seen := map[tinycloud.Hash]bool{}
	for _, id := range ids {
		if seen[id] {
			return true
		}
		seen[id] = true
	}
	return false
}

func errAction(c Capability) error {
	return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Unauthorized Action: %s / %s", c.Resource, c.Ability)
}

// granted reports whether one of the delegations holds a capability, and if only its caveats stand in the way, which that
// are.
func (c *chain) granted(ctx context.Context, w Capability, parents []*Token) (ok bool, caveats string) {
	if c.search == nil {
		c.begin(ctx)
	}
	c.wanting = false // for what was granted
	for _, p := range parents {
		for i := range p.Caps {
			held := &p.Caps[i]
			if !w.Resource.Within(&held.Resource) || !judge.Covers(held.Ability, w.Ability) || !c.search.Holds(p, i) {
				if c.failed != nil {
					return false, ""
				}
				continue
			}
			code, keeps := c.search.Keeps(held, &w)
			if keeps {
				return true, ""
			}
			if caveats = code; code == "" {
				caveats = w.Resource.String() + " / " + w.Ability
			}
		}
	}
	return false, caveats
}

// begin starts the search for a token. A posted delegation was checked when it came, one that a peer's history brought
// was not: histories hold what is void, too.
func (c *chain) begin(ctx context.Context) {
	c.search = judge.NewSearch(func(id tinycloud.Hash) *Token { return c.find(ctx, id) })
}

// hosts reports whether a right to host that was granted is one for other hosts, who look less far for it.
func (c *chain) hosts(ctx context.Context, t *Token, w Capability) bool {
	s := judge.NewSearch(func(id tinycloud.Hash) *Token { return c.find(ctx, id) })
	s.Spend(judge.MaxLooks - judge.MaxChain)
	return s.Justified(t, w)
}

// find looks at a delegation.
func (c *chain) find(ctx context.Context, id tinycloud.Hash) *Token {
	p, err := c.s.token(ctx, c.q, id)
	if err != nil {
		c.failed = err
	}
	c.wanting = c.wanting || p == nil
	if p == nil || p.Kind != token.Delegation {
		return nil
	}
	return p
}

// looked is how many delegations were looked at for the token.
func (c *chain) looked() int {
	if c.search == nil {
		return 0
	}
	return judge.MaxLooks - max(c.search.Looks(), 0)
}

// stands reports whether a delegation's signer had all of it to give.
func (c *chain) stands(ctx context.Context, t *Token) bool {
	c.begin(ctx)
	for i, held := range t.Caps {
		if depends(t, held) && !c.search.Holds(t, i) {
			return false
		}
	}
	return true
}

// delegated checks a delegation against the ones it rests on (docs/protocol.md, "Admission of a delegation").
func (c *chain) delegated(ctx context.Context, t *Token, now time.Time) error {
	wanted := dependent(t)
	if len(wanted) == 0 {
		return nil
	}
	if len(t.Proofs) == 0 {
		return errNoParent()
	}
	parents, err := c.parents(ctx, t)
	if err != nil {
		return err
	}
	for _, p := range parents {
		if p.Audience != t.Signer {
			return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Unauthorized Delegator: %s", t.Signer)
		}
	}
	for _, p := range parents {
		if _, err := c.lives(ctx, p, now, "delegation-parent-revoked", "parent"); err != nil {
			return err
		}
	}
	kept, err := withinWindow(parents, t)
	if err != nil {
		return err
	}
	return c.all(ctx, t, wanted, kept, func(w Capability, caveats string) error {
		if caveats != "" {
			return tinycloud.Refuse(tinycloud.ErrUnauthorized, "child-caveats-not-subset-of-parent: %s", caveats)
		}
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Unauthorized Capability: %s, %s", w.Resource, w.Ability)
	})
}

// lives refuses a cited delegation that is revoked, or rests on one that is; text and role are the
// words of the refusal. It reports whether all it rests on is in its window.
func (c *chain) lives(ctx context.Context, p *Token, now time.Time, text, role string) (inWindow bool, err error) {
	if c.revoked(p.ID) {
		return false, tinycloud.Refuse(tinycloud.ErrUnauthorized, "%s: %s", text, p.ID.EventID())
	}
	a, err := c.ancestors(ctx, p, now)
	if err == nil && !a.revoked.IsZero() {
		err = tinycloud.Refuse(tinycloud.ErrUnauthorized, "delegation-ancestor-revoked: ancestor=%s %s=%s", a.revoked.EventID(), role, p.ID.EventID())
	}
	return a.inWindow(), err
}

func withinWindow(parents []*Token, t *Token) ([]*Token, error) {
	var kept []*Token
	expiry := false
	for _, p := range parents {
		ok, exp := judge.WindowWithin(p, t)
		if ok {
			kept = append(kept, p)
		}
		expiry = expiry || exp
	}
	switch {
	case len(kept) > 0:
		return kept, nil
	case expiry:
		return nil, tinycloud.Refuse(tinycloud.ErrUnauthorized, "Child delegation expiry exceeds parent expiry")
	}
	return nil, tinycloud.Refuse(tinycloud.ErrUnauthorized, "Child delegation not_before precedes parent not_before")
}
