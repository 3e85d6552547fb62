package capstore

import (
	"context"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Policy says which values a node fetches of a Space (docs/replication.md, "Values"). Small ones come with their
// operations, whatever the policy.
type Policy string

// The policies.
const (
	Eager Policy = "eager" // current values
	Lazy  Policy = "lazy"  // what somebody reads
	All   Policy = "all"   // those of the history too, which stay
)

// Valid reports whether a policy is one.
func (p Policy) Valid() bool { return p == Eager || p == Lazy || p == All }

// What becomes of the values of a Space's history, in spaces.kept.
const (
	keptNot   = 0 // they are past for a while
	keptSome  = 1 // they stay; those that are not here are being noted as wanted
	keptWhole = 2
)

// Policy returns the policy of a Space, and whether it is its own or the node's.
func (s *Store) Policy(ctx context.Context, id tinycloud.SpaceID) (p Policy, own bool, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return "", false, err
	}
	p, err = s.policy(ctx, sid)
	if err == nil && p == "" {
		return s.o.Policy, false, nil
	}
	return p, true, err
}

func (s *Store) policy(ctx context.Context, sid int64) (p Policy, err error) {
	_, err = s.db.Read.One(ctx, []any{&p}, "SELECT policy FROM spaces WHERE sid = ?", sid)
	return p, err
}

// SetPolicy sets the policy of a Space, or with "" has it follow the node's again. It takes effect at once: it
// returns when what is wanted from now on is known.
func (s *Store) SetPolicy(ctx context.Context, id tinycloud.SpaceID, p Policy) error {
	if p != "" && !p.Valid() {
		return fmt.Errorf("policy %q: expected eager, lazy or all: %w", p, tinycloud.ErrInvalid)
	}
	err := s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		t.touch(sp).Wants++ // there may be something to fetch
		return t.exec("UPDATE spaces SET policy = ? WHERE sid = ?", string(p), sp.sid)
	})
	if err != nil {
		return err
	}
	return s.followPolicy(ctx, id)
}

// FollowPolicies has all Spaces keep what their policies say, after the node's has changed.
func (s *Store) FollowPolicies(ctx context.Context) error {
	ids, err := s.named(ctx, "SELECT space FROM spaces WHERE CASE WHEN CASE WHEN policy = '' THEN ? ELSE policy END = 'all' THEN 2 ELSE 0 END <> kept", string(s.o.Policy))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !s.Hosted(id) {
			continue // imported, and not served yet
		}
		if err := s.followPolicy(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) followPolicy(ctx context.Context, id tinycloud.SpaceID) error {
	p, _, err := s.Policy(ctx, id)
	if err != nil {
		return err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return err
	}
	var kept int
	if _, err := s.db.Read.One(ctx, []any{&kept}, "SELECT kept FROM spaces WHERE sid = ?", sid); err != nil {
		return err
	}
	switch {
	case p == All && kept != keptWhole:
		return s.keepHistory(ctx, id, sid)
	case p != All && kept != keptNot:
		return s.do(ctx, func(t *tx) error {
			sp, err := t.space(id)
			if err != nil {
				return err
			}
			if err := t.setKept(sp, keptNot); err != nil {
				return err
			}
			return t.forget(sp, "wants")
		})
	}
	return nil
}

// keepHistory has the values of all writes stay, and notes those that are not here as wanted, in transactions
// that others don't wait for.
func (s *Store) keepHistory(ctx context.Context, id tinycloud.SpaceID, sid int64) error {
	const page = 1000
	set := func(kept int) error {
		return s.do(ctx, func(t *tx) error {
			sp, err := t.space(id)
			if err != nil {
				return err
			}
			return t.setKept(sp, kept)
		})
	}
	if err := set(keptSome); err != nil {
		return err
	}
	for last := int64(0); ; {
		var upTo int64
		_, err := s.db.Read.One(ctx, []any{&upTo}, "SELECT coalesce(max(eid), 0) FROM (SELECT eid FROM epochs WHERE sid = ? AND eid > ? ORDER BY eid LIMIT ?) p", sid, last, page)
		if err != nil {
			return err
		}
		if upTo == 0 {
			return set(keptWhole)
		}
		hashes, err := s.writtenValues(ctx, sid, last, upTo)
		if err != nil {
			return err
		}
		err = s.do(ctx, func(t *tx) error {
			sp, err := t.space(id)
			if err != nil {
				return err
			}
			for _, h := range hashes {
				if err := t.wantAlso(sp, h); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		last = upTo
	}
}

// writtenValues are the values that the writes in a range of epochs name, without the first.
func (s *Store) writtenValues(ctx context.Context, sid, after, upTo int64) (hashes []tinycloud.Hash, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var b []byte
		if err := scan(&b); err != nil {
			return err
		}
		o, _, err := dag.ReadOperation(b)
		if op := s.read(o); op.names() {
			hashes = append(hashes, op.Value)
		}
		return err
	}, "SELECT bytes FROM ops WHERE sid = ? AND eid > ? AND eid <= ? AND removes = 0", sid, after, upTo)
	return hashes, err
}

// setKept says what becomes of the values of a Space's history from now on.
func (t *tx) setKept(sp *space, kept int) error {
	t.kept[sp] = kept != keptNot
	return t.exec("UPDATE spaces SET kept = ? WHERE sid = ?", kept, sp.sid)
}

// keeps reports whether the values of a Space's history stay.
func (t *tx) keeps(sp *space) (bool, error) {
	if keeps, ok := t.kept[sp]; ok {
		return keeps, nil
	}
	t.kept[sp] = false
	err := t.ask([]db.Query{t.askKept(sp)})
	if err != nil {
		delete(t.kept, sp)
	}
	return t.kept[sp], err
}

// askKept asks for what [tx.keeps] tells.
func (t *tx) askKept(sp *space) db.Query {
	return db.Query{Text: "SELECT kept FROM spaces WHERE sid = ?", Args: []any{sp.sid}, Row: func(scan db.Scan) error {
		var kept int
		err := scan(&kept)
		t.kept[sp] = kept != keptNot
		return err
	}}
}

// wantAlso notes a value that is not here, current or not.
func (t *tx) wantAlso(sp *space, hash tinycloud.Hash) error {
	if held, err := t.holds(sp, hash); held || err != nil {
		return err
	}
	return t.lack(sp, hash)
}
