package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// serving is what was found of a Space, for anybody may ask, and as often as he likes.
type serving struct {
	err     error
	found   time.Time
	ends    time.Time // of the host delegation; zero: never
	revoked int       // delegations that were revoked then
}

const (
	rememberedServing = 1 << 14 // Spaces
	servesFor         = time.Minute
	deniedFor         = time.Second
)

// holds reports whether what was found is still so.
func (v serving) holds(now time.Time, revoked int) bool {
	age := servesFor
	if v.err != nil {
		age = deniedFor
	}
	return now.Sub(v.found).Abs() < age && revoked == v.revoked && (v.ends.IsZero() || now.Before(v.ends))
}

// Serves reports whether apps may use a Space at this host: it is hosted here, by a delegation in force, and waits for no
// history. The error is of class [tinycloud.ErrUnavailable] else.
func (s *Store) Serves(ctx context.Context, id tinycloud.SpaceID) error {
	if _, err := s.sid(ctx, id); isRefusal(err, tinycloud.ErrNotFound) {
		return tinycloud.Refuse(tinycloud.ErrUnavailable, "The space is not hosted here")
	} else if err != nil {
		return err
	}
	if joining, err := s.Joining(ctx, id); err != nil {
		return err
	} else if joining {
		return errJoining()
	}
	s.mu.RLock()
	revoked := len(s.revoked)
	s.mu.RUnlock()
	if v, ok := s.serving.Get(id); ok && v.holds(s.o.Now(), revoked) {
		return v.err
	}
	_, err, _ := s.looking.Do(id.String(), func() (any, error) {
		v := serving{found: s.o.Now(), revoked: revoked}
		v.err = s.do(context.WithoutCancel(ctx), func(t *tx) error {
			sp, err := t.space(id)
			if err != nil {
				return err
			}
			v.ends, err = t.inForce(sp)
			return err
		})
		if v.err == nil || isRefusal(v.err, tinycloud.ErrUnavailable) {
			s.serving.Add(id, v)
		}
		return nil, v.err
	})
	return err
}

// inForce returns until when this node's own host delegation lets it extend a Space, zero for ever.
func (t *tx) inForce(sp *space) (ends time.Time, err error) {
	x, err := t.upcoming(sp)
	if err != nil {
		return ends, err
	}
	d, err := sp.facts.Host(sp.host, t.now, judge.Here{Past: x.past})
	if err != nil {
		return ends, tinycloud.Refuse(tinycloud.ErrUnavailable, "This host may not write to the space: %s", trimClass(err))
	}
	return d.Expires, nil
}
