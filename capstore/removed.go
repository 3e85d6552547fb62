package capstore

import (
	"context"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Standing is what this node is in a Space.
type Standing string

// Standings.
const (
	StandsHost    Standing = "host"    // by a delegation in force
	StandsRemoved Standing = "removed" // its owner revoked what made this node a host
	StandsExpired Standing = "expired" // what made it a host has ended
	StandsNone    Standing = "none"    // its owner never made it one
)

// removal is what is known, and stored, of the removal of this node from a Space.
type removal int

const (
	removalUnknown removal = iota - 1 // an older release wrote the row, or another node did
	removalNone
	removalDone
)

// lookedAt is whether this node was removed from a Space a moment ago.
type lookedAt struct {
	removed bool
	found   time.Time
}

// Removed refuses a Space from which this node was removed: what it has is what there was then, and its owner wants it
// here no more. The error is of class [tinycloud.ErrForbidden]. One without a delegation for another reason, such as that
// its time is over, is still read.
func (s *Store) Removed(ctx context.Context, id tinycloud.SpaceID) error {
	s.mu.RLock()
	_, look := s.removed[id]
	s.mu.RUnlock()
	if !look {
		return nil
	}
	// It may have been let in again, by an entry of another process.
	was, ok := s.removals.Get(id)
	if !ok || s.o.Now().Sub(was.found).Abs() >= deniedFor {
		_, err, _ := s.looking.Do("removed "+id.String(), func() (any, error) {
			is := removalNone
			err := s.do(context.WithoutCancel(ctx), func(t *tx) error {
				sp, err := t.space(id)
				if err != nil {
					return err
				}
				if is = t.removal(sp); is != sp.removed {
					t.touch(sp)
				}
				return nil
			})
			if err == nil {
				s.removals.Add(id, lookedAt{removed: is == removalDone, found: s.o.Now()})
			}
			return nil, err
		})
		if err != nil {
			return err
		}
		was, _ = s.removals.Get(id)
	}
	if was.removed {
		return tinycloud.Refuse(tinycloud.ErrForbidden, "The owner removed this host from the space; use another host of it")
	}
	return nil
}

// removal finds out whether this node was removed from a Space.
func (t *tx) removal(sp *space) removal {
	revoked, in := false, false
	sp.facts.HostedBy(sp.host, func(d *Token) bool {
		switch {
		case t.isRevoked(d.ID):
			revoked = true
		case d.ValidAt(t.now, 0):
			in = true
		}
		return !in
	})
	if revoked && !in {
		return removalDone
	}
	return removalNone
}

// noteRemoval looks whether a transaction removes this node from a Space, or lets it in again.
func (t *tx) noteRemoval(sp *space) {
	if sp.removed == removalNone && !slices.Contains(t.dirty[sp].Revoked, sp.host) {
		return
	}
	if is := t.removal(sp); is != sp.removed {
		sp.removed = is
		t.standings = append(t.standings, sp)
	}
}

// publishStandings is of a durable transaction. s.mu is held.
func (t *tx) publishStandings() {
	for _, sp := range t.standings {
		t.s.removals.Remove(sp.id)
		if sp.removed == removalNone {
			delete(t.s.removed, sp.id)
			continue
		}
		t.s.removed[sp.id] = struct{}{}
		t.s.log.WarnContext(t.ctx, "this node was removed from a space by its owner: what is here stays, and is not served", "space", sp.id)
	}
}

// doubtStandings has the removals looked at again that other processes told of. s.mu is held.
func (s *Store) doubtStandings(rows []commit) {
	for _, c := range rows {
		if len(c.hosts) == 0 {
			continue
		}
		for id, sid := range s.ids {
			if sid == c.sid {
				s.removed[id] = struct{}{}
				s.removals.Remove(id)
			}
		}
	}
}

// standing is what this node is in a Space now, by the best of its delegations.
func (t *tx) standing(sp *space) Standing {
	if t.removal(sp) == removalDone {
		return StandsRemoved
	}
	stands := StandsNone
	sp.facts.HostedBy(sp.host, func(d *Token) bool {
		switch {
		case t.isRevoked(d.ID):
		case d.ValidAt(t.now, 0):
			stands = StandsHost
		default:
			stands = StandsExpired
		}
		return stands != StandsHost
	})
	return stands
}

// Imported returns the Spaces that were taken over from elsewhere, and whose owners have not made this node a host yet.
func (s *Store) Imported() []tinycloud.SpaceID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]tinycloud.SpaceID, 0, len(s.imported))
	for id := range s.imported {
		out = append(out, id)
	}
	return out
}

// learnRemoved reads from which Spaces this node was removed, or may have been.
func (s *Store) learnRemoved(ctx context.Context, q querier) error {
	found := map[tinycloud.SpaceID]struct{}{}
	err := q.Each(ctx, func(scan db.Scan) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		found[id] = struct{}{}
		return err
	}, "SELECT space FROM spaces WHERE removed <> 0")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = found
	s.removals.Purge()
	return err
}
