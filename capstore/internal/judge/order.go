package judge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Timed is the time, in unix milliseconds, from which on the order of writes goes by time: the date of the release
// that brought it. Before, all times count as 0, so that older histories keep their winners.
const Timed = 1_795_910_400_000 // 2026-11-29T00:00:00Z

const (
	// firstDay is how long a history is early.
	firstDay = 24 * time.Hour
	// moved is how far before its end a token is taken to be used at the earliest: the longest life that hosts allow
	// (300 s) and the slack. An entry with an earlier time moves nothing.
	moved = 300*time.Second + Slack
)

// Age is the place of an epoch in time, by which writes are ordered before seq and digest: those of an early epoch
// come before all others (docs/replication.md, "Order of operations"). It follows from the epoch and its past alone.
type Age struct {
	Time  int64 // T: when it was written, in unix milliseconds; not before its parents', 0 before [Timed]
	Early bool  // of a history's first day; no descendant of one that is not early is
	Begin Begin // where that history began; zero when not early
}

// Begin is the least host delegation that the owner of a Space signed in an epoch and its past: where the history began.
type Begin struct {
	Issued int64 // its iat in unix milliseconds, 0 when it says none
	ID     tinycloud.Hash
}

// Compare orders by time of issue, then by id.
func (b Begin) Compare(c Begin) int {
	return cmp.Or(cmp.Compare(b.Issued, c.Issued), bytes.Compare(b.ID[:], c.ID[:]))
}

// Compare orders ages: early ones first, of these the ones of later histories first, then by time. It agrees with
// causality: an ancestor never comes after a descendant.
func (a Age) Compare(b Age) int {
	switch {
	case a.Early != b.Early:
		if a.Early {
			return -1
		}
		return 1
	case a.Early:
		if c := b.Begin.Compare(a.Begin); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.Time, b.Time)
}

// Encode returns the form of Early and Begin that is stored; empty when not early.
func (a Age) Encode() []byte {
	if !a.Early {
		return []byte{}
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(a.Begin.Issued)), a.Begin.ID[:]...)
}

// DecodeAge reads what [Age.Encode] gave, for an epoch of a time.
func DecodeAge(ms int64, b []byte) Age {
	a := Age{Time: ms}
	if len(b) == 8+len(a.Begin.ID) {
		a.Early = true
		a.Begin.Issued = int64(binary.BigEndian.Uint64(b))
		copy(a.Begin.ID[:], b[8:])
	}
	return a
}

// Dating is what the age of an epoch follows from, beside the ages of its parents.
type Dating struct {
	Space       tinycloud.SpaceID
	Entries     []Witness      // valid ones, after removals
	Delegations []*token.Token // that stand in the epoch
	Invocations []*token.Token // likewise
}

// Witness is an entry of an epoch.
type Witness struct {
	At       int64 // unix milliseconds
	Imported bool  // it stands in the list of an import entry
	Ended    bool  // removals end all that it rests on, and it survives them
}

// class is which witnesses are asked first: the entries of hosts that are not removed, then those of hosts that are, then
// imported ones.
func (w Witness) class() int {
	class := 0
	if w.Imported {
		class = 2
	}
	if w.Ended {
		class++
	}
	return class
}

const classes = 4

// Add takes a token of the epoch into account; nil is none.
func (d *Dating) Add(t *token.Token) {
	switch {
	case t == nil:
	case t.Kind == token.Delegation:
		d.Delegations = append(d.Delegations, t)
	case t.Kind == token.Invocation:
		d.Invocations = append(d.Invocations, t)
	}
}

// Age returns the age of an epoch with some parents.
func (d Dating) Age(parents []Age) Age {
	var a Age
	begin, begun, early := Begin{}, false, true
	for _, p := range parents {
		a.Time = max(a.Time, p.Time)
		if early = early && p.Early; early && (!begun || p.Begin.Compare(begin) < 0) {
			begin, begun = p.Begin, true
		}
	}
	witnessed := false
	a.Time, witnessed = d.time(a.Time)
	if !early || witnessed && a.Time == 0 {
		return a
	}
	for _, t := range d.Delegations {
		if b, ok := begins(t, d.Space); ok && (!begun || b.Compare(begin) < 0) {
			begin, begun = b, true
		}
	}
	if a.Early = begun && a.Time <= begin.Issued+firstDay.Milliseconds(); a.Early {
		a.Begin = begin
	}
	return a
}

// time is T: that of the parents, or of the witnesses of the epoch's invocations. witnessed says that there are such.
//
// A witness counts inside the window of some invocation. The earliest of them is the time, but not one that is earlier
// than the token can have been made for: a host that lies can't put another's write far back, and once it is removed not
// at all.
func (d Dating) time(parents int64) (ms int64, witnessed bool) {
	var least, greatest int64
	found := false
	for class := 0; class < classes && !found; class++ {
		least, greatest, found = d.span(class)
	}
	if !found {
		return parents, false
	}
	ends, ended := int64(0), false
	for _, t := range d.Invocations {
		if e := t.Expires; !e.IsZero() && (!ended || e.UnixMilli() < ends) {
			ends, ended = e.UnixMilli(), true
		}
	}
	ms = least
	if ended {
		ms = min(greatest, max(least, ends-moved.Milliseconds()))
	}
	if ms < Timed {
		ms = 0
	}
	return max(parents, ms), true
}

// span returns the least and the greatest time of the witnesses of a class that are inside the window of an invocation.
func (d Dating) span(class int) (least, greatest int64, found bool) {
	for _, w := range d.Entries {
		if w.class() != class || !d.inWindow(w.At) {
			continue
		}
		if !found {
			least, greatest, found = w.At, w.At, true
		}
		least, greatest = min(least, w.At), max(greatest, w.At)
	}
	return least, greatest, found
}

func (d Dating) inWindow(ms int64) bool {
	for _, t := range d.Invocations {
		if t.ValidAt(time.UnixMilli(ms), Slack) {
			return true
		}
	}
	return false
}

// begins reports whether a delegation by the owner makes a host of a Space.
func begins(t *token.Token, space tinycloud.SpaceID) (Begin, bool) {
	if t.Signer != space.Owner() || !t.HostsSpace(space) {
		return Begin{}, false
	}
	if _, ok := hostlog.KeyOf(t.Audience); !ok {
		return Begin{}, false
	}
	b := Begin{ID: t.ID}
	if !t.IssuedAt.IsZero() {
		b.Issued = t.IssuedAt.UnixMilli()
	}
	return b, true
}
