package capstore

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Bounds of the delegations and revocations that are taken over HTTP. Those of histories are what hosts may tell each
// other ([hostlog]): what another host or an older release took stays.
const (
	MaxDelegation      = 16 << 10 // bytes of a token
	MaxDelegationFacts = 4 << 10  // of its facts (fct)

	// Bytes of memory, about, that the delegations and revocations of a Space take when it is loaded.
	maxSharedFacts = 2 << 20   // beyond which only the owner adds to them
	maxSpaceFacts  = 5 << 19   // beyond which the owner adds only what was granted before, as sign-ins do
	maxOwnerFacts  = 64 << 20  // beyond which nobody does
	maxSignerFacts = 768 << 10 // of one signer, but the owner
)

// small refuses a delegation or revocation that is larger than any that apps make. One that is stored already stays
// welcome.
func (s *Store) small(ctx context.Context, tok *Token) error {
	facts := 0
	for _, f := range tok.Facts {
		facts += len(f)
	}
	var err error
	switch {
	case len(tok.Bytes) > MaxDelegation:
		err = tinycloud.Refuse(tinycloud.ErrTooLarge, "The token exceeds the limit of %d bytes", MaxDelegation)
	case facts > MaxDelegationFacts:
		err = tinycloud.Refuse(tinycloud.ErrTooLarge, "The facts (fct) of the token exceed the limit of %d bytes", MaxDelegationFacts)
	default:
		return nil
	}
	known, lookErr := s.token(ctx, s.db.Read, tok.ID)
	switch {
	case lookErr != nil:
		return lookErr
	case known != nil:
		return nil
	}
	return err
}

// factRoom refuses a new delegation if one of the Spaces here that it names has too many.
func (t *tx) factRoom(tok *Token) error {
	for _, id := range tok.Spaces() {
		if !t.s.Hosted(id) {
			continue
		}
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		if err := sp.factRoom(tok); err != nil {
			return err
		}
	}
	return nil
}

// factRoom refuses a new delegation or revocation where a Space has too many. The owner may add more than others together,
// and revoke always.
func (sp *space) factRoom(tok *Token) error {
	owner := tok.Signer == sp.id.Owner()
	if owner && tok.Kind == token.Revocation {
		return nil
	}
	size, limit := sp.facts.Size(), maxSharedFacts
	switch {
	case owner && sp.facts.Granted(tok.Caps):
		limit = maxOwnerFacts
	case owner:
		limit = maxSpaceFacts
	}
	switch {
	case !owner && sp.facts.SizeOf(tok.Signer) >= maxSignerFacts:
		return tinycloud.Refuse(tinycloud.ErrTooLarge, "The delegations of %s in the space exceed the limit of %d bytes in memory", tok.Signer, maxSignerFacts)
	case size >= limit && tok.Kind != token.Revocation:
		return tinycloud.Refuse(tinycloud.ErrTooLarge, "The delegations of the space exceed the limit of %d bytes in memory", limit)
	}
	return nil
}
