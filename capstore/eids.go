package capstore

import (
	"slices"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// The database numbers epochs in the order in which they were added: the places of changes ([Cursor]) rely on it. On a
// server, where an answer costs a round trip, a transaction has numbers given to it beforehand, under the lock of the one
// who writes; those that it does not use are used by nobody.

// moreEpochs is for how many epochs numbers are asked for when a transaction has used up those it had.
const moreEpochs = 64

// intoEpochs is the row of an epoch, without its number.
var intoEpochs = db.Insert{Into: "epochs", Columns: "sid id seq t written begin_of valid reason clock bytes", ID: "eid"}

// intoNumbered is the same with it. SQLite notes in a file how to undo several rows whose numbers are given.
var intoNumbered = db.Insert{Into: "epochs", Columns: "eid " + intoEpochs.Columns, Alone: true}

// numbers are those that epochs of a transaction get.
type numbers struct {
	given []int64 // of a sequence, in order
	last  int64   // the greatest that any epoch has, where there are no sequences; on SQLite 0 until it is known
}

// addEpoch inserts an epoch and returns its number.
func (t *tx) addEpoch(args ...any) (eid int64, err error) {
	switch {
	case t.supposed != nil:
		eid = db.FirstGiven + int64(len(t.supposed.made))
	case !t.s.db.Shared && !t.gathers:
		t.numbers.last, err = t.insert(intoEpochs, args...)
		return t.numbers.last, err
	case !t.s.db.Shared && t.numbers.last == 0:
		if _, err := t.one([]any{&t.numbers.last}, "SELECT coalesce(max(eid), 0) FROM epochs"); err != nil {
			return 0, err
		}
		t.numbers.last++
		eid = t.numbers.last
	case t.s.db.Numbers == "":
		t.numbers.last++
		eid = t.numbers.last
	default:
		if len(t.numbers.given) == 0 {
			if err := t.ask([]db.Query{t.reserve(moreEpochs)}); err != nil {
				return 0, err
			}
		}
		eid, t.numbers.given = t.numbers.given[0], t.numbers.given[1:]
	}
	return eid, t.add(intoNumbered, slices.Concat([]any{eid}, args)...)
}

// reserve asks for the numbers of so many epochs. The transaction has the lock of the one who writes.
func (t *tx) reserve(n int) db.Query {
	if t.s.db.Numbers == "" {
		// Other releases do not write node.eid; and the last epochs may be gone, whose numbers are not to come again.
		return db.Query{Text: "SELECT eid FROM node WHERE id = 1 UNION ALL SELECT coalesce(max(eid), 0) FROM epochs", Row: func(scan db.Scan) error {
			var eid int64
			err := scan(&eid)
			t.numbers.last = max(t.numbers.last, eid)
			return err
		}}
	}
	n = max(n, 1) // a sequence can't be set to before its first number
	return db.Query{Text: t.s.db.Numbers, Args: []any{n}, Row: func(scan db.Scan) error {
		var last int64
		err := scan(&last)
		for i := range n {
			t.numbers.given = append(t.numbers.given, last-int64(n-1-i))
		}
		return err
	}}
}

// count stores what is counted of all transactions.
func (t *tx) saveCounts(generation int64) error {
	if t.s.db.Numbers == "" {
		return t.exec("UPDATE node SET generation = ?, eid = ? WHERE id = 1", generation, t.numbers.last)
	}
	return t.exec("UPDATE node SET generation = ? WHERE id = 1", generation)
}
