package capstore

import (
	"context"
	"errors"
	"sync"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// What this host can't know before a history is here, it refuses as unavailable and not as absent or not permitted,
// and only after it waited a little for that history (docs/protocol.md, "While a Space is joining"). Those who wait
// are few: each holds a goroutine and a connection.
const (
	maxPatient = 256 // requests that wait
	maxOfSpace = 16  // of them for one Space, or for no Space that can be told
)

// patient counts the requests that wait. Its zero value counts none.
type patient struct {
	mu  sync.Mutex
	all int                       // guarded by mu
	of  map[tinycloud.SpaceID]int // guarded by mu; of no Space that can be told: under the zero id
}

// enter takes a place; ok is false when there is none.
func (p *patient) enter(id tinycloud.SpaceID) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= maxPatient || p.of[id] >= maxOfSpace {
		return nil, false
	}
	if p.of == nil {
		p.of = map[tinycloud.SpaceID]int{}
	}
	p.all++
	p.of[id]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.of[id]--; p.of[id] == 0 {
			delete(p.of, id)
		}
	}, true
}

// AwaitHistory waits, for two seconds at most, until none of some Spaces waits for its history, and is then a
// refusal of class [tinycloud.ErrUnavailable]; it is that at once when too many wait. Spaces that are not hosted
// are not waited for. It is for who has shown a signature, or a secret that a signature was given for.
func (s *Store) AwaitHistory(ctx context.Context, spaces ...tinycloud.SpaceID) error {
	_, err := s.awaitHistory(ctx, spaces)
	return err
}

// awaitHistory reports whether there was anything to wait for.
func (s *Store) awaitHistory(ctx context.Context, spaces []tinycloud.SpaceID) (waited bool, err error) {
	var until context.Context
	for _, id := range spaces {
		if !s.Hosted(id) {
			continue
		}
		err := s.Present(ctx, id)
		if err == nil {
			continue
		}
		if !isRefusal(err, tinycloud.ErrUnavailable) {
			return false, err
		}
		if until == nil {
			var cancel context.CancelFunc
			until, cancel = context.WithTimeout(ctx, s.patience)
			defer cancel()
		}
		if err := s.awaitOne(until, id); err != nil {
			if ctx.Err() == nil && until.Err() != nil {
				err = errJoining()
			}
			return true, err
		}
	}
	if until == nil {
		return false, nil
	}
	return true, s.fresh(ctx)
}

func (s *Store) awaitOne(ctx context.Context, id tinycloud.SpaceID) error {
	leave, ok := s.patient.enter(id)
	if !ok {
		return errJoining()
	}
	defer leave()
	return s.AwaitPresent(ctx, id)
}

// isRefusal tells what a client is to be told from failures of the same class.
func isRefusal(err, class error) bool {
	var r *tinycloud.Refusal
	return errors.As(err, &r) && errors.Is(r, class)
}

// awaitAny waits as [Store.AwaitHistory] does, until no Space waits for its history.
func (s *Store) awaitAny(ctx context.Context) error {
	if !s.AnyJoining() {
		return nil
	}
	leave, ok := s.patient.enter(tinycloud.SpaceID{})
	if !ok {
		return errJoining()
	}
	defer leave()
	late := time.NewTimer(s.patience)
	defer late.Stop()
	tick := time.NewTicker(lookAgain) // other processes tell nobody here
	defer tick.Stop()
	for s.AnyJoining() {
		if err := s.fresh(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return errJoining()
		case <-s.joining.changed():
		case <-tick.C:
		}
	}
	return nil
}

// informed makes a check that reports, when it fails, whether that is for want of a delegation. Then, while a
// history is awaited that may bring it, the check waits a little for that history, and is made again; if it fails
// for the same reason, the error is a refusal of class [tinycloud.ErrUnavailable]. The history may be that of one of
// the Spaces, or of any where there are none.
func (s *Store) informed(ctx context.Context, spaces []tinycloud.SpaceID, check func() (wanting bool, err error)) error {
	wanting, err := check()
	if err == nil || !wanting {
		return err
	}
	if awaited, other := s.awaits(ctx, spaces); other != nil {
		return other
	} else if !awaited {
		return err
	}
	wait := s.awaitAny
	if len(spaces) > 0 {
		wait = func(ctx context.Context) error { return s.AwaitHistory(ctx, spaces...) }
	}
	if err := wait(ctx); err != nil {
		return err
	}
	if err := s.fresh(ctx); err != nil {
		return err
	}
	if wanting, err = check(); err == nil || !wanting {
		return err
	}
	return s.notYet(ctx, spaces, err)
}

// notYet returns the refusal of what is not known yet, or err when all is known that this host waits for.
func (s *Store) notYet(ctx context.Context, spaces []tinycloud.SpaceID, err error) error {
	switch awaited, other := s.awaits(ctx, spaces); {
	case other != nil:
		return other
	case awaited:
		return errJoining()
	}
	return err
}

// awaits reports whether the history of one of some Spaces, or of any if there are none, is not all here.
func (s *Store) awaits(ctx context.Context, spaces []tinycloud.SpaceID) (bool, error) {
	if len(spaces) == 0 {
		return s.AnyJoining(), nil
	}
	for _, id := range spaces {
		if whole, err := s.whole(ctx, id); err != nil || !whole {
			return !whole, err
		}
	}
	return false, nil
}

// whole reports whether all of a Space's history is here that this host waits for. Nothing is awaited of a Space
// that is not hosted.
func (s *Store) whole(ctx context.Context, id tinycloud.SpaceID) (bool, error) {
	sid := s.number(id)
	if sid == 0 {
		return true, nil
	}
	if err := s.Present(ctx, id); err != nil {
		if isRefusal(err, tinycloud.ErrUnavailable) {
			return false, nil
		}
		return false, err
	}
	var state string
	_, err := s.db.Read.One(ctx, []any{&state}, "SELECT state FROM spaces WHERE sid = ?", sid)
	return state != stateRestored, err
}

// changed is closed when a Space waits for its history no more.
func (j *joining) changed() <-chan struct{} {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.opened
}
