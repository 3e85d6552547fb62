// Package engine keeps a database as what its operations make of it: it runs them in the order it is told, each whole or
// not at all, and goes back when one comes that belongs before. What it has in files is a cache of the history: it is
// consistent whenever the process or the machine stops, and may be deleted.
//
// It knows requests, SQLite, and files. It knows nothing of tokens, hosts and the history: an operation comes with what it
// may do, a position is a number of operations, and whether what lies before a position is still the same is told by a
// digest. State, verdicts and costs follow from the operations and their order alone.
//
// Files of a database, in its directory:
//
//	base.db      the state at the first mark
//	base.db-wal  what was committed since, as SQLite's write-ahead log
//	marks        where in the log which position is: a header, and a record for each commit
//	undo-N       pages as they were before the base moved on: they bring it back
//
// Source: docs/decisions/sql.md, "Files".
package engine

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// Op is an operation to run.
type Op struct {
	Key     tinycloud.Hash // names the operation and all that decides what it does
	Event   tinycloud.Hash // seeds random numbers, with Index
	Index   uint64
	Now     int64 // milliseconds of Unix
	Rules   uint64
	Request *request.Request // whose statement's text is known, if a caveat names it
	Held    gate.Held
	Facts   *gate.Facts // nil for none
}

// Result is what became of an operation.
type Result struct {
	Err     error    // why it did nothing: a refusal; nil if it was applied
	Changed bool     // it changed a page
	Touched []string // tables, views and indexes that it wrote to
	Answer  []byte   // JSON, if it was asked for
	Cost    Cost
	Over    string // what it took too much of, one of [Budgets]; "" for nothing
}

// Budgets are what operations may take too much of: the length of a value, and what [Cost] counts.
var Budgets = []string{"length", "steps", "bytes in functions", "bytes of rows", "temporary bytes"}

// Cost is what an operation took. It is the same on every host.
type Cost struct {
	Steps     int64 // of SQLite's machine
	Bytes     int64 // in functions
	Rows      int64 // bytes of rows written
	Temporary int64 // bytes written to temporary files
}

// Rules are the bounds that operations run in, by the version that each names. They never change.
type Rules struct {
	Tiers     []Tier
	Bytes     int64
	Rows      int64
	Temporary int64
	Growth    int // pages that an operation may add
	Pages     int // of a database
}

// Tier is how long a value may be, and how many steps an operation may take then. An operation runs in the first tier that
// has room for its literals and parameters; if it meets a longer value, it begins again in the next. So the work of all steps
// together is bounded, whatever they work on.
type Tier struct {
	Length int
	Steps  int64
}

// Newest is the greatest version of rules.
const Newest = 1

var rules = map[uint64]Rules{
	1: {
		Tiers:     []Tier{{4 << 10, 5_000_000}, {32 << 10, 600_000}, {256 << 10, 80_000}, {1 << 20, 20_000}},
		Bytes:     256 << 20,
		Rows:      64 << 20,
		Temporary: 64 << 20,
		Growth:    4096,
		Pages:     262144,
	},
}

// admission is the part of each bound on work that a host lets an operation take before it makes it one.
func (r Rules) admission() Rules {
	a := Rules{Bytes: r.Bytes / 4, Rows: r.Rows / 4, Temporary: r.Temporary / 4, Growth: r.Growth / 4, Pages: r.Pages}
	for _, t := range r.Tiers {
		a.Tiers = append(a.Tiers, Tier{t.Length, t.Steps / 4})
	}
	return a
}
