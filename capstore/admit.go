package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
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
