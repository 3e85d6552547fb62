package capstore

import (
	"context"
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// A Space that comes to be hosted adopts the delegations that were posted before: they get epochs, some with the
// transaction that begins it, the others in transactions of their own, between which others write. What an event rests on
// gets its epoch before the event anyway, so that nothing depends on how far that is. How far it is, is durable.

// adoptAtOnce is how many delegations a transaction adopts.
const adoptAtOnce = 64

// adopt gives stored delegations that name a Space their epochs, and revocations of them: those behind one, in the order
// of ids. It notes where to go on.
func (t *tx) adopt(sp *space, after tinycloud.Hash) error {
	ids, err := t.s.mentioned(t.ctx, t, sp.id, after, t.s.adoptAtOnce)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := t.adoptOne(sp, id); err != nil {
			return err
		}
	}
	if len(ids) < t.s.adoptAtOnce {
		return t.exec("DELETE FROM adoptions WHERE sid = ?", sp.sid)
	}
	last := ids[len(ids)-1]
	t.adopts = true
	return t.add(db.Insert{Into: "adoptions", Columns: "sid id", Key: "sid", Replace: true}, sp.sid, last[:])
}

func (t *tx) adoptOne(sp *space, id tinycloud.Hash) error {
	tok, err := t.s.token(t.ctx, t, id)
	if err != nil || tok == nil {
		return err
	}
	if sp.factRoom(tok) == nil { // else it gets its epoch if something comes that rests on it
		if err := t.ensure(sp, id, 0); err != nil {
			return err
		}
	}
	t.s.mu.RLock()
	revocation, dead := t.s.revoked[id]
	t.s.mu.RUnlock()
	if !dead {
		return nil
	}
	return t.ensure(sp, revocation, 0)
}

// Adopt goes on with what Spaces have to adopt, until all is done. [Store.Run] does so at its begin and whenever there is
// something. The error is of the last Space that can't go on now; others do.
func (s *Store) Adopt(ctx context.Context) (failed error) {
	stuck := map[tinycloud.SpaceID]bool{}
	for {
		ids, err := s.named(ctx, "SELECT s.space FROM spaces s JOIN adoptions a ON a.sid = s.sid ORDER BY s.sid")
		if err != nil {
			return err
		}
		went := false
		for _, id := range ids { // in turn
			if stuck[id] {
				continue
			}
			if err := s.adoptSome(ctx, id); err != nil {
				stuck[id], failed = true, err
				continue
			}
			went = true
		}
		if !went {
			return failed
		}
	}
}

func (s *Store) adoptSome(ctx context.Context, id tinycloud.SpaceID) error {
	return s.queue(ctx, s.bulk, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		var after []byte
		ok, err := t.one([]any{&after}, "SELECT id FROM adoptions WHERE sid = ?", sp.sid)
		if err != nil || !ok {
			return err
		}
		if len(after) != len(tinycloud.Hash{}) {
			return errors.New("adoptions: damaged row")
		}
		return t.adopt(sp, tinycloud.Hash(after))
	})
}

// keepAdopting adopts what has to be, until the context ends. Processes that share a database may do so at once: what is
// adopted twice is adopted once.
func (s *Store) keepAdopting(ctx context.Context) {
	for ctx.Err() == nil {
		again := s.lookAgain()
		if err := s.Adopt(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot adopt delegations, trying again", "error", err)
			again = claimEvery
		}
		s.adopting.Within(ctx, again)
	}
}
