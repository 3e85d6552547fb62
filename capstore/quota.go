package capstore

import (
	"context"
	"fmt"
	"maps"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// SpaceUsage is how many bytes of a Space count in its limit here.
type SpaceUsage struct {
	Space tinycloud.SpaceID
	Bytes int64
}

// SetQuota makes a number of bytes the limit of a Space, hosted or not, until it is cleared. It is for
// [Options.Limit] to heed.
func (s *Store) SetQuota(ctx context.Context, id tinycloud.SpaceID, bytes int64) error {
	if id.IsZero() || bytes < 0 {
		return fmt.Errorf("quota of %d bytes: %w", bytes, tinycloud.ErrInvalid)
	}
	return s.setQuota(ctx, id, &bytes)
}

// ClearQuota forgets what was set for a Space; it is idempotent.
func (s *Store) ClearQuota(ctx context.Context, id tinycloud.SpaceID) error {
	return s.setQuota(ctx, id, nil)
}

func (s *Store) setQuota(ctx context.Context, id tinycloud.SpaceID, bytes *int64) error {
	return s.do(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM quotas WHERE space = ?", id.String()); err != nil {
			return err
		}
		if bytes != nil {
			if err := t.add(db.Insert{Into: "quotas", Columns: "space bytes"}, id.String(), *bytes); err != nil {
				return err
			}
		}
		t.quotas[id] = bytes
		return nil
	})
}

// Quota returns what is set for a Space. It doesn't block.
func (s *Store) Quota(id tinycloud.SpaceID) (bytes int64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	bytes, ok = s.quotas[id]
	return bytes, ok
}

// Quotas returns what is set, by Space.
func (s *Store) Quotas() map[tinycloud.SpaceID]int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.quotas)
}

// Usage returns the bytes that count in the limit of a Space: those of its values here, and of a long history.
func (s *Store) Usage(ctx context.Context, space tinycloud.SpaceID) (n int64, err error) {
	r, err := s.Room(ctx, space)
	return r.Used(), err
}

// UsageAll returns the usage of every hosted Space, by their ids in order.
func (s *Store) UsageAll(ctx context.Context) ([]SpaceUsage, error) {
	var out []SpaceUsage
	err := s.rooms(ctx, func(id tinycloud.SpaceID, r Room) { out = append(out, SpaceUsage{id, r.Used()}) })
	return out, err
}

// learnQuotas reads what is set.
func (s *Store) learnQuotas(ctx context.Context, q querier) error {
	quotas := map[tinycloud.SpaceID]int64{}
	err := q.Each(ctx, func(scan db.Scan) error {
		var text string
		var bytes int64
		if err := scan(&text, &bytes); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		if err != nil {
			return fmt.Errorf("quota of %q: damaged row", text)
		}
		quotas[id] = bytes
		return nil
	}, "SELECT space, bytes FROM quotas")
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quotas = quotas
	return nil
}

// fits refuses writes beyond the Space's limit, all of them together, with the texts that clients parse.
// What is held already takes no more room.
func (t *tx) fits(sp *space, service string, p service.Plan) error {
	r, err := t.room(sp)
	if err != nil || !r.Limited {
		return err
	}
	if r.NoHistory() {
		return r.errHistory()
	}
	if p.Size != nil {
		return t.fitsState(sp, r, service, p)
	}
	grown, err := t.growth(sp, p)
	if t.supposed != nil {
		t.supposed.grow(sp, r, grown)
		return err
	}
	used := r.Used()
	switch {
	case err != nil:
		return err
	case len(p.Values) == 0, grown == 0 && r.excess() == 0: // deletes, and what is here already
		return nil
	case used >= r.Limit:
		return tinycloud.Refuse(tinycloud.ErrQuota, "Storage quota exceeded. Used: %d bytes, Limit: %d bytes", used, r.Limit)
	case grown > r.Limit-used:
		return tinycloud.Refuse(tinycloud.ErrTooLarge, "Write exceeds remaining storage. Used: %d bytes, Limit: %d bytes", used, r.Limit)
	}
	return nil
}

// fitsState is fits for a plan that changes a state: it may exceed what is left, if anything is, and make room in any case.
func (t *tx) fitsState(sp *space, r Room, service string, p service.Plan) error {
	grown, err := t.size(sp, service, p.Size.Subject)
	if err != nil {
		return err
	}
	grown = p.Size.Bytes - grown
	for _, b := range p.Ops {
		grown += int64(len(b))
	}
	if used := r.Used(); grown > 0 && used >= r.Limit {
		return tinycloud.Refuse(tinycloud.ErrQuota, "Storage quota exceeded. Used: %d bytes, Limit: %d bytes", used, r.Limit)
	}
	return nil
}

// size is what the state of a subject takes here, as far as its service said.
func (t *tx) size(sp *space, name, subject string) (bytes int64, err error) {
	id := tinycloud.Sum([]byte(subject))
	_, err = t.look([]any{&bytes}, service.LookSize, sp.sid, name, id[:])
	return bytes, err
}

func (t *tx) setSize(sp *space, service, subject string, bytes int64) error {
	before, err := t.size(sp, service, subject)
	if err != nil || before == bytes {
		return err
	}
	t.touch(sp)
	if bytes < before {
		t.roomier(sp)
	}
	id := tinycloud.Sum([]byte(subject))
	err = t.add(db.Insert{Into: "sizes", Columns: "sid service id size", Key: "sid service id", Replace: true}, sp.sid, service, id[:], bytes)
	if err != nil {
		return err
	}
	return t.exec("UPDATE spaces SET sizes = sizes + ? WHERE sid = ?", bytes-before, sp.sid)
}

// NoteSize notes how many bytes the state of a subject takes here. It is never too many: what came from other hosts counts,
// and is kept.
func (s *Store) NoteSize(ctx context.Context, id tinycloud.SpaceID, service, subject string, bytes int64) error {
	return s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		return t.setSize(sp, service, subject, bytes)
	})
}

// growth is how many bytes a Space gains by a plan.
func (t *tx) growth(sp *space, p service.Plan) (bytes int64, err error) {
	counted := make(map[tinycloud.Hash]bool, len(p.Values))
	for _, v := range p.Values {
		if counted[v.Hash] {
			continue
		}
		counted[v.Hash] = true
		held, err := t.counts(sp, v.Hash)
		if err != nil {
			return 0, err
		}
		if !held {
			bytes += v.Size
		}
	}
	return bytes, nil
}

// holds reports whether a Space has a value here.
func (t *tx) holds(sp *space, hash tinycloud.Hash) (bool, error) {
	var one int
	return t.look([]any{&one}, service.LookValue, sp.sid, hash[:])
}

// counts reports whether a value is counted in the Space's bytes already.
func (t *tx) counts(sp *space, hash tinycloud.Hash) (bool, error) {
	held, err := t.holds(sp, hash)
	if err != nil || !held {
		return held, err
	}
	var one int
	past, err := t.look([]any{&one}, service.LookPast, sp.sid, hash[:])
	return !past, err
}

// saveValue keeps a value: its bytes, or that the block store has it when inline is nil. Only here are
// rows added to vals, and every row that is not past counts in spaces.bytes.
func (t *tx) saveValue(sp *space, hash tinycloud.Hash, size int64, inline []byte) error {
	if held, err := t.holds(sp, hash); err != nil {
		return err
	} else if held {
		return t.revive(sp, hash)
	}
	if inline == nil && size == 0 {
		inline = []byte{}
	}
	var bytes any // null: in the block store
	if inline != nil {
		bytes = inline
	}
	if err := t.add(db.Insert{Into: "vals", Columns: "sid hash size inline"}, sp.sid, hash[:], size, bytes); err != nil {
		return err
	}
	t.known.learn(service.LookValue, []any{sp.sid, hash[:]}, []any{int64(1)})
	t.known.learn(service.LookPast, []any{sp.sid, hash[:]}, nil) // what is past is among the values
	if sp.shared() {                                             // it may have been wanted, and came another way
		if err := t.unwant(sp, hash); err != nil {
			return err
		}
	}
	return t.grow(sp, size)
}

// grow changes the count of a Space's bytes, which follows every change of vals.
func (t *tx) grow(sp *space, by int64) error {
	if by == 0 {
		return nil
	}
	if by < 0 {
		t.roomier(sp)
	}
	t.sum(sp, by, 0)
	return nil
}
