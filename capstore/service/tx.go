package service

import (
	"context"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Tx is a transaction of the writer in one Space, as a service sees it. What a service stores by it is durable together
// with the operations, or not at all.
type Tx interface {
	// Now is the time of the transaction.
	Now() time.Time
	// Space is where it is.
	Space() tinycloud.SpaceID

	// State is what the service has stored for a subject, nil for nothing. It is part of the Space's state hash.
	State(subject string) ([]byte, error)
	// SetState stores the state of a subject; an empty one is none.
	SetState(subject string, state []byte) error
	// Memory keeps something for the service, of this Space, that follows from what it has stored: what load returns is
	// returned again until a transaction that wrote fails, another process calls Forget, or the Space is no longer loaded.
	Memory(load func() (any, error)) (any, error)
	// Forget is called by who changes what Memory gave: the other processes of this host load theirs again.
	Forget()
	// Tell is [Store.Tell] of one operation, in the transaction; for [Part.Made].
	Tell(subject string, n News) error
	Rows
	Past
	Values
}

// Rows is how a service keeps tables of its own, which [Keeper] describes. A query may also join the values that are
// here: vals, with columns sid, hash, size and inline, the bytes of a small one.
type Rows interface {
	// Sid is the Space's number, in the column sid of all tables.
	Sid() int64
	// Key is how a subject is stored, see [db.Dialect.Key].
	Key(subject string) (indexed, whole any)
	// One scans the first row of a query; ok is false when there is none.
	One(dest []any, query string, args ...any) (ok bool, err error)
	// Look scans what a look finds; ok is false when there is none.
	Look(dest []any, l Look, args ...any) (ok bool, err error)
	// Each calls f for each row of a query. f must not use the transaction.
	Each(f func(db.Scan) error, query string, args ...any) error
	Exec(query string, args ...any) error
	Add(i db.Insert, args ...any) error
}

// Past is the history as a service sees it.
type Past interface {
	// Operations calls f for the valid operations on a subject, each event at each of its places, in the order of writes
	// without regard to earliness: by time, seq, epoch digest and index.
	Operations(subject string, f func(Placed) error) error
	// Candidates are the operations on a subject whose events are valid, valid or not themselves, in no order. Bytes are
	// given of those that remove only: the others may be many, see [Past.Bytes]. Pending ones are left out.
	Candidates(subject string) ([]Placed, error)
	// OperationsAt are the operations on a subject of the event at a place, whatever the verdicts, in their order.
	OperationsAt(at Order, subject string) ([]Placed, error)
	// Bytes are those of an operation.
	Bytes(p Placed) ([]byte, error)
	// EventAt is the event at a place, without its operations; ok is false when there is none. places is in how many it
	// stands.
	EventAt(o Order) (p Placed, places int, ok bool, err error)
	// OrderAt is [Past.Order] of a position that is given by the row of its epoch and the index of the event.
	OrderAt(row int64, index uint64) (Order, error)
	// Places is in how many places an event stands.
	Places(event tinycloud.Hash) (int, error)
	// Ended reports whether only hosts that were removed say that the epoch of an operation stands. It changes with
	// removals; the subjects of events that stand in several places are folded anew then.
	Ended(p Placed) (bool, error)
	// Order is where the events at a position stand, nil where nothing does.
	Order(at Position) (Order, error)
	// Sees reports whether what stands in one place has what stands in another in its past.
	Sees(a, b Order) (bool, error)
	// Follows reports whether the epoch that is being made has a place in its past; for [Service.Aside].
	Follows(o Order) bool
	// Newest reports whether the epoch that has just come has all in its past that is here; for [Service.Apply].
	Newest() bool
	// SetValid sets the verdict on an operation of a valid event. Hooks are told of what [Service.Fold] changes.
	SetValid(p Placed, valid bool) error
	// Older reports whether another host in its window is known to be of a release that knows no services: it can't pass
	// on what is written.
	Older() (bool, error)
	// Spoken is the least version of the service that hosts in their windows have, as they last told, this one among them.
	// What is written by a newer one they could not read.
	Spoken() (uint64, error)
	// OwnSince is as [Store.OwnSince].
	OwnSince(subject string, row int64) (bool, error)
	// Waits reports whether operations on a subject are pending, so that its state is not known.
	Waits(subject string) (bool, error)
}

// Values keep what operations name, for as long as the rows of a [Keeper] do.
type Values interface {
	// Hold notes that a row now names a value. One that is not here is fetched. current says that it is part of what the
	// state is now; else it is kept inside the bound of past values.
	Hold(value tinycloud.Hash, current bool) error
	// Release notes that a row names a value no more. What no row holds counts in the quota no more, and is past or gone.
	Release(value tinycloud.Hash, current bool) error
}

// Keeper is a service that keeps its state in tables of its own, rather than by [Tx.SetState] alone.
type Keeper interface {
	Service
	// Tables describes them, always the same.
	Tables() []Table
	// Digest writes the current state of a Space in the one form that it has: it goes into the Space's state hash.
	Digest(ctx context.Context, r Reader, w io.Writer) error
	// Gauges are what is counted over all Spaces.
	Gauges(now time.Time) []Gauge
}

// Table is a table of a service, whose rows are each of a Space: its number is in the column sid.
type Table struct {
	Name   string
	What   string   // about a row that is not what it should be
	Hashes []string // columns that hold 32 bytes
	// Same are the columns that follow from the history alone; of eid, the row of an epoch, the epoch does.
	Same []string
	// Key is the column of the subject's indexed form, beside which whole has the rest; "" when there is none. A row
	// whose subject has no operation is no row.
	Key string

	// Value is the column of a value that the row holds, "" when there is none.
	Value string
	// Held is the condition under which a row holds its value.
	Held string
	// Current says that a row that does is what its subject is now: its value counts in the quota and is sought until it
	// is here. Epoch is the column of the epoch whose operation it is of. Other rows hold values of the past.
	Current bool
	Epoch   string
	// Since and Turn are the columns, of values of the past, of the time from when they are held, in unix milliseconds, and
	// of which goes first when there is no room: the greatest, of these the oldest. One that goes gets the turn 0.
	// For is how long they stay at most.
	Since, Turn string
	For         time.Duration
}

// Gauge is a number that is read when metrics are.
type Gauge struct {
	Name, Help string
	Query      string // of one number
	Args       []any
}
