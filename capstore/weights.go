package capstore

import "github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"

// What a transaction adds to the counts of a Space's values, and which values it may let go of, is gathered and done at its
// end: once, not for each request of a group.

// weight is to be added to columns of a Space's row.
type weight struct{ bytes, past int64 }

func (t *tx) sum(sp *space, bytes, past int64) {
	s := t.weights[sp]
	t.weights[sp] = weight{s.bytes + bytes, s.past + past}
}

// addUp brings the row of a Space up to date, for who reads it.
func (t *tx) addUp(sp *space) error {
	s := t.weights[sp]
	delete(t.weights, sp)
	if s == (weight{}) {
		return nil
	}
	return t.exec("UPDATE spaces SET bytes = bytes + ?, past = past + ? WHERE sid = ?", s.bytes, s.past, sp.sid)
}

// maxLeaving is how many values are looked at together.
const maxLeaving = 512

// leaving is a value that may be let go of.
type leaving struct {
	sp            *space
	hash          [32]byte
	current, past bool // rows hold it
	here          bool // and it is not past already
	size          int64
}

const lookLeaving = "SELECT size FROM vals WHERE sid = ? AND hash = ? AND NOT EXISTS (SELECT 1 FROM past WHERE past.sid = vals.sid AND past.hash = vals.hash)"

// asks is what has to be known of the value.
func (l *leaving) asks(t *tx) []db.Query {
	which, args := t.whichHold(l.sp, l.hash)
	return []db.Query{
		{Text: which, Args: args, Row: func(scan db.Scan) error { return scan(&l.current, &l.past) }},
		{Text: lookLeaving, Args: []any{l.sp.sid, l.hash[:]}, Row: func(scan db.Scan) error {
			l.here = true
			return scan(&l.size)
		}},
	}
}

// departures are the values that the transaction released, each once.
func (t *tx) departures() (all []leaving) {
	for sp, hashes := range t.released {
		seen := map[[32]byte]bool{}
		for _, hash := range hashes {
			if !seen[hash] {
				all, seen[hash] = append(all, leaving{sp: sp, hash: hash}), true
			}
		}
	}
	clear(t.released)
	return all
}

// departAll lets go of the values that the transaction released in all Spaces, unless they are held again.
func (t *tx) departAll() error {
	for all := t.departures(); len(all) > 0; {
		n := min(len(all), maxLeaving)
		if err := t.depart(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// depart lets go of values. What has to be known of them, and of their Spaces, is asked for together.
func (t *tx) depart(all []leaving) error {
	var ask []db.Query
	rooms := map[*space]*pastRoom{}
	for i := range all {
		sp := all[i].sp
		if _, seen := rooms[sp]; !seen {
			rooms[sp] = nil
			if _, known := t.kept[sp]; !known {
				ask = append(ask, t.askKept(sp))
			}
			if sp.shared() { // else nearly always nothing becomes past
				rooms[sp] = &pastRoom{}
				ask = append(ask, rooms[sp].asks(sp))
			}
		}
		ask = append(ask, all[i].asks(t)...)
	}
	if err := t.ask(ask); err != nil {
		return err
	}
	aged := map[*space]bool{}
	for i := range all {
		if all[i].current {
			continue
		}
		retired, err := t.leave(&all[i])
		if err != nil {
			return err
		}
		aged[all[i].sp] = aged[all[i].sp] || retired
	}
	for sp, some := range aged {
		if !some {
			continue
		}
		if err := t.boundPast(sp, rooms[sp]); err != nil {
			return err
		}
	}
	return nil
}

// pastRoom is what the row of a Space says of its past and current values, in bytes.
type pastRoom struct{ past, current int64 }

func (r *pastRoom) asks(sp *space) db.Query {
	return db.Query{Text: "SELECT past, bytes FROM spaces WHERE sid = ?", Args: []any{sp.sid}, Row: func(scan db.Scan) error {
		return scan(&r.past, &r.current)
	}}
}
