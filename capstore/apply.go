package capstore

import (
	"context"
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Apply verifies bundles of a peer and adds them to a Space's history, in order.
// An error of class [tinycloud.ErrInvalid] or [tinycloud.ErrForged] is the sender's fault; what came
// before the bad bundle is durable.
func (s *Store) Apply(ctx context.Context, id tinycloud.SpaceID, bundles []hostlog.Bundle) (hostlog.Applied, error) {
	if _, err := s.sid(ctx, id); err != nil {
		return hostlog.Applied{}, err
	}
	return s.enterAll(ctx, hostlog.CheckAll(id, bundles), (*tx).space)
}

// ApplyChecked is [Store.Apply] without its first half, [hostlog.CheckAll].
func (s *Store) ApplyChecked(ctx context.Context, v hostlog.Checked) (hostlog.Applied, error) {
	if _, err := s.sid(ctx, v.Space); err != nil {
		return hostlog.Applied{}, err
	}
	return s.enterAll(ctx, v, (*tx).space)
}

// enterAll adds verified bundles. Of many it commits those it entered whenever others wait for the writer.
func (s *Store) enterAll(ctx context.Context, v hostlog.Checked, load func(*tx, tinycloud.SpaceID) (*space, error)) (hostlog.Applied, error) {
	if v.Bad != nil && !blames(v.Bad) {
		return hostlog.Applied{}, v.Bad
	}
	jobs := s.jobs
	if len(v.Good) > bulkFrom {
		jobs = s.bulk
	}
	var all hostlog.Applied
	for rest := v.Good; ; {
		var e entered
		err := s.queue(ctx, jobs, func(t *tx) (err error) {
			e, err = t.enterSome(v.Space, rest, load)
			return err
		})
		if err != nil {
			return hostlog.Applied{}, err
		}
		all.Add(e.Applied)
		rest = rest[e.Covered:]
		switch {
		case e.fault != nil:
			return all, e.fault
		case e.full != nil:
			return all, e.full
		case e.Gap || e.Parked || len(rest) == 0:
			return all, v.Bad
		}
	}
}

// entered is what came of the bundles of one transaction.
type entered struct {
	hostlog.Applied
	fault error // of the sender; ends the rest
	full  error // nothing more is taken
}

// enterSome enters bundles until one can't be, or enough of them to give way to who waits.
func (t *tx) enterSome(space tinycloud.SpaceID, bundles []*hostlog.Parsed, load func(*tx, tinycloud.SpaceID) (*space, error)) (out entered, err error) {
	sp, err := load(t, space)
	if err != nil {
		return out, err
	}
	defer func() {
		if err == nil && out.New > 0 {
			t.touch(sp).Remote += out.New
		}
	}()
	if err := t.gather(len(bundles) >= expectFrom); err != nil {
		return out, err
	}
	defer func() {
		t.expected = expected{}
		err = firstOf(err, t.gather(false))
	}()
	expected, atOnce := 0, expectAtOnce
	for i, p := range bundles {
		if i >= bulkFrom && len(t.s.jobs) > 0 {
			return out, nil
		}
		if i == expected {
			n, err := t.expect(sp, bundles[i:min(len(bundles), i+atOnce)])
			if err != nil {
				return out, err
			}
			expected += n
			atOnce *= 2 // who gives way soon has not asked for much in vain
		}
		if err := t.recordable(sp); err != nil {
			out.full = err
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
