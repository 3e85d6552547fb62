package lite

import (
	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// stepsBetween is how many steps of the virtual machine pass between two looks at the meter.
const stepsBetween = 1000

// Meter counts what statements cost in units that do not depend on the machine, nor on what ran before: the same
// statements on the same content cost the same on every host.
type Meter struct {
	Steps int64 // of the virtual machine
	Bytes int64 // that functions read and made; of those that compare, the products
	Rows  int64 // bytes of rows written

	StepLimit, ByteLimit, RowLimit int64 // zero for none

	LastRowID bool // a row got the greatest id there is: the next one would get a random one

	calls     int64 // of the progress handler, in the statement that runs
	compiling int64 // likewise, in the one that is compiled
	running   bool
}

// CompileLimit is how many steps it may take to compile a statement: views of views double with each.
const CompileLimit = 1_000_000

// Reset begins to count, with the limits that are set.
func (m *Meter) Reset() {
	m.Steps, m.Bytes, m.Rows, m.calls, m.LastRowID = 0, 0, 0, 0, false
}

// Over names the limit that was exceeded, "" for none. What was exceeded may have been stopped early.
func (m *Meter) Over() string {
	switch {
	case over(m.Steps+m.calls*stepsBetween, m.StepLimit):
		return "steps"
	case over(m.Bytes, m.ByteLimit):
		return "bytes in functions"
	case over(m.Rows, m.RowLimit):
		return "bytes of rows"
	}
	return ""
}

func over(n, limit int64) bool { return limit > 0 && n > limit }

// charge adds bytes, and reports whether they are within the limit.
func (m *Meter) charge(n int64) bool {
	if m.running {
		m.Bytes += n
	}
	return !over(m.Bytes, m.ByteLimit)
}

var onAllow = func(_ *libc.TLS, db uintptr, action int32, a, b, in, from uintptr) int32 {
	c := conn(db)
	if c.Allow == nil || c.Allow(int(action), text(a), text(b), text(in), text(from)) {
		return sq.SQLITE_OK
	}
	return sq.SQLITE_DENY
}

func text(p uintptr) string {
	if p == 0 {
		return ""
	}
	return libc.GoString(p)
}

var onProgress = func(_ *libc.TLS, db uintptr) int32 {
	c := conn(db)
	if c.stop.Load() {
		return 1
	}
	m := &c.Meter
	if !m.running {
		if m.compiling++; over(m.compiling*stepsBetween, CompileLimit) {
			return 1
		}
		return 0
	}
	m.calls++
	if over(m.Steps+m.calls*stepsBetween, m.StepLimit) || over(m.Rows, m.RowLimit) {
		return 1
	}
	return 0
}

var onCommit = func(_ *libc.TLS, db, _, _ uintptr, frames int32) int32 {
	conn(db).frames = int(frames)
	return sq.SQLITE_OK
}

// maxRowID is the greatest id of a row.
const maxRowID = 1<<63 - 1

// CountRows has the meter count the rows that statements write.
func (c *Conn) CountRows() { sq.Xsqlite3_preupdate_hook(c.tls, c.db, pointer(&onRow), c.db) }

var onRow = func(tls *libc.TLS, id, db uintptr, op int32, _, _ uintptr, _, after sq.Tsqlite3_int64) {
	m := &conn(id).Meter
	m.Rows += rowOverhead
	if op == sq.SQLITE_DELETE {
		return
	}
	if after == maxRowID {
		m.LastRowID = true
	}
	p := tls.Alloc(8)
	defer tls.Free(8)
	for i := range sq.Xsqlite3_preupdate_count(tls, db) {
		if sq.Xsqlite3_preupdate_new(tls, db, i, p) == sq.SQLITE_OK {
			m.Rows += int64(size(*at[uintptr](p)))
		}
	}
}

// rowOverhead is what a row counts beside its texts and BLOBs.
const rowOverhead = 32

// size is how many bytes of a value there are; numbers count nothing. It converts nothing.
func size(value uintptr) int {
	v := at[sq.Tsqlite3_value](value)
	if v.Fflags&(sq.MEM_Str|sq.MEM_Blob) == 0 {
		return 0
	}
	n := int(v.Fn)
	if v.Fflags&sq.MEM_Zero != 0 {
		n += int(*at[int32](value)) // u.nZero
	}
	return n
}
