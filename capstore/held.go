package capstore

import (
	"strings"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// held knows from the tables of services, [service.Table], which values their rows hold. All is asked in the database: a
// Space may have millions.
type held struct {
	tables []heldTable
	// which asks of a value, given by Space and hash for each table with values, whether a row holds it as current, and
	// whether one of the past does. It is asked at every write: indexes have to answer it.
	which string
}

type heldTable struct {
	service.Table
	service string
}

func newHeld(keepers []service.Keeper) *held {
	h := &held{}
	for _, k := range keepers {
		for _, x := range k.Tables() {
			h.tables = append(h.tables, heldTable{x, k.Name()})
		}
	}
	h.which = "SELECT " + h.any(true, "?", "?") + ", " + h.any(false, "?", "?")
	return h
}

// holding are the tables whose rows hold current values, or those of the past.
func (h *held) holding(current bool) (out []heldTable) {
	for _, x := range h.tables {
		if x.Value != "" && x.Current == current {
			out = append(out, x)
		}
	}
	return out
}

// any is the condition that a row holds a value, given by expressions for its Space and hash.
func (h *held) any(current bool, sid, hash string) string {
	var each []string
	for _, x := range h.holding(current) {
		each = append(each, "EXISTS (SELECT 1 FROM "+x.Name+" h WHERE h.sid = "+sid+" AND h."+x.Value+" = "+hash+" AND "+x.Held+")")
	}
	if len(each) == 0 {
		return "1 = 0"
	}
	return "(" + strings.Join(each, " OR ") + ")"
}

// either is the condition that a row holds a value, as current or of the past.
func (h *held) either(sid, hash string) string {
	return "(" + h.any(true, sid, hash) + " OR " + h.any(false, sid, hash) + ")"
}

// recent is the condition that a row holds a value of the past for not longer than it may, with its arguments.
func (h *held) recent(sid, hash string, now time.Time) (condition string, args []any) {
	var each []string
	for _, x := range h.holding(false) {
		each = append(each, "EXISTS (SELECT 1 FROM "+x.Name+" h WHERE h.sid = "+sid+" AND h."+x.Value+" = "+hash+" AND "+x.Held+" AND h."+x.Since+" > ?)")
		args = append(args, now.Add(-x.For).UnixMilli())
	}
	if len(each) == 0 {
		return "1 = 0", nil
	}
	return "(" + strings.Join(each, " OR ") + ")", args
}

// isHeld reports whether rows of services hold a value, as current or as one of the past.
func (t *tx) isHeld(sp *space, hash [32]byte) (current, past bool, err error) {
	which, args := t.whichHold(sp, hash)
	_, err = t.one([]any{&current, &past}, which, args...)
	return current, past, err
}

// whichHold is the query of [tx.isHeld].
func (t *tx) whichHold(sp *space, hash [32]byte) (which string, args []any) {
	h := t.s.held
	for _, x := range h.tables {
		if x.Value != "" {
			args = append(args, sp.sid, hash[:])
		}
	}
	return h.which, args
}

// countCurrent counts the rows that are what their subjects are now.
func (h *held) countCurrent(sid string) string {
	var each []string
	for _, x := range h.holding(true) {
		each = append(each, "(SELECT count(*) FROM "+x.Name+" WHERE sid = "+sid+" AND "+x.Held+")")
	}
	if len(each) == 0 {
		return "0"
	}
	return strings.Join(each, " + ")
}
