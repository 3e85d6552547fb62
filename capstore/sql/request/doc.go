// Package request is what clients ask of a database, and what it answers: the JSON of the body of an invocation, the
// canonical form in which a request that writes stands in a Space's history, values and cells. It is pure. It knows nothing
// of SQL itself, of SQLite, of who may ask, and of where a database is.
//
// A value is nil, int64, float64, string or []byte. Source: docs/decisions/sql.md.
package request

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Action is what a request asks for.
type Action string

// Actions. The first four run statements.
const (
	Query            Action = "query"            // one statement; its rows are the answer
	Execute          Action = "execute"          // one statement that gives no rows, after those that make the schema
	Batch            Action = "batch"            // statements that give no rows
	ExecuteStatement Action = "executeStatement" // a statement that a caveat names
	Export           Action = "export"           // the database as a file
	Outcome          Action = "outcome"          // what became of a write
)

// Bounds.
const (
	MaxBody     = 1_000_000 // bytes of a body, and of a request in its canonical form
	MaxRows     = 1000      // that a client may limit an answer to
	MaxBytes    = 4 << 20   // likewise
	AnswerBytes = 10 << 20  // of an answer that the client does not limit
)

// Statement is a statement and its parameters, by their numbers from 1.
type Statement struct {
	SQL    string
	Params []any
}

// Request is a request of one database.
type Request struct {
	Action Action
	// Statements are one, or any number of a batch. Of an ExecuteStatement the text is empty until it is looked up.
	Statements []Statement
	Schema     []string       // of an Execute: statements that come before, without parameters
	Name       string         // of an ExecuteStatement
	MaxRows    int            // of a Query: most rows to answer, 0 for any number
	MaxBytes   int            // of a Query: the longest answer, 0 for [AnswerBytes]
	Epoch      tinycloud.Hash // of an Outcome
}

// Runs reports whether the request runs statements.
func (r *Request) Runs() bool { return r.Action != Export && r.Action != Outcome }

// GivesRows reports whether rows are an answer to the request, and no failure.
func (r *Request) GivesRows() bool { return r.Action == Query || r.Action == ExecuteStatement }

func invalid(format string, args ...any) error {
	return tinycloud.Refuse(tinycloud.ErrInvalid, format, args...)
}
