package capstore

import (
	"context"
	"crypto/ed25519"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/caveat"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Delegated is the answer to a delegation.
type Delegated struct {
	CID       string
	Activated []tinycloud.SpaceID // Spaces in which the delegation is new
	Skipped   []tinycloud.SpaceID // Spaces it names that are not hosted here
}

// Delegate accepts a delegation (docs/protocol.md, "Admission of a delegation"). A host delegation to this node's key
// creates the Space. Accepting the same token again changes nothing but tells anew which Spaces are skipped. It waits
// a little for the histories of the Spaces that the delegation names, but of the one that it makes this node a host
// of.
func (s *Store) Delegate(ctx context.Context, tok *Token) (Delegated, error) {
	if err := s.small(ctx, tok); err != nil {
		return Delegated{}, err
	}
	if err := keepable(tok); err != nil {
		return Delegated{}, err
	}
	if err := tok.VerifySignature(); err != nil {
		return Delegated{}, err
	}
	if !tok.ValidAt(s.o.Now(), 0) {
		return Delegated{}, tinycloud.Refuse(tinycloud.ErrUnauthorized, "Delegation expired or not yet valid")
	}
	if err := s.timely(tok); err != nil {
		return Delegated{}, err
	}
	if err := s.fresh(ctx); err != nil {
		return Delegated{}, err
	}
	if err := s.AwaitHistory(ctx, s.Obstacles(tok)...); err != nil {
		return Delegated{}, err
	}
	var out Delegated
	err := s.informed(ctx, tok.Spaces(), func() (wanting bool, err error) {
		out, wanting, err = s.delegate(ctx, tok)
		return wanting, err
	})
	return out, err
}

// keepable refuses a delegation with caveats that no host could keep to.
func keepable(tok *Token) error {
	for _, c := range tok.Caps {
		if c.Caveats == nil || c.Resource.Service() != caveat.Service {
			continue
		}
		if _, err := caveat.Parse(c.Caveats); err != nil {
			return err
		}
	}
	return nil
}

// delegate reports, with a refusal, whether that is for want of a delegation.
func (s *Store) delegate(ctx context.Context, tok *Token) (out Delegated, wanting bool, err error) {
	// Here, so that what is refused, and the search for what it rests on, costs the writer nothing.
	c := s.chain(s.db.Read)
	if err := c.delegated(ctx, tok, s.o.Now()); err != nil {
		return out, c.wanting, err
	}
	allowed, err := s.allowed(ctx, tok)
	if err != nil {
		return out, false, err
	}
	waits := len(allowed) == 0 && !s.knowsAny(tok)
	if waits && !s.mayWait(ctx, tok) {
		return Delegated{CID: tok.ID.EventID(), Skipped: tok.Spaces()}, false, nil
	}
	s.compared(ctx, tok.Places())
	err = s.add(ctx, func(t *tx) error {
		out = Delegated{CID: tok.ID.EventID()}
		c := s.chain(t)
		c.extra = t.revoked
		known, err := s.token(t.ctx, t, tok.ID)
		if err != nil {
			return err
		}
		if err := c.delegated(t.ctx, tok, t.now); err != nil {
			wanting = c.wanting
			return err
		}
		wanting = false
		if known == nil {
			if err := t.factRoom(tok); err != nil {
				return err
			}
		}
		if waits {
			if err := t.awaitHosting(tok); err != nil {
				return err
			}
		}
		if err := t.saveToken(tok); err != nil {
			return err
		}
		for _, id := range tok.Spaces() {
			hosted, err := t.activate(id, tok, allowed)
			if err != nil {
				return err
			}
			switch {
			case !hosted:
				out.Skipped = append(out.Skipped, id)
			case known == nil:
				out.Activated = append(out.Activated, id)
			}
		}
		return t.activateBeside(tok)
	})
	if err == nil {
		s.tokens.Add(tok.ID, tok)
	}
	return out, wanting, err
}

// maxFuture is how far ahead of this node's clock a host delegation may be issued: the histories of hosts that began
// apart are told apart by that time (docs/replication.md, "Early").
const maxFuture = 10 * time.Minute

func (s *Store) timely(tok *Token) error {
	if _, ok := hostlog.KeyOf(tok.Audience); ok && tok.IssuedAt.After(s.o.Now().Add(maxFuture)) {
		return tinycloud.Refuse(tinycloud.ErrUnauthorized, "Host delegation issued in the future: %s", tok.IssuedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// allowed returns the Spaces that an authorised delegation is to create here, all of which this node agrees to host.
func (s *Store) allowed(ctx context.Context, tok *Token) (out []tinycloud.SpaceID, err error) {
	for _, id := range tok.Spaces() {
		if !s.Hosted(id) && s.hostsHere(tok, id) {
			out = append(out, id)
		}
	}
	if len(out) == 0 || s.o.Allow == nil {
		return out, nil
	}
	for _, id := range out {
		if err := s.o.Allow(ctx, id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// hostKey is this node's key of a Space.
func (s *Store) hostKey(id tinycloud.SpaceID) hostlog.Key {
	return hostlog.Key(s.o.Keys.SpaceKey(id).Public().(ed25519.PublicKey))
}

// activate gives a delegation its epoch in a Space, creating the Space when the delegation makes this
// node a host of it and the Space is one of those allowed. It reports whether the Space is hosted.
func (t *tx) activate(id tinycloud.SpaceID, tok *Token, allowed []tinycloud.SpaceID) (bool, error) {
	fresh := false
	if !t.s.Hosted(id) {
		if !slices.Contains(allowed, id) {
			return false, nil
		}
		if err := t.begin(id); err != nil {
			return false, err
		}
		fresh = true
	}
	sp, err := t.space(id)
	if err != nil {
		return false, err
	}
	switch {
	case sp.state == stateRestored:
		return false, errRestored()
	case sp.state == StateJoining && !t.s.hostsHere(tok, id):
		return false, errJoining()
	}
	if err := t.recordable(sp); err != nil {
		return false, err
	}
	if err := t.ensure(sp, tok.ID, 0); err != nil {
		return false, err
	}
	if fresh {
		t.touch(sp).Created = true
		return true, t.adopt(sp, tinycloud.Hash{})
	}
	return true, nil
}

// activateBeside gives a delegation on encryption networks its epoch in their owners' Spaces of secrets. It is not told of:
// it grants nothing there. Nor is one refused that grants something else, for want of room there: other hosts then don't
// know it.
func (t *tx) activateBeside(tok *Token) error {
	named := len(tok.Spaces())
	for _, id := range tok.Places()[named:] {
		if !t.s.Hosted(id) {
			continue
		}
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		if !sp.placed[tok.ID] {
			err = sp.factRoom(tok)
		}
		if err == nil {
			_, err = t.activate(id, tok, nil)
		}
		if err != nil && (named == 0 || !isRefusal(err, tinycloud.ErrQuota) && !isRefusal(err, tinycloud.ErrTooLarge)) {
			return err
		}
	}
	return nil
}

// Revoke ends a delegation and all that rest on it (docs/protocol.md, "Revocations"). Refusals are of class
// [tinycloud.ErrForbidden], as the reference answers them; repeating it is no error.
func (s *Store) Revoke(ctx context.Context, tok *Token) error {
	if err := s.small(ctx, tok); err != nil {
		return err
	}
	if tok.VerifySignature() != nil {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "Failed to verify signature")
	}
	if !tok.ValidAt(s.o.Now(), 0) {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "Revocation expired or not yet valid")
	}
	err := s.informed(ctx, nil, func() (wanting bool, err error) {
		target, err := s.token(ctx, s.db.Read, tok.Target)
		if err != nil {
			return false, err
		}
		if target == nil || target.Kind != token.Delegation {
			return target == nil, tinycloud.Refuse(tinycloud.ErrForbidden, "Cannot find parent delegation")
		}
		return false, s.revoke(ctx, tok, target)
	})
	if err == nil {
		s.tokens.Add(tok.ID, tok)
	}
	return err
}

// revoke ends a known delegation. It waits a little for the histories of Spaces that it makes somebody a host of.
func (s *Store) revoke(ctx context.Context, tok, target *Token) error {
	of := slices.DeleteFunc(target.Spaces(), func(id tinycloud.SpaceID) bool { return !target.HostsSpace(id) })
	if err := s.AwaitHistory(ctx, of...); err != nil {
		return err
	}
	s.compared(ctx, target.Places())
	return s.informed(ctx, target.Spaces(), func() (wanting bool, err error) {
		err = s.do(ctx, func(t *tx) (err error) {
			if wanting, err = t.mayRevoke(tok, target); err != nil {
				return err
			}
			return t.revoke(tok, target)
		})
		return wanting, err
	})
}

func (t *tx) revoke(tok, target *Token) error {
	if !t.s.knowsAny(target) {
		if err := t.awaitHosting(tok); err != nil {
			return err
		}
	}
	if err := t.saveToken(tok); err != nil {
		return err
	}
	t.revoked[target.ID] = tok.ID
	if err := t.add(intoRevoked, target.ID[:], tok.ID[:], t.now.UnixMilli()); err != nil {
		return err
	}
	for _, id := range target.Places() {
		if err := t.revokeIn(id, tok, target); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) revokeIn(id tinycloud.SpaceID, tok, target *Token) error {
	if !t.s.Hosted(id) {
		return nil
	}
	sp, err := t.space(id)
	if err != nil {
		return err
	}
	if target.HostsSpace(id) {
		if sp.waits() {
			return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space is joining; its hosts cannot be revoked yet")
		}
		if host, ok := hostlog.KeyOf(target.Audience); ok { // else it is of who let hosts in
			c := t.touch(sp)
			c.Revoked = append(c.Revoked, host)
		}
	}
	if sp.state == stateRestored {
		return errRestored()
	}
	if err := sp.factRoom(tok); err != nil {
		return err
	}
	if err := t.ensure(sp, target.ID, 0); err != nil {
		return err
	}
	return t.ensure(sp, tok.ID, 0)
}

func errRestored() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The host was restored and waits for the space's later history")
}

// mayRevoke checks the right to revoke: the rule that peers judge by, and that a proof it rests on is
// in force now. It reports, with a refusal, whether that is for want of a delegation.
func (t *tx) mayRevoke(tok, target *Token) (wanting bool, err error) {
	var failed error
	find := func(id tinycloud.Hash) *Token {
		p, err := t.s.token(t.ctx, t, id)
		if err != nil {
			failed = err
		}
		wanting = wanting || p == nil
		return p
	}
	ok := judge.MayRevoke(tok, target, find)
	for _, id := range tok.Proofs {
		p := find(id)
		if p == nil || !ok {
			continue
		}
		c := t.s.chain(t)
		a, err := c.ancestors(t.ctx, p, t.now)
		if err != nil {
			return false, err
		}
		if ok = a.revoked.IsZero() && a.inWindow() && p.ValidAt(t.now, 0) && !t.isRevoked(id); !ok {
			wanting = false
		}
	}
	switch {
	case failed != nil:
		return false, failed
	case !ok:
		return wanting, tinycloud.Refuse(tinycloud.ErrForbidden, "Unauthorized Revoker")
	}
	return false, nil
}
