package capstore

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Bounds of what a Space takes of this node's disk (docs/protocol.md, "Quota"). They follow from its limit; a Space
// without one has none.
const (
	// FreeHistory is how many bytes of history count in no limit, or a quarter of the limit if that is more: what
	// writes and deletes leave behind for good.
	FreeHistory = 16 << 20

	entryWeight = 256 // bytes that an entry takes beside its epoch
	opWeight    = 64  // bytes that an operation takes beside its own
)

// weigh is how many bytes the history of a Space grows by a new epoch without its entry. The migration that made the
// column weighs likewise.
func weigh(p *hostlog.Parsed) int64 {
	n := len(p.Epoch)
	for i := range p.DecodedEvents {
		e := &p.DecodedEvents[i]
		n += len(e.Bytes)
		for _, op := range e.Ops {
			n += opWeight + len(op.Bytes)
		}
	}
	return int64(n)
}

// Room is what a Space may take of this node's disk, and what it does.
type Room struct {
	Limited bool
	Limit   int64 // of Used, for what clients add
	Values  int64 // bytes of the current values
	History int64 // bytes of entries, epochs, tokens and operations, with stored headers
	Ops     int64 // of these the operations of other services than key-value
	Sizes   int64 // bytes that the states of such services take here
	Short   bool  // a value of another host was not taken for want of room
}

// freeHistory is how much of the history does not count.
func (r Room) freeHistory() int64 { return max(FreeHistory, r.Limit/4) }

// Used is what counts: the values, operations and states of services beside key-value, and the rest of the history beyond
// what is free.
func (r Room) Used() int64 {
	used := r.Values + r.Ops + r.Sizes
	if r.Limited {
		used += r.excess()
	}
	return used
}

// excess is how much of the history counts, without what counts in any case.
func (r Room) excess() int64 { return max(0, r.History-r.Ops-r.freeHistory()) }

// most is how much of other hosts is taken: they may have another limit, or count at another moment.
func (r Room) most() int64 { return r.Limit + r.Limit/4 }

// ForValue is how many bytes of a value of other hosts there is room for.
func (r Room) ForValue() int64 {
	if !r.Limited {
		return 1 << 62
	}
	return max(0, r.most()-r.Used())
}

// NoValues reports whether no value of other hosts is fetched, since the Space holds too much.
func (r Room) NoValues() bool { return r.Limited && r.Used() >= r.most() }

// MostHistory is how many bytes the history may have. What deletes, delegates or comes from other hosts is not added beyond.
func (r Room) MostHistory() int64 { return r.most() + r.freeHistory() }

// NoHistory reports whether nothing is added to the history.
func (r Room) NoHistory() bool { return r.Limited && r.History >= r.MostHistory() }

// errHistory is the refusal of what would be added to a full history.
func (r Room) errHistory() error {
	return tinycloud.Refuse(tinycloud.ErrQuota, "Storage quota exceeded. History: %d bytes, Limit: %d bytes", r.History, r.MostHistory())
}

// RefuseValue is why a value of other hosts is not here: its Space holds too much.
func (r Room) RefuseValue() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "The value is not here: the space exceeds its storage limit on this host. Used: %d bytes, Limit: %d bytes", r.Used(), r.Limit)
}

// limitOf is the limit of a Space.
func (s *Store) limitOf(id tinycloud.SpaceID) (limit int64, limited bool) {
	if s.o.Limit == nil {
		return 0, false
	}
	return s.o.Limit(id)
}

// Room returns what a Space takes, and may take, of this node's disk.
func (s *Store) Room(ctx context.Context, id tinycloud.SpaceID) (r Room, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return r, err
	}
	r.Limit, r.Limited = s.limitOf(id)
	_, r.Short = s.short.Load(id)
	_, err = s.db.Read.One(ctx, []any{&r.Values, &r.History, &r.Ops, &r.Sizes}, "SELECT bytes, history, ops, sizes FROM spaces WHERE sid = ?", sid)
	return r, err
}

// historyRoom is of that what is in memory: all but the values and states.
func (s *Store) historyRoom(sp *space) (r Room) {
	r.Limit, r.Limited = s.limitOf(sp.id)
	r.History, r.Ops = sp.history, sp.ops
	return r
}

// room is what a Space takes, within a transaction; without a limit values and states are left out.
func (t *tx) room(sp *space) (r Room, err error) {
	r = t.s.historyRoom(sp)
	if r.Limited && t.supposed == nil {
		if err := t.addUp(sp); err != nil {
			return r, err
		}
		_, err = t.one([]any{&r.Values, &r.Sizes}, "SELECT bytes, sizes FROM spaces WHERE sid = ?", sp.sid)
	}
	return r, err
}

// recordable refuses what would be added to a full history. It asks no database.
func (t *tx) recordable(sp *space) error {
	if r := t.s.historyRoom(sp); r.NoHistory() {
		return r.errHistory()
	}
	return nil
}

// historyLeft is how many bytes may be added to the history, those that are parked among them.
func (s *Store) historyLeft(sp *space) int64 {
	r := s.historyRoom(sp)
	if !r.Limited {
		return 1 << 62
	}
	return max(0, r.MostHistory()-r.History)
}

// takes reports whether a value of another host may be kept that came along with its operation.
func (t *tx) takes(sp *space, size int64) (bool, error) {
	r, err := t.room(sp)
	return size <= r.ForValue(), err
}

// noRoom reports whether values of other hosts are not fetched.
func (s *Store) noRoom(ctx context.Context, id tinycloud.SpaceID, sid int64) (bool, error) {
	if _, limited := s.limitOf(id); !limited {
		s.short.Delete(id)
		return false, nil
	}
	r, err := s.Room(ctx, id)
	switch {
	case err != nil:
		return false, err
	case r.NoValues():
		s.LacksRoom(id)
		return true, nil
	case r.Short:
		var one int
		some, err := s.db.Read.One(ctx, []any{&one}, "SELECT 1 FROM wants WHERE sid = ? LIMIT 1", sid)
		if err == nil && !some {
			s.short.Delete(id)
		}
		return false, err
	}
	return false, nil
}

// roomier has the values be fetched of which a Space holds too much, now that it holds less.
func (t *tx) roomier(sp *space) {
	if _, short := t.s.short.LoadAndDelete(sp.id); short {
		t.touch(sp).Wants++
	}
}

// LacksRoom notes that a value of another host was not taken: it would be too much for its Space.
func (s *Store) LacksRoom(id tinycloud.SpaceID) { s.short.Store(id, struct{}{}) }

// Takes is nil while the Space takes history of other hosts; else it says why not, in class [tinycloud.ErrQuota].
func (s *Store) Takes(ctx context.Context, id tinycloud.SpaceID) error {
	if _, limited := s.limitOf(id); !limited {
		return nil
	}
	r, err := s.Room(ctx, id)
	if err == nil && r.NoHistory() {
		err = r.errHistory()
	}
	return err
}

// rooms calls each with what every Space takes, hosted or imported, in the order of their ids.
func (s *Store) rooms(ctx context.Context, each func(tinycloud.SpaceID, Room)) error {
	return s.db.Read.Each(ctx, func(scan db.Scan) error {
		var text string
		var r Room
		if err := scan(&text, &r.Values, &r.History, &r.Ops, &r.Sizes); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		if err == nil {
			r.Limit, r.Limited = s.limitOf(id)
			_, r.Short = s.short.Load(id)
			each(id, r)
		}
		return err
	}, "SELECT space, bytes, history, ops, sizes FROM spaces ORDER BY space")
}
