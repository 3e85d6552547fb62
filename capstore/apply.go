package capstore

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Applied tells what became of the bundles of a peer.
type Applied struct {
	New       int  // entries that were not known
	Duplicate int  // entries that were
	Covered   int  // leading bundles that are durable now
	Gap       bool // what the next one builds on is missing: pull
	Held      int  // entries that are durable, but of the future: they count when they are due
	Parked    bool // the next one is too, and there is no room for it: try later
}

// maxApply bounds the bundles of one transaction.
const maxApply = 512

// Apply verifies bundles of a peer and adds them to a Space's history, in order, in one transaction.
// An error of class [tinycloud.ErrInvalid] or [tinycloud.ErrForged] is the sender's fault; what came
// before the bad bundle is durable.
func (s *Store) Apply(ctx context.Context, id tinycloud.SpaceID, bundles []Bundle) (Applied, error) {
	if _, err := s.sid(ctx, id); err != nil {
		return Applied{}, err
	}
	return s.apply(ctx, id, bundles, (*tx).space)
}

func (s *Store) apply(ctx context.Context, id tinycloud.SpaceID, bundles []Bundle, load func(*tx, tinycloud.SpaceID) (*space, error)) (Applied, error) {
	if len(bundles) > maxApply {
		return Applied{}, fmt.Errorf("%d bundles at once: %w", len(bundles), tinycloud.ErrTooLarge)
	}
	good, bad := parseAll(id, bundles)
	if bad != nil && !blames(bad) {
		return Applied{}, bad
	}
	if bad != nil && errors.Is(bad, tinycloud.ErrForged) && len(good) == len(bundles) {
		good = nil // some entry of them is forged: none is covered
	}
	var out Applied
	var fault error
	err := s.do(ctx, func(t *tx) error {
		out, fault = Applied{}, nil
		sp, err := load(t, id)
		if err != nil {
			return err
		}
		for _, p := range good {
			switch err := t.enter(sp, p); {
			case err == nil:
				out.New++
			case errors.Is(err, errKnown):
				out.Duplicate++
			case errors.Is(err, errHeld):
				out.Held++
				s.metrics.parked()
			case errors.Is(err, errGap):
				out.Gap = true
				return nil
			case errors.Is(err, errParked):
				out.Parked = true
				s.metrics.parked()
				return nil
			case blames(err):
				fault = err
				return nil
			default:
				return err
			}
			out.Covered++
		}
		if out.New > 0 {
			t.touch(sp).Remote += out.New
		}
		return nil
	})
	if err != nil {
		return Applied{}, err
	}
	if fault == nil {
		fault = bad
	}
	return out, fault
}

func blames(err error) bool {
	return errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged)
}
