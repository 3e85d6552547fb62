package service

import (
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Look is a query of the one row of a table, or of none, by columns that have some values. A transaction that knows the
// answer does not ask for it: looks are what requests are best made of.
type Look struct {
	Table  string
	By     string // the columns, separated by blanks
	Select string // what is read: columns, separated by ", ", or another text without that
}

// Query is the text of the look; its arguments are the values of the columns.
func (l Look) Query() string {
	return "SELECT " + l.Select + " FROM " + l.Table + " t WHERE " + l.Where()
}

// Where is the end of that: what a row t has to be like.
func (l Look) Where() string {
	return "t." + strings.Join(strings.Fields(l.By), " = ? AND t.") + " = ?"
}

// Counts reports whether the look counts rows. Else the columns that it goes by are a key, which no two rows have.
func (l Look) Counts() bool { return l.Select == "count(*)" }

// Columns is how many columns are read.
func (l Look) Columns() int { return 1 + strings.Count(l.Select, ", ") }

// Looked is a look with its arguments.
type Looked struct {
	Look
	Args []any
}

// Looks at a value of a Space by its hash: whether it is here, and its size if it is past.
var (
	LookValue = Look{Table: "vals", By: "sid hash", Select: "1"}
	LookPast  = Look{Table: "past", By: "sid hash", Select: "size"}
)

// LookSize looks at what the state of a subject takes, by its service and its hash.
var LookSize = Look{Table: "sizes", By: "sid service id", Select: "size"}

// LookState looks at the state of a subject, in the same way.
var LookState = Look{Table: "states", By: "sid service id", Select: "state"}

// StateOf is the look at the state of a subject in a Space.
func StateOf(sid int64, service, subject string) Looked {
	id := tinycloud.Sum([]byte(subject))
	return Looked{Look: LookState, Args: []any{sid, service, id[:]}}
}

// StateAhead is for [Part.Ahead] of who reads that.
func StateAhead(service, subject string) func(sid int64, d db.Dialect) []Looked {
	return func(sid int64, _ db.Dialect) []Looked { return []Looked{StateOf(sid, service, subject)} }
}
