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

// Apply verifies bundles of a peer and adds them to a Space's history, in order.
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

// enterAll adds verified bundles. Of many it commits those it entered whenever others wait for the writer.
func (s *Store) enterAll(ctx context.Context, v Verified, load func(*tx, tinycloud.SpaceID) (*space, error)) (Applied, error) {
	if v.bad != nil && !blames(v.bad) {
		return Applied{}, v.bad
	}
	jobs := s.jobs
	if len(v.good) > bulkFrom {
		jobs = s.bulk
	}
	var all Applied
	for rest := v.good; ; {
		var e entered
		err := s.queue(ctx, jobs, func(t *tx) (err error) {
			e, err = t.enterSome(v.space, rest, load)
			return err
		})
		if err != nil {
			return Applied{}, err
		}
		all.add(e.Applied)
		rest = rest[e.Covered:]
		switch {
		case e.fault != nil:
			return all, e.fault
		case e.Gap || e.Parked || len(rest) == 0:
			return all, v.bad
		}
	}
}

// entered is what came of the bundles of one transaction.
type entered struct {
	Applied
	fault error // of the sender; ends the rest
}

func (a *Applied) add(b Applied) {
	a.New, a.Duplicate, a.Held, a.Covered = a.New+b.New, a.Duplicate+b.Duplicate, a.Held+b.Held, a.Covered+b.Covered
	a.Gap, a.Parked = a.Gap || b.Gap, a.Parked || b.Parked
}

// enterSome enters bundles until one can't be, or enough of them to give way to who waits.
func (t *tx) enterSome(space tinycloud.SpaceID, bundles []*parsed, load func(*tx, tinycloud.SpaceID) (*space, error)) (out entered, err error) {
	sp, err := load(t, space)
	if err != nil {
		return out, err
	}
	defer func() {
		if err == nil && out.New > 0 {
			t.touch(sp).Remote += out.New
		}
	}()
	for i, p := range bundles {
		if i >= bulkFrom && len(t.s.jobs) > 0 {
			return out, nil
		}
		switch err := t.enter(sp, p); {
		case err == nil:
			out.New++
		case errors.Is(err, errKnown):
			out.Duplicate++
		case errors.Is(err, errHeld):
			out.Held++
			t.s.metrics.parked()
		case errors.Is(err, errGap):
			out.Gap = true
			return out, nil
		case errors.Is(err, errParked):
			out.Parked = true
			t.s.metrics.parked()
			return out, nil
		case blames(err):
			out.fault = err
			return out, nil
		default:
			return out, err
		}
		out.Covered++
	}
	return out, nil
}

func blames(err error) bool {
	return errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged)
}
