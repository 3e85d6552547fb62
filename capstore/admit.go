package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

func (s *Store) isRevoked(id tinycloud.Hash) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.revoked[id]
	return ok
}

// Admit decides whether an invocation may be carried out now: window, signature, lifetime, that no Space it names
// waits for its history, replay, authority, and that every Space it names is hosted, in that order (docs/protocol.md,
// "Admission of an invocation"). It waits a little for a history. It changes nothing. Refusals carry the protocol's
// texts.
func (s *Store) Admit(ctx context.Context, t *Token) error {
	known, err := s.received(ctx, t)
	if err != nil {
		return err
	}
	if err := s.first(ctx, t, known); err != nil {
		return err
	}
	return s.entitledThen(ctx, t)
}

// AdmitToPerform decides as [Store.Admit] does for who goes on to [Store.Perform] with what the invocation asks for, or to
// [Store.Spend] before it is read. On a server it saves a round trip for keys, where what this process knows lets the
// invocation in: it is judged again by what all processes know, and there a used token is refused too. Elsewhere it does
// not look whether a write of one key was used, unless it was of late, since its transaction looks too.
func (s *Store) AdmitToPerform(ctx context.Context, t *Token) error {
	switch {
	case s.db.Shared && s.seemsAdmissible(ctx, t):
		return nil
	case s.db.Shared || !writesKey(t) || s.performed.Contains(t.ID):
		return s.Admit(ctx, t)
	}
	if _, err := s.received(ctx, t); err != nil {
		return err
	}
	if s.seen.used(t.ID, s.o.Now().Unix()) {
		return errReplayed()
	}
	return s.entitledThen(ctx, t)
}

// writesKey reports whether all that an invocation asks for is to write or delete one key, so that it can't be spent but
// by a transaction.
func writesKey(t *Token) bool {
	if len(t.Caps) != 1 || t.Caps[0].Resource.Service() != dag.KV {
		return false
	}
	_, has := t.Caps[0].Resource.Path()
	switch t.Caps[0].Ability {
	case token.AbilityPut, token.AbilityDel, token.AbilityDelete:
		return has
	}
	return false
}

// Spend is [Store.Burn] of an invocation that [Store.AdmitToPerform] let in.
func (s *Store) Spend(ctx context.Context, t *Token) error {
	if err := s.Burn(ctx, t); err != nil || !s.db.Shared {
		return err
	}
	return s.entitledThen(ctx, t) // the memory is as new as what was burned
}

// seemsAdmissible reports whether an invocation that asks for keys alone may be carried out, as far as this process knows.
func (s *Store) seemsAdmissible(ctx context.Context, t *Token) bool {
	if len(t.Caps) == 0 || s.performed.Contains(t.ID) || s.genuine(t) != nil || s.seen.used(t.ID, s.o.Now().Unix()) {
		return false
	}
	for _, c := range t.Caps {
		by := s.services[c.Resource.Service()]
		if by == nil || by.Name() != dag.KV {
			return false
		}
	}
	for _, id := range t.Spaces() {
		s.mu.RLock()
		sid := s.ids[id]
		_, settled := s.settled[id]
		_, removed := s.removed[id]
		s.mu.RUnlock()
		if sid == 0 || !settled || removed {
			return false
		}
	}
	return s.chain(s.db.Read).authorise(ctx, t, s.o.Now()) == nil
}

// AdmitReusable decides as [Store.Admit] does, but for an invocation that may be used more than once.
func (s *Store) AdmitReusable(ctx context.Context, t *Token) error {
	if _, err := s.received(ctx, t); err != nil {
		return err
	}
	return s.entitledThen(ctx, t)
}

// AdmitEarly decides as [Store.Admit] does, but without waiting. Where that would wait, and nothing speaks against
// the invocation yet, later says that [Store.Entitled] is to be asked again.
func (s *Store) AdmitEarly(ctx context.Context, t *Token) (later bool, err error) {
	if err := s.Verify(ctx, t); err != nil {
		return false, err
	}
	if err = s.Entitled(ctx, t); !isRefusal(err, tinycloud.ErrUnavailable) {
		return false, err
	}
	return true, nil
}

// Verify is the part of [Store.Admit] that looks neither at authority nor at Spaces: window, signature, lifetime and
// replay. It changes nothing.
func (s *Store) Verify(ctx context.Context, t *Token) error {
	if err := s.fresh(ctx); err != nil {
		return err
	}
	if err := s.genuine(t); err != nil {
		return err
	}
	return s.first(ctx, t, nil)
}

// stands is in how many places an event stands in a Space.
type stands struct {
	sid    int64
	places int
}

// received checks what the token alone tells, and waits for the histories of the Spaces it names. It returns where the
// token stands if that was found on the way.
func (s *Store) received(ctx context.Context, t *Token) (known *stands, err error) {
	spaces := t.Spaces()
	if sid := s.only(spaces); s.db.Shared && sid != 0 && s.mutates(t) {
		known = &stands{sid: sid}
		known.places, err = s.freshWith(ctx, sid, t.ID)
	} else {
		err = s.fresh(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := s.genuine(t); err != nil {
		return nil, err
	}
	if waited, err := s.awaitHistory(ctx, spaces); waited || err != nil {
		return nil, err
	}
	return known, nil
}

// only is the number of the one Space that a token names, 0 for another number of Spaces.
func (s *Store) only(spaces []tinycloud.SpaceID) int64 {
	if len(spaces) != 1 {
		return 0
	}
	return s.number(spaces[0])
}

// first refuses a token that was used before. What is known already may be nil.
func (s *Store) first(ctx context.Context, t *Token, known *stands) error {
	if s.seen.used(t.ID, s.o.Now().Unix()) {
		return errReplayed()
	}
	return s.unused(t, t.Spaces(), func(sid int64) (n int, err error) {
		if known != nil && known.sid == sid {
			return known.places, nil
		}
		_, err = s.db.Read.One(ctx, []any{&n}, lookEvents.Query(), sid, t.ID[:])
		return n, err
	})
}

// genuine checks what the token alone tells: window, signature and lifetime.
func (s *Store) genuine(t *Token) error {
	now := s.o.Now()
	if !t.ValidAt(now, 0) {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invocation expired or not yet valid")
	}
	if err := t.VerifySignature(); err != nil {
		return err
	}
	if t.Expires.After(now.Truncate(time.Second).Add(s.o.MaxLifetime)) {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Invocation lifetime exceeds server maximum")
	}
	return nil
}

// Entitled checks the authority of an invocation, and that every Space it names is hosted, with its history. What can
// come out otherwise once a history is here is a refusal of class [tinycloud.ErrUnavailable].
func (s *Store) Entitled(ctx context.Context, t *Token) error {
	if err := s.fresh(ctx); err != nil {
		return err
	}
	wanting, err := s.entitled(ctx, t)
	if err != nil && wanting {
		return s.notYet(ctx, t.Spaces(), err)
	}
	return err
}

// entitledThen is [Store.Entitled] for who waits.
func (s *Store) entitledThen(ctx context.Context, t *Token) error {
	return s.informed(ctx, t.Spaces(), func() (bool, error) { return s.entitled(ctx, t) })
}

// entitled reports, with an error, whether that is for want of a delegation.
func (s *Store) entitled(ctx context.Context, t *Token) (wanting bool, err error) {
	c := s.chain(s.db.Read)
	if err := c.authorise(ctx, t, s.o.Now()); err != nil {
		return c.wanting, err
	}
	for _, id := range t.Spaces() {
		if !s.Hosted(id) {
			return false, errNoSpace()
		}
		if err := s.Removed(ctx, id); err != nil {
			return false, err
		}
		if err := s.Present(ctx, id); err != nil {
			return false, err
		}
	}
	return false, nil
}

// lookEvents is in how many places an event stands.
var lookEvents = service.Look{Table: "events", By: "sid id", Select: "count(*)"}

// unused refuses a token that stands in the history of one of its Spaces. places is in how many places it stands there.
func (s *Store) unused(t *Token, spaces []tinycloud.SpaceID, places func(sid int64) (int, error)) error {
	if !s.mutates(t) {
		return nil
	}
	for _, id := range spaces {
		sid := s.number(id)
		if sid == 0 {
			continue // not hosted: nothing can stand in its history
		}
		n, err := places(sid)
		if err != nil {
			return err
		}
		if n > 0 {
			return errReplayed()
		}
	}
	return nil
}

// mutates reports whether an invocation asks for what makes operations.
func (s *Store) mutates(t *Token) bool {
	for _, c := range t.Caps {
		if by := s.services[c.Resource.Service()]; by != nil && by.Mutates(c.Ability) {
			return true
		}
	}
	return false
}

// Proven reports whether what is here proves that an invocation's signer holds every capability it names, now.
func (s *Store) Proven(ctx context.Context, t *Token) bool {
	return s.fresh(ctx) == nil && s.chain(s.db.Read).authorise(ctx, t, s.o.Now()) == nil
}

// Authorise checks that an invocation's signer holds every capability it names, now. The signature is
// the caller's to check. It waits a little for a history that may bring what is missing.
func (s *Store) Authorise(ctx context.Context, t *Token) error {
	if err := s.fresh(ctx); err != nil {
		return err
	}
	return s.informed(ctx, t.Spaces(), func() (bool, error) {
		c := s.chain(s.db.Read)
		err := c.authorise(ctx, t, s.o.Now())
		return c.wanting, err
	})
}

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
