package capstore

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// A server's answer costs a round trip. So what requests are about to read is read for all requests of a transaction with
// its lock, in one round trip (looks of [job.ahead]), and what a transaction has read it does not read again. Either is
// known until the transaction writes what may change it: rows of the same table, but for those that differ in a column
// that the look goes by.

const (
	maxKnown = 8192 // answers of a transaction
	maxAhead = 2048 // that are asked for before it is known whether they are needed
)

// known are answers to looks that hold in the transaction as it stands. Its zero value knows none.
type known struct {
	of map[service.Look]map[string]*answer
	n  int // that were learned, about
	// How inserts of rows touch looks; it stays when answers are forgotten.
	touch map[touching]*touched
	none  map[ofSpace]*emptied
}

// ofSpace are the rows of a Space that a look could find.
type ofSpace struct {
	look service.Look
	sid  int64
}

// emptied is whether the database had such rows, and which were inserted since.
type emptied struct {
	some  bool
	since map[string]struct{}
}

// lacks reports whether nothing of a Space is there that a look could find.
func (k *known) lacks(l service.Look, args []any) bool {
	if len(k.none) == 0 {
		return false
	}
	sid, ok := args[0].(int64)
	e := k.none[ofSpace{l, sid}]
	if !ok || e == nil || e.some {
		return false
	}
	_, there := e.since[spelled(args)]
	return !there
}

// answer is the first row that a look found, nil if there was none.
type answer struct {
	row      []any
	asked    bool // and nobody looked yet
	supposed bool // likewise, see suppose.go
}

// at returns the answer to a look, nil if it is not known.
func (k *known) at(l service.Look, args []any) *answer {
	of := k.of[l]
	if len(of) == 0 {
		return nil
	}
	var room [spelledRoom]byte
	return of[string(spell(room[:0], args))]
}

func (k *known) learn(l service.Look, args []any, row []any) {
	k.learnAt(l, spelled(args), row)
}

func (k *known) learnAt(l service.Look, at string, row []any) {
	if k.n > maxKnown || k.of == nil {
		k.forget()
	}
	of := k.of[l]
	if of == nil {
		of = map[string]*answer{}
		k.of[l] = of
	}
	if a := of[at]; a != nil {
		*a = answer{row: row}
		return
	}
	k.n++
	of[at] = &answer{row: row}
}

// answered learns what the database said.
func (k *known) answered(l service.Look, args []any, row []any) {
	k.learn(l, args, row)
	k.at(l, args).asked = true
}

func (k *known) forget() { k.of, k.n = map[service.Look]map[string]*answer{}, 0 }

// spelledRoom is enough for what most arguments are spelled in.
const spelledRoom = 128

// spelled is a text that differs for different arguments.
func spelled(args []any) string {
	var room [spelledRoom]byte
	return string(spell(room[:0], args))
}

func spell(b []byte, args []any) []byte {
	for _, a := range args {
		switch v := a.(type) {
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
		case []byte:
			b = append(binary.BigEndian.AppendUint32(append(b, 'b'), uint32(len(v))), v...)
		case string:
			b = append(binary.BigEndian.AppendUint32(append(b, 's'), uint32(len(v))), v...)
		default:
			b = fmt.Appendf(append(b, 'v'), "%T %#v;", v, v)
		}
	}
	return b
}

// touching is an insert into the table of a look.
type touching struct {
	look   service.Look
	insert db.Insert
}

// touched is where in the arguments of an insert the columns of a look are.
type touched struct {
	by   []int
	row  []int // of what is read; nil when not all of that is inserted
	some bool  // all of by are
}

func (k *known) touches(l service.Look, i db.Insert) *touched {
	key := touching{l, i}
	t := k.touch[key]
	if t != nil {
		return t
	}
	columns := strings.Fields(i.Columns)
	t = &touched{}
	t.by, t.some = places(columns, strings.Fields(l.By))
	t.row, _ = places(columns, strings.Split(l.Select, ", "))
	if k.touch == nil {
		k.touch = map[touching]*touched{}
	}
	k.touch[key] = t
	return t
}

func places(columns, of []string) (at []int, all bool) {
	for _, c := range of {
		n := slices.Index(columns, c)
		if n < 0 {
			return nil, false
		}
		at = append(at, n)
	}
	return at, true
}

// inserted forgets what an insert may have changed. On SQLite, where rows are read as they were written, it learns what
// stands there now.
func (k *known) inserted(i db.Insert, args []any, learns bool) {
	k.filled(i, args)
	for l, answers := range k.of {
		if l.Table != i.Into || len(answers) == 0 {
			continue
		}
		t := k.touches(l, i)
		if !t.some {
			delete(k.of, l)
			continue
		}
		at := t.key(args)
		if row := t.stands(i, args); row != nil && learns {
			k.learnAt(l, at, row)
		} else {
			delete(answers, at)
		}
	}
}

// goBy are the arguments of the look.
func (t *touched) goBy(args []any) []any {
	by := make([]any, len(t.by))
	for n, at := range t.by {
		by[n] = args[at]
	}
	return by
}

// key is the spelling of the columns that the look goes by.
func (t *touched) key(args []any) string {
	return spelled(t.goBy(args))
}

// stands is the row that a look finds once a row is inserted, nil when that is not known.
func (t *touched) stands(i db.Insert, args []any) (row []any) {
	if t.row == nil || i.Key != "" && !i.Replace {
		return nil
	}
	row = make([]any, len(t.row))
	for n, at := range t.row {
		switch v := args[at].(type) {
		case nil, int64, string:
			row[n] = v
		case []byte:
			row[n] = slices.Clone(v)
		case int:
			row[n] = int64(v)
		case bool:
			row[n] = int64(0)
			if v {
				row[n] = int64(1)
			}
		default:
			return nil
		}
	}
	return row
}

// rows calls f for the looks that go by what an insert adds.
func (k *known) rows(i db.Insert, args []any, f func(service.Look, []any)) {
	for l := range k.of {
		if l.Table != i.Into {
			continue
		}
		if t := k.touches(l, i); t.some {
			f(l, t.goBy(args))
		}
	}
}

// filled notes an insert into what had no rows.
func (k *known) filled(i db.Insert, args []any) {
	for x, e := range k.none {
		if x.look.Table != i.Into {
			continue
		}
		t := k.touches(x.look, i)
		if !t.some {
			delete(k.none, x)
			continue
		}
		if e.since == nil {
			e.since = map[string]struct{}{}
		}
		e.since[t.key(args)] = struct{}{}
	}
}

// executed forgets what a statement may have changed.
func (k *known) executed(query string, args []any) {
	if len(k.of)+len(k.none) == 0 {
		return
	}
	table, columns := writes(query)
	for x := range k.none {
		if (x.look.Table == table || table == "") && !strings.HasPrefix(query, "DELETE ") {
			delete(k.none, x)
		}
	}
	if len(columns) != len(args) {
		columns = nil
	}
	k.changed(table, columns, args)
}

// changed forgets the looks at a table, "" for any, but for those that differ in the columns that are named.
func (k *known) changed(table string, columns []string, args []any) {
	for l := range k.of {
		if l.Table != table && table != "" {
			continue
		}
		if of, ok := picked(l, columns, args); ok {
			delete(k.of[l], spelled(of))
		} else {
			delete(k.of, l)
		}
	}
}

// picked returns the values of the columns that a look goes by; ok is false when not all of them are named.
func picked(l service.Look, columns []string, args []any) (of []any, ok bool) {
	for _, by := range strings.Fields(l.By) {
		at := -1
		for i, c := range columns {
			if c == by {
				at = i
			}
		}
		if at < 0 {
			return nil, false
		}
		of = append(of, args[at])
	}
	return of, true
}

// writes is the table that a statement writes, "" if that can't be told, and of a DELETE by columns that are equal to
// arguments these columns.
func writes(query string) (table string, columns []string) {
	words := strings.Fields(query)
	switch {
	case len(words) > 2 && (words[0] == "INSERT" && words[1] == "INTO" || words[0] == "DELETE" && words[1] == "FROM"):
		table = words[2]
	case len(words) > 1 && words[0] == "UPDATE" && words[1][0] != '(':
		return words[1], nil
	}
	if table == "" || words[0] != "DELETE" || len(words) < 4 || words[3] != "WHERE" {
		return table, nil
	}
	for rest := words[4:]; ; rest = rest[4:] {
		if len(rest) < 3 || rest[1] != "=" || rest[2] != "?" {
			return table, nil
		}
		if columns = append(columns, strings.TrimPrefix(rest[0], table+".")); len(rest) == 3 {
			return table, columns
		}
		if rest[3] != "AND" {
			return table, nil
		}
	}
}

// look scans the first row that a look finds; ok is false when there is none.
func (t *tx) look(dest []any, l service.Look, args ...any) (ok bool, err error) {
	if t.known.lacks(l, args) {
		if t.s.doubts {
			err = t.doubtful(&answer{}, l, args)
		}
		return false, err
	}
	a := t.known.at(l, args)
	if a == nil {
		if err := t.read(l, args); err != nil {
			return false, err
		}
		a = t.known.at(l, args)
	} else if t.s.doubts {
		if err := t.doubtful(a, l, args); err != nil {
			return false, err
		}
	}
	if a.asked {
		a.asked = false
		t.s.guess.found(l, args, a.row)
	}
	t.used(a, l, args)
	if a.row == nil {
		return false, nil
	}
	return true, t.note(db.Row(a.row).Scan(dest...))
}

// read asks for what a look finds.
func (t *tx) read(l service.Look, args []any) error {
	t.known.answered(l, args, nil)
	return t.note(t.conn.Each(t.ctx, func(scan db.Scan) error {
		row, err := db.ScanRow(scan, l.Columns())
		t.known.answered(l, args, row)
		return err
	}, l.Query(), args...))
}

// ahead is the query of a look that answers it.
func (t *tx) ahead(l service.Look, args []any) db.Query {
	t.known.answered(l, args, nil)
	return db.Query{Text: l.Query(), Args: args, Row: func(scan db.Scan) error {
		row, err := db.ScanRow(scan, l.Columns())
		t.known.answered(l, args, row)
		return err
	}}
}

// doubtful compares a known answer with the database: tests do so.
func (t *tx) doubtful(a *answer, l service.Look, args []any) error {
	if err := t.read(l, args); err != nil {
		return err
	}
	if b := t.known.at(l, args); (a.row == nil) != (b.row == nil) || fmt.Sprint(a.row...) != fmt.Sprint(b.row...) {
		return fmt.Errorf("look at %s by %v: known as %v, is %v", l.Table, args, a.row, b.row)
	}
	return nil
}
