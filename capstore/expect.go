package capstore

import (
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Bundles of peers come by hundreds. What has to be known of each before it is entered is asked for many of them together:
// a query for each of them takes longer than what it answers.
const (
	expectAtOnce = 64 // of one kind in one query, a power of two
	expectFrom   = 4  // bundles; fewer are entered without
	// What is asked of several bundles before the first of them is entered: then nothing is asked while rows are inserted
	// behind. Answers beyond [maxKnown] would be forgotten.
	expectLooks = maxKnown / 2
)

// expected is what is known of bundles that are about to be entered.
type expected struct {
	epochs map[tinycloud.Hash]struct{} // that are not stored
	// events are in no epoch, 0, or in none but the one of a number.
	events map[tinycloud.Hash]int64
}

// newEpoch reports whether an epoch is known not to be stored. From now on it isn't.
func (x *expected) newEpoch(id tinycloud.Hash) bool {
	_, ok := x.epochs[id]
	delete(x.epochs, id)
	return ok
}

// added notes that an event stands in an epoch.
func (x *expected) added(event tinycloud.Hash, eid int64) {
	if in, ok := x.events[event]; ok && in != 0 && in != eid {
		delete(x.events, event)
	} else if ok {
		x.events[event] = eid
	}
}

// elsewhere reports whether an event stands in other epochs than the one of a number.
func (t *tx) elsewhere(sp *space, event tinycloud.Hash, eid int64) (bool, error) {
	if in, ok := t.expected.events[event]; ok {
		return in != 0 && in != eid, nil
	}
	var others int
	_, err := t.one([]any{&others}, "SELECT count(*) FROM events WHERE sid = ? AND id = ? AND eid <> ?", sp.sid, event[:], eid)
	return others > 0, err
}

// lookWant is whether a value is to be fetched.
var lookWant = service.Look{Table: "wants", By: "sid hash", Select: "1"}

// expect asks for what entering some bundles leads to, and returns how many of them it looked at: one or more.
func (t *tx) expect(sp *space, bundles []*hostlog.Parsed) (n int, err error) {
	t.expected = expected{epochs: map[tinycloud.Hash]struct{}{}, events: map[tinycloud.Hash]int64{}}
	if len(bundles) < expectFrom {
		return len(bundles), nil
	}
	if t.known.n > maxKnown-expectLooks { // else some of the next answers would be forgotten
		t.known.forget()
	}
	looks := make([]service.Looked, 0, min(2*len(bundles), expectLooks))
	for _, p := range bundles {
		if len(looks) > expectLooks || len(t.expected.events) > expectLooks {
			break
		}
		if n++; len(p.Parts) > 0 {
			continue
		}
		if sp.held(p.Entry.Epoch) == nil {
			t.expected.epochs[p.Entry.Epoch] = struct{}{}
		}
		for i := range p.DecodedEvents {
			e := &p.DecodedEvents[i]
			t.expected.events[e.ID] = 0
			for _, op := range e.Ops {
				if l, ok := t.s.services[op.Service].(service.Looker); ok {
					looks = append(looks, l.Looks(sp.sid, t.s.db.Dialect, op.Subject)...)
				}
			}
		}
		for hash := range p.ValueOf {
			args := []any{sp.sid, hash[:]}
			looks = append(looks, service.Looked{Look: service.LookValue, Args: args})
			for _, l := range []service.Look{service.LookPast, lookWant} {
				if none, err := t.none(sp, l); err != nil {
					return n, err
				} else if !none {
					looks = append(looks, service.Looked{Look: l, Args: args})
				}
			}
		}
	}
	if err := leaveNew(t, sp, t.expected.epochs, "SELECT id FROM epochs WHERE sid = ? AND "); err != nil {
		return n, err
	}
	if err := leaveNew(t, sp, t.expected.events, "SELECT id FROM events WHERE sid = ? AND "); err != nil {
		return n, err
	}
	return n, t.lookAll(looks)
}

// none reports whether the table of a look, which goes by Spaces first, had no row of a Space when that was asked: few have
// past values, or wanted ones.
func (t *tx) none(sp *space, l service.Look) (bool, error) {
	of := ofSpace{l, sp.sid}
	if e := t.known.none[of]; e != nil {
		return !e.some, nil
	}
	var one int
	some, err := t.one([]any{&one}, "SELECT 1 FROM "+l.Table+" WHERE sid = ? LIMIT 1", sp.sid)
	if err != nil {
		return false, err
	}
	if t.known.none == nil {
		t.known.none = map[ofSpace]*emptied{}
	}
	t.known.none[of] = &emptied{some: some}
	return !some, nil
}

// leaveNew deletes from a map what a query finds in a Space, which is to be ended by a condition on ids.
func leaveNew[V any](t *tx, sp *space, all map[tinycloud.Hash]V, query string) error {
	var ids []any
	for id := range all {
		ids = append(ids, id[:])
	}
	for len(ids) > 0 {
		n := min(len(ids), expectAtOnce)
		cond, args := in("id", ids[:n:n])
		err := t.each(func(scan db.Scan) error {
			var id []byte
			err := scan(&id)
			delete(all, tinycloud.Hash(id))
			return err
		}, query+cond, append([]any{sp.sid}, args...)...)
		if err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// alike are looks that differ in the last column that they go by.
type alike struct {
	service.Look
	args []any // of the other columns
	last []any
}

// lookAll learns what looks find, as far as it is not known.
func (t *tx) lookAll(looks []service.Looked) error {
	var groups []*alike
	of := map[service.Look]map[string]*alike{}
	for _, l := range looks {
		if t.known.at(l.Look, l.Args) != nil {
			continue
		}
		t.known.learn(l.Look, l.Args, nil)
		n := len(l.Args) - 1
		if of[l.Look] == nil {
			of[l.Look] = map[string]*alike{}
		}
		key := spelled(l.Args[:n])
		a := of[l.Look][key]
		if a == nil {
			a = &alike{Look: l.Look, args: l.Args[:n:n]}
			groups, of[l.Look][key] = append(groups, a), a
		}
		a.last = append(a.last, l.Args[n])
	}
	for _, a := range groups {
		for len(a.last) > 0 {
			n := min(len(a.last), expectAtOnce)
			if err := t.lookTogether(a, a.last[:n:n]); err != nil {
				return err
			}
			a.last = a.last[n:]
		}
	}
	return nil
}

// lookTogether makes looks that differ in the last column that they go by.
func (t *tx) lookTogether(a *alike, last []any) error {
	by := strings.Fields(a.By)
	column := "t." + by[len(by)-1]
	query := "SELECT " + column + ", " + a.Select + " FROM " + a.Table + " t WHERE "
	for _, c := range by[:len(by)-1] {
		query += "t." + c + " = ? AND "
	}
	cond, args := in(column, last)
	return t.each(func(scan db.Scan) error {
		row, err := db.ScanRow(scan, 1+a.Columns())
		if err == nil {
			t.known.learn(a.Look, append(a.args, row[0]), row[1:])
		}
		return err
	}, query+cond, append(a.args, args...)...)
}
