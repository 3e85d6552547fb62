package capstore

import (
	"context"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// A value that was current, and is held no more, may be current again: when history comes late that puts the newer
// write at a lower place, or a host is removed whose write it was (docs/replication.md, "Past values"). Its writer
// may be the only host that had it, and has promised to keep it. So in a Space of several hosts it is past, not gone,
// for [pastAge]; the oldest go earlier when they are more than current values are, and more than [minPast], or more than
// the Space may hold. One that a
// service holds as such is past for as long as its row may be; when there is no room for all, those go by their turns, so
// that a flood of one subject drives out its own.
const (
	pastAge   = 24 * time.Hour
	minPast   = 64 << 20 // bytes
	pastBatch = 64       // past values that are freed at once
)

// shared reports whether others may add to the history of a Space: it has, or had, another host.
func (sp *space) shared() bool {
	if sp.others {
		return true
	}
	for _, b := range sp.branches {
		sp.others = sp.others || b.host != sp.host
	}
	sp.facts.Hosts(func(h hostlog.Key, _ *Token) bool {
		sp.others = sp.others || h != sp.host
		return !sp.others
	})
	return sp.others
}

// retire makes a value past that is here and that is current no more. Whether it stays is known, see [tx.keeps].
func (t *tx) retire(sp *space, hash tinycloud.Hash, size int64) error {
	err := t.add(db.Insert{Into: "past", Columns: "sid hash size since", Key: "sid hash"}, sp.sid, hash[:], size, t.now.UnixMilli())
	if err != nil {
		return err
	}
	return t.age(sp, size)
}

// boundPast frees past values of a Space that has too many. Its row is asked for unless it is given.
func (t *tx) boundPast(sp *space, row *pastRoom) error {
	if _, limited := t.s.limitOf(sp.id); !limited {
		if keeps, err := t.keeps(sp); err != nil || keeps {
			return err
		}
	}
	if row == nil {
		row = &pastRoom{}
		if err := t.ask([]db.Query{row.asks(sp)}); err != nil {
			return err
		}
	}
	add := t.weights[sp] // is not in the row yet
	past, current := row.past+add.past, row.current+add.bytes
	most, err := t.mostPast(sp, past, current)
	if err != nil || past <= most {
		return err
	}
	all, err := t.freePast(sp, past-most, t.now.UnixMilli())
	if err != nil || !all {
		return err
	}
	if err := t.addUp(sp); err != nil {
		return err
	}
	if _, err := t.one([]any{&past}, "SELECT past FROM spaces WHERE sid = ?", sp.sid); err != nil || past <= most {
		return err
	}
	return t.freeHeld(sp, past-most)
}

// mostPast is how many bytes of past values a Space may have that has so many, and so many of current ones. Where all are
// kept, and beside a host of older rules, none is freed that the Space's limit has room for: else an owner could have this
// node keep all that he ever wrote.
func (t *tx) mostPast(sp *space, past, current int64) (int64, error) {
	limit, limited := t.s.limitOf(sp.id)
	if !limited {
		limit = 1 << 62
	}
	most := min(max(current, minPast), limit)
	if past <= most {
		return most, nil
	}
	for _, all := range []func(*space) (bool, error){t.keeps, t.mixed} {
		if is, err := all(sp); is || err != nil {
			return limit, err
		}
	}
	return most, nil
}

// retireAll makes all values past that are not current.
func (t *tx) retireAll(sp *space) error {
	// 0 * size tells the servers the type of the time.
	return t.exec("INSERT INTO past (sid, hash, size, since) SELECT sid, hash, size, 0 * size + ? FROM vals WHERE sid = ? AND NOT "+t.s.held.any(true, "vals.sid", "vals.hash")+
		" AND hash NOT IN (SELECT hash FROM past WHERE sid = ?)", t.now.UnixMilli(), sp.sid, sp.sid)
}

// revive makes a past value count again.
func (t *tx) revive(sp *space, hash tinycloud.Hash) error {
	var size int64
	past, err := t.look([]any{&size}, service.LookPast, sp.sid, hash[:])
	if err != nil || !past {
		return err
	}
	if err := t.exec("DELETE FROM past WHERE sid = ? AND hash = ?", sp.sid, hash[:]); err != nil {
		return err
	}
	return t.age(sp, -size)
}

// age moves bytes from a Space's current values to its past ones.
func (t *tx) age(sp *space, bytes int64) error {
	if bytes > 0 {
		t.roomier(sp)
	}
	t.sum(sp, -bytes, bytes)
	return nil
}

// freePast frees the oldest past values, of those that are past since a time in unix milliseconds, until so
// many bytes are free or a batch is done. It reports whether that was all there are.
func (t *tx) freePast(sp *space, bytes, upTo int64) (all bool, err error) {
	var hashes [][]byte
	var freed int64
	held, args := t.s.held.recent("past.sid", "past.hash", t.now)
	err = t.each(func(scan db.Scan) error {
		var hash []byte
		var size int64
		if err := scan(&hash, &size); err != nil || freed >= bytes {
			return err
		}
		hashes, freed = append(hashes, hash), freed+size
		return nil
	}, "SELECT hash, size FROM past WHERE sid = ? AND since <= ? AND NOT "+held+" ORDER BY since LIMIT ?",
		slices.Concat([]any{sp.sid, upTo}, args, []any{pastBatch})...)
	if err != nil {
		return false, err
	}
	return len(hashes) < pastBatch, t.freeHashes(sp, hashes, freed)
}

// freeHeld frees past values that services hold, by their turns, until so many bytes are free or a batch of each is done.
func (t *tx) freeHeld(sp *space, bytes int64) error {
	for _, x := range t.s.held.holding(false) {
		if err := t.freeTurns(sp, x, bytes); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) freeTurns(sp *space, x heldTable, bytes int64) error {
	var hashes [][]byte
	var freed int64
	seen := map[string]bool{}
	err := t.each(func(scan db.Scan) error {
		var hash []byte
		var size, turn, since int64
		if err := scan(&hash, &size, &turn, &since); err != nil || freed >= bytes || seen[string(hash)] {
			return err
		}
		seen[string(hash)] = true
		hashes, freed = append(hashes, hash), freed+size
		return nil
	}, "SELECT p.hash, p.size, h."+x.Turn+", h."+x.Since+" FROM "+x.Name+" h JOIN past p ON p.sid = h.sid AND p.hash = h."+x.Value+
		" WHERE h.sid = ? AND "+x.Held+" ORDER BY h."+x.Turn+" DESC, h."+x.Since+" LIMIT ?", sp.sid, pastBatch)
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		if err := t.exec("UPDATE "+x.Name+" SET "+x.Turn+" = 0 WHERE sid = ? AND "+x.Value+" = ?", sp.sid, hash); err != nil {
			return err
		}
	}
	return t.freeHashes(sp, hashes, freed)
}

// freeHashes frees past values of so many bytes.
func (t *tx) freeHashes(sp *space, hashes [][]byte, bytes int64) error {
	for _, hash := range hashes {
		for _, table := range []string{"past", "vals"} {
			if err := t.exec("DELETE FROM "+table+" WHERE sid = ? AND hash = ?", sp.sid, hash); err != nil {
				return err
			}
		}
	}
	t.sum(sp, 0, -bytes)
	return nil
}

// expire frees a batch of the values of a Space that are past for long. It reports whether that was all there are.
func (t *tx) expire(sp *space) (all bool, err error) {
	if keeps, err := t.keeps(sp); keeps || err != nil {
		return true, err
	}
	if mixed, err := t.mixed(sp); mixed || err != nil {
		return true, err
	}
	const everything = 1 << 62
	return t.freePast(sp, everything, t.now.Add(-pastAge).UnixMilli())
}

// count counts the bytes of a Space's values anew.
func (t *tx) count(sp *space) error {
	delete(t.weights, sp)
	err := t.exec("UPDATE spaces SET past = (SELECT coalesce(sum(size), 0) FROM past WHERE sid = ?) WHERE sid = ?", sp.sid, sp.sid)
	if err != nil {
		return err
	}
	return t.exec("UPDATE spaces SET bytes = (SELECT coalesce(sum(size), 0) FROM vals WHERE sid = ?) - past + (SELECT coalesce(sum(size), 0) FROM pending WHERE sid = ?) WHERE sid = ?",
		sp.sid, sp.sid, sp.sid)
}

// Expire frees the values of all Spaces that are past for long. It is to be called now and then.
func (s *Store) Expire(ctx context.Context) error {
	ids, err := s.named(ctx, "SELECT space FROM spaces WHERE past > 0")
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.expire(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// expire frees the values of a Space that are past for long, in transactions that others don't wait for.
func (s *Store) expire(ctx context.Context, id tinycloud.SpaceID) error {
	for all := false; !all; {
		err := s.do(ctx, func(t *tx) error {
			sp, err := t.space(id)
			if err == nil {
				all, err = t.expire(sp)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
