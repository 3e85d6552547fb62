package capstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// State tells whether a delegation can be used now.
type State string

// The states of a delegation. The first that fits in this order holds; the window is that of the
// delegation and of all it rests on.
const (
	StateRevoked         State = "revoked"          // itself
	StateAncestorRevoked State = "ancestor_revoked" // one it rests on
	StateUnavailable     State = "unavailable"      // what it rests on is not known here, or does not carry it
	StateExpired         State = "expired"
	StatePending         State = "pending" // not valid yet
	StateActive          State = "active"
)

// Lifecycle is the state of a delegation and why it is in it.
type Lifecycle struct {
	State     State
	RevokedAt time.Time           // when this node learnt of it; zero unless revoked itself
	RevokedBy tinycloud.Principal // signer of the revocation
	Ancestor  tinycloud.Hash      // the revoked delegation it rests on
}

// lifecycle judges a delegation as admission would now.
func (c *chain) lifecycle(ctx context.Context, t *Token, now time.Time) (Lifecycle, error) {
	if c.revoked(t.ID) {
		return c.revocation(ctx, t)
	}
	a, err := c.ancestors(ctx, t, now)
	switch {
	case errors.Is(err, tinycloud.ErrUnauthorized): // too many ancestors
		return Lifecycle{State: StateUnavailable}, nil
	case err != nil:
		return Lifecycle{}, err
	case !a.revoked.IsZero():
		return Lifecycle{State: StateAncestorRevoked, Ancestor: a.revoked}, nil
	}
	stands := c.stands(ctx, t)
	if c.failed != nil {
		return Lifecycle{}, c.failed
	}
	a.look(t, now)
	switch {
	case !stands:
		return Lifecycle{State: StateUnavailable}, nil
	case a.expired:
		return Lifecycle{State: StateExpired}, nil
	case a.early:
		return Lifecycle{State: StatePending}, nil
	}
	return Lifecycle{State: StateActive}, nil
}

// revocation tells of the first revocation that this node learnt of.
func (c *chain) revocation(ctx context.Context, t *Token) (Lifecycle, error) {
	l := Lifecycle{State: StateRevoked}
	var id []byte
	var ms int64
	ok, err := c.q.One(ctx, []any{&id, &ms}, "SELECT revocation, at FROM revoked WHERE target = ? ORDER BY at, revocation LIMIT 1", t.ID[:])
	if err != nil {
		return l, err
	}
	if !ok {
		return l, fmt.Errorf("revocation of %s: %w", t.ID.EventID(), tinycloud.ErrUnavailable)
	}
	r, err := c.s.token(ctx, c.q, tinycloud.Hash(id))
	if err != nil {
		return l, err
	}
	l.RevokedAt = at(ms)
	if r != nil {
		l.RevokedBy = r.Signer
	}
	return l, nil
}

// DelegationStatus tells the state of a delegation to those it concerns (docs/protocol.md, "POST
// /delegation/status"): its delegator, its delegatee, the owner of a Space that it names, and who cites a proof that
// gives tinycloud.delegation/status on "<space>/delegation" of a Space of one of these. For all others it is unknown:
// an error of class [tinycloud.ErrNotFound]. An invocation for anything but the status of this delegation is a
// refusal of class [tinycloud.ErrForbidden]. What is unknown, and what is not ended as far as is known, is a refusal
// of class [tinycloud.ErrUnavailable] while a history may change that. The invocation was checked by [Store.Verify].
func (s *Store) DelegationStatus(ctx context.Context, inv *Token, id tinycloud.Hash) (l Lifecycle, err error) {
	if !asksStatus(inv, id) {
		return l, tinycloud.Refuse(tinycloud.ErrForbidden, "Status invocation is not bound to the requested CID")
	}
	err = s.informed(ctx, nil, func() (bool, error) {
		l, err = s.delegationStatus(ctx, inv, id)
		// To whom it doesn't concern the same is said of what is known and of what is not.
		return errors.Is(err, tinycloud.ErrNotFound), err
	})
	return l, err
}

func (s *Store) delegationStatus(ctx context.Context, inv *Token, id tinycloud.Hash) (Lifecycle, error) {
	c := s.chain(s.db.Read)
	target, err := s.token(ctx, s.db.Read, id)
	if err != nil {
		return Lifecycle{}, err
	}
	if target == nil || target.Kind != token.Delegation {
		return Lifecycle{}, tinycloud.ErrNotFound
	}
	now := s.o.Now()
	may, err := c.maySee(ctx, inv, target, now)
	if err != nil {
		return Lifecycle{}, err
	}
	if !may {
		return Lifecycle{}, tinycloud.ErrNotFound
	}
	l, err := c.lifecycle(ctx, target, now)
	if err != nil || l.ended() {
		return l, err
	}
	waited, err := s.awaitHistory(ctx, target.Spaces())
	if err != nil || !waited {
		return l, err
	}
	return s.chain(s.db.Read).lifecycle(ctx, target, s.o.Now())
}

// ended reports whether a delegation will never be in force again, whatever comes.
func (l Lifecycle) ended() bool {
	return l.State == StateRevoked || l.State == StateAncestorRevoked || l.State == StateExpired
}

// asksStatus reports whether an invocation has the one capability for the status of a delegation. Caveats on
// it mean nothing here and could be meant to limit it.
func asksStatus(inv *Token, id tinycloud.Hash) bool {
	if len(inv.Caps) != 1 || inv.Caps[0].Ability != abilityStatus || inv.Caps[0].Caveats != nil {
		return false
	}
	text, ok := strings.CutPrefix(inv.Caps[0].Resource.String(), "urn:cid:")
	if !ok {
		return false
	}
	named, err := tinycloud.ParseCID(text)
	return err == nil && named == id
}

// concerns reports whether a delegation is a party's business.
func concerns(t *Token, p tinycloud.Principal) bool {
	if p == t.Signer || p == t.Audience {
		return true
	}
	for _, s := range t.Spaces() {
		if s.Owner() == p {
			return true
		}
	}
	return false
}

// maySee tries, besides the signer's own standing, each right to ask for the status that its proofs hold: by
// the check that any other invocation passes.
func (c *chain) maySee(ctx context.Context, inv, target *Token, now time.Time) (bool, error) {
	if concerns(target, inv.Signer) {
		return true, nil
	}
	for _, id := range inv.Proofs {
		p, err := c.s.token(ctx, c.q, id)
		if err != nil {
			return false, err
		}
		if p == nil || p.Kind != token.Delegation {
			return false, nil
		}
		for _, held := range p.Caps {
			if !manages(held, abilityStatus) || !concerns(target, held.Resource.Space().Owner()) {
				continue
			}
			as := &Token{Kind: token.Invocation, Signer: inv.Signer, Proofs: inv.Proofs, Caps: []Capability{{Resource: held.Resource, Ability: abilityStatus}}}
			err := c.authorise(ctx, as, now)
			if err == nil || !errors.Is(err, tinycloud.ErrUnauthorized) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

// Bounds of a listing.
const (
	MaxQueryLimit = 100
	queryChunk    = 256  // rows read at a time
	maxScanned    = 2048 // rows looked at for one page
	maxAccount    = 1024 // keys that belong to an account, nearest to its owner first
)

// DelegationQuery selects delegations of an account; its zero value selects all.
type DelegationQuery struct {
	Direction string // "granted" or "received"; anything else: both
	Status    State  // StateRevoked takes in StateAncestorRevoked; "": all
	Space     string // id or name of a Space that a delegation has to name; "": all
	Limit     int    // 1 to MaxQueryLimit
	After     tinycloud.Hash
}

// DelegationRecord is one delegation of an account.
type DelegationRecord struct {
	*Token
	Lifecycle
	Granted bool // by the account or one of its sessions; else received
}

// DelegationPage is a part of a listing. Next is what to ask for after it, zero at the end. A page may be short,
// even empty, and still have a next one: filters are applied to a bounded number of delegations at a time.
type DelegationPage struct {
	Records []DelegationRecord
	Next    tinycloud.Hash
}

// QueryDelegations lists the delegations of an account, the latest first, then those that don't say when they were
// issued; equal ones by CID. The account is the owner of the Space whose delegations the invocation's one
// capability asks to list. It comprises the invocation's signer and the keys that the owner gave
// the right to list, directly or not: a delegation that only concerns such a key is
// listed if it is about a Space of the owner's or rests on a delegation of the owner's. It waits a little for the
// histories of the owner's Spaces. The invocation was checked by [Store.Verify] and [Store.Authorise].
func (s *Store) QueryDelegations(ctx context.Context, inv *Token, q DelegationQuery) (DelegationPage, error) {
	if len(inv.Caps) != 1 || !manages(inv.Caps[0], abilityList) || inv.Caps[0].Caveats != nil {
		return DelegationPage{}, errQuery()
	}
	if err := s.AwaitHistory(ctx, s.ownedBy(inv.Caps[0].Resource.Space().Owner())...); err != nil {
		return DelegationPage{}, err
	}
	l := &listing{
		chain: s.chain(s.db.Read), want: q, owner: inv.Caps[0].Resource.Space().Owner(), signer: inv.Signer, now: s.o.Now(),
		age: math.MinInt64,
	}
	l.want.Limit = min(max(q.Limit, 1), MaxQueryLimit)
	if id, err := tinycloud.ParseSpaceID(q.Space); err == nil {
		l.want.Space = id.String()
	}
	if err := l.start(ctx); err != nil {
		return DelegationPage{}, err
	}
	return l.page(ctx)
}

// ownedBy returns the hosted Spaces of an owner while any Space waits for its history.
func (s *Store) ownedBy(owner tinycloud.Principal) (out []tinycloud.SpaceID) {
	if !s.AnyJoining() {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id := range s.ids {
		if id.Owner() == owner {
			out = append(out, id)
		}
	}
	return out
}

func errQuery() error {
	return tinycloud.Refuse(tinycloud.ErrForbidden, "Delegation query proof is not authorized")
}
