package capstore

import (
	"context"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// neverDue is when a value is looked for that nobody can have.
const neverDue = 1 << 62

// Wants returns up to limit values of a Space that are due to be fetched; none while its policy is [Lazy], or it holds too
// much, see [Room.NoValues].
func (s *Store) Wants(ctx context.Context, id tinycloud.SpaceID, limit int) (due []hostlog.Want, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	if p, _, err := s.Policy(ctx, id); err != nil || p == Lazy {
		return nil, err
	}
	if none, err := s.noRoom(ctx, id, sid); err != nil || none {
		return nil, err
	}
	now := s.o.Now().UnixMilli()
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var w hostlog.Want
		var hash, manifest []byte
		if err := scan(&hash, &w.Size, &manifest, &w.Tries, &w.Past); err != nil {
			return err
		}
		w.Hash = tinycloud.Hash(hash)
		copy(w.Manifest[:], manifest)
		due = append(due, w)
		return nil
	}, "SELECT w.hash, w.size, w.manifest, w.tries, CASE WHEN "+s.held.any(true, "w.sid", "w.hash")+
		" THEN 0 ELSE 1 END FROM wants w WHERE w.sid = ? AND w.due <= ? ORDER BY w.due LIMIT ?", sid, now, limit)
	return due, err
}

// Wanting reports whether values of a Space are still to be fetched, due or not; none is while its policy is [Lazy]. One
// that is only held as past counts until a try has failed: it may be that nobody has it any more.
func (s *Store) Wanting(ctx context.Context, id tinycloud.SpaceID) (bool, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return false, err
	}
	if p, _, err := s.Policy(ctx, id); err != nil || p == Lazy {
		return false, err
	}
	var one int
	return s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM wants w"+lacking+" AND (w.tries = 0 OR "+s.missed()+") LIMIT 1", sid, neverDue)
}

// lacking are the values of a Space that are to be fetched, due or not.
const lacking = " WHERE w.sid = ? AND w.due < ?"

// missed is the condition of those that are current, or named by the policy.
func (s *Store) missed() string {
	return "(" + s.held.any(true, "w.sid", "w.hash") + " OR EXISTS (SELECT 1 FROM spaces s WHERE s.sid = w.sid AND s.kept <> 0))"
}

// errNoRoom says that a value of another host is not kept, since its Space would hold too much.
func errNoRoom() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The value is not here: the space would exceed its storage limit on this host")
}

// Arrived records that a value is here: its bytes, or in the block store when inline is nil. One that is no
// longer wanted, since nothing holds it any more, is not kept.
func (s *Store) Arrived(ctx context.Context, id tinycloud.SpaceID, hash tinycloud.Hash, size int64, inline []byte) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		current, past, err := t.isHeld(sp, hash)
		if err != nil {
			return err
		}
		keeps, err := t.keeps(sp)
		if err != nil {
			return err
		}
		if current || keeps || past {
			if takes, err := t.takes(sp, size); err != nil || !takes {
				t.s.LacksRoom(id)
				return firstOf(err, errNoRoom())
			}
			if err := t.saveValue(sp, hash, size, inline); err != nil {
				return err
			}
		}
		if err := t.unwant(sp, hash); err != nil || current {
			return err
		}
		return t.release(sp, hash)
	})
}

// WantFailed puts off a wanted value that could not be fetched. It is due again by the store's clock, which
// [Store.Wants] goes by.
func (s *Store) WantFailed(ctx context.Context, id tinycloud.SpaceID, hash tinycloud.Hash, wait time.Duration) error {
	due := s.o.Now().Add(wait)
	return s.updateWant(ctx, id, "UPDATE wants SET tries = tries + 1, due = ? WHERE sid = ? AND hash = ?", due.UnixMilli(), hash)
}

// Hurry makes all wants of a Space due, as when a host comes back.
func (s *Store) Hurry(ctx context.Context, id tinycloud.SpaceID) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		return t.exec("UPDATE wants SET due = 0 WHERE sid = ? AND due < ?", sp.sid, int64(neverDue))
	})
}

// updateWant runs an update whose last arguments are the Space's number and the value's hash.
func (s *Store) updateWant(ctx context.Context, id tinycloud.SpaceID, query string, args ...any) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		hash := args[len(args)-1].(tinycloud.Hash)
		all := append(append([]any{}, args[:len(args)-1]...), sp.sid, hash[:])
		return t.exec(query, all...)
	})
}
