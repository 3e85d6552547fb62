package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

const retryOpen = time.Second // until Spaces are opened that could not be, as the database failed

// keepOpening opens Spaces in time, until the context ends.
func (s *Store) keepOpening(ctx context.Context) {
	for s.joining.wake.Within(ctx, s.openDue(ctx)) {
	}
}

// openDue opens the Spaces whose time is over and returns how long none is.
func (s *Store) openDue(ctx context.Context) time.Duration {
	wait := time.Hour
	s.joining.mu.RLock()
	waits := make(map[tinycloud.SpaceID]waiting, len(s.joining.spaces))
	for id, w := range s.joining.spaces {
		if !w.restored && w.opens > 0 {
			waits[id] = w
		}
	}
	s.joining.mu.RUnlock()
	if len(waits) == 0 {
		return wait
	}
	now, err := s.clock(ctx, s.db.Read, s.o.Now())
	for id, w := range waits {
		if err != nil {
			break
		}
		if left := s.deadline(w.opens) - now; left > 0 {
			wait = min(wait, time.Duration(left)*time.Millisecond)
			continue
		}
		if _, err = s.EndJoin(ctx, id, hostlog.EndedByTime, nil); err == nil {
			err = s.timeless(ctx, id)
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot open spaces in time, trying again", "error", err)
		}
		return retryOpen
	}
	return wait
}

// timeless notes that time does not open a Space any more of which a part of another host's history is here.
func (s *Store) timeless(ctx context.Context, id tinycloud.SpaceID) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err == nil && sp.state == StateJoining && sp.opens > 0 && sp.othersHere() {
			sp.opens = 0
			t.touch(sp).Joins = true // other processes have to know of it
		}
		return err
	})
}
