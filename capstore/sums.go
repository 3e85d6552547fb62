package capstore

import "github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"

// What a transaction adds to the counts of a Space's values, and which values it may let go of, is gathered and done at its
// end: once, not for each request of a group.

// sums are to be added to columns of a Space's row.
type sums struct{ bytes, past int64 }

func (t *tx) sum(sp *space, bytes, past int64) {
	s := t.sums[sp]
	t.sums[sp] = sums{s.bytes + bytes, s.past + past}
}

// addUp brings the row of a Space up to date, for who reads it.
func (t *tx) addUp(sp *space) error {
	s := t.sums[sp]
	delete(t.sums, sp)
	if s == (sums{}) {
		return nil
	}
	return t.exec("UPDATE spaces SET bytes = bytes + ?, past = past + ? WHERE sid = ?", s.bytes, s.past, sp.sid)
}

// maxLeaving is how many values are looked at together.
const maxLeaving = 512

// leaving is a value that may be let go of.
type leaving struct {
	hash          [32]byte
	current, past bool // rows hold it
	here          bool // and it is not past already
	size          int64
}

const lookLeaving = "SELECT size FROM vals WHERE sid = ? AND hash = ? AND NOT EXISTS (SELECT 1 FROM past WHERE past.sid = vals.sid AND past.hash = vals.hash)"

// asks is what has to be known of the value.
func (l *leaving) asks(t *tx, sp *space) []db.Query {
	which, args := t.whichHold(sp, l.hash)
	return []db.Query{
		{Text: which, Args: args, Row: func(scan db.Scan) error { return scan(&l.current, &l.past) }},
		{Text: lookLeaving, Args: []any{sp.sid, l.hash[:]}, Row: func(scan db.Scan) error {
			l.here = true
			return scan(&l.size)
		}},
	}
}

// depart lets go of the values that the transaction released in a Space, unless they are held again.
func (t *tx) depart(sp *space) error {
	var all [][32]byte
	seen := map[[32]byte]bool{}
	for _, hash := range t.released[sp] {
		if !seen[hash] {
			all, seen[hash] = append(all, hash), true
		}
	}
	delete(t.released, sp)
	for len(all) > 0 {
		n := min(len(all), maxLeaving)
		if err := t.departSome(sp, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

func (t *tx) departSome(sp *space, hashes [][32]byte) error {
	all := make([]leaving, len(hashes))
	var ask []db.Query
	if _, known := t.kept[sp]; !known {
		ask = append(ask, t.askKept(sp))
	}
	for i, hash := range hashes {
		all[i].hash = hash
		ask = append(ask, all[i].asks(t, sp)...)
	}
	if err := t.ask(ask); err != nil {
		return err
	}
	aged := false
	for i := range all {
		if all[i].current {
			continue
		}
		retired, err := t.leave(sp, &all[i])
		if err != nil {
			return err
		}
		aged = aged || retired
	}
	if aged {
		return t.boundPast(sp)
	}
	return nil
}
