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
	return s.enterAll(ctx, Verify(id, bundles), (*tx).space)
}

// ApplyVerified is [Store.Apply] without its first half, [Verify].
func (s *Store) ApplyVerified(ctx context.Context, v Verified) (Applied, error) {
	if _, err := s.sid(ctx, v.space); err != nil {
		return Applied{}, err
	}
	return s.enterAll(ctx, v, (*tx).space)
}

// Verified are bundles of a Space whose bytes and signatures were checked.
type Verified struct {
	space tinycloud.SpaceID
	good  []*parsed // the leading ones that may be entered
	bad   error     // of the first one behind them
}

// Verify checks what bundles alone decide, on all cores. It needs no store, so that the next bundles are verified
// while a transaction runs; [Store.ApplyVerified] tells what it found.
func Verify(id tinycloud.SpaceID, bundles []Bundle) Verified {
	if len(bundles) > maxApply {
		return Verified{space: id, bad: fmt.Errorf("%d bundles at once: %w", len(bundles), tinycloud.ErrTooLarge)}
	}
	good, bad := parseAll(id, bundles)
	if bad != nil && errors.Is(bad, tinycloud.ErrForged) && len(good) == len(bundles) {
		good = nil // some entry of them is forged: none is covered
	}
	return Verified{space: id, good: good, bad: bad}
}

// enterAll adds verified bundles in one transaction.
func (s *Store) enterAll(ctx context.Context, v Verified, load func(*tx, tinycloud.SpaceID) (*space, error)) (Applied, error) {
	if v.bad != nil && !blames(v.bad) {
		return Applied{}, v.bad
	}
	var out Applied
	var fault error
	err := s.do(ctx, func(t *tx) error {
		out, fault = Applied{}, nil
		sp, err := load(t, v.space)
		if err != nil {
			return err
		}
		for _, p := range v.good {
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
		fault = v.bad
	}
	return out, fault
}

func blames(err error) bool {
	return errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged)
}
