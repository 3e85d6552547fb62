// Package service is the seam between a Space's history and the services that keep state in it: key-value, and what
// stands beside it. The history admits, mints, replicates, orders and judges operations without knowing what they mean;
// a service knows what they mean and nothing of tokens, hosts and logs. Source: docs/replication.md, "Services".
package service

import (
	"cmp"
	"errors"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Service is a kind of state of a Space, which follows from its valid operations and their order alone. Its methods are
// called by one goroutine at a time, but for Read and what names it.
type Service interface {
	// Name is in its operations, in resources, and told to other hosts: see [hostlog.Hello].
	Name() string
	// Version is the greatest form of operations that it reads: forms, rules or whatever else of them has versions, as one
	// number. Hosts tell it each other; see [Tx.Spoken].
	Version() uint64
	// Mutates reports whether an invocation may use an ability to make operations: its token then counts once.
	Mutates(ability string) bool
	// Read reads an operation. It fails with [ErrNewer] where the form is none that it knows: then the operation
	// waits for a release that does, and so does its subject. Whatever it says of some bytes it says always.
	Read(subject string, b []byte) (Op, error)
	// Apply takes the operation of an epoch that has just come, by a valid event, into the state. elsewhere says that the
	// event stands in another place too. It reports whether the operation is valid itself.
	Apply(tx Tx, p Placed, elsewhere bool) (valid bool, err error)
	// Fold computes the state of a subject from its valid operations anew: verdicts, places or times have changed.
	Fold(tx Tx, subject string) error
	// Stands reports whether an operation of a valid event is valid itself; was is the last verdict.
	Stands(tx Tx, p Placed, was bool) (bool, error)
	// Aside makes of an operation one that this host may mint without the part of the history that is dated in the future.
	Aside(tx Tx, subject string, b []byte) ([]byte, error)
}

// Looker is a [Service] that says what [Service.Apply] is going to look at for an operation on a subject of a Space, so
// that it can be asked for many operations together.
type Looker interface {
	Looks(sid int64, d db.Dialect, subject string) []Looked
}

// ErrNewer is the error for an operation of a form that this release does not know.
var ErrNewer = errors.New("operation of a newer form")

// Upgrade is the refusal of what only a newer release knows.
func Upgrade() error {
	return tinycloud.Refuse(tinycloud.ErrUnavailable, "Written by a newer release; this host needs an upgrade")
}

// Op is what the history has to know of an operation beside its subject.
type Op struct {
	Ability string         // that its token has to ask for on the subject, in its canonical spelling
	Whole   bool           // the token may ask for any on the subject instead, and has to have the right to all that it asks for there
	Root    bool           // a resource of the service without a path is the subject too
	Removes bool           // it takes away: hooks tell such a change apart
	Value   tinycloud.Hash // that it names and that travels for itself; zero for none
}

// Position is the place of an event in a Space's order of judging.
type Position struct {
	Seq   uint64
	Epoch tinycloud.Hash
	Index uint64
}

// Compare orders positions by seq, epoch digest and index.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Seq, q.Seq), slices.Compare(p.Epoch[:], q.Epoch[:]), cmp.Compare(p.Index, q.Index))
}

// Order is where an operation stands in the order of writes (docs/replication.md, "Order of operations"). Those of one
// transaction can be compared; which of two has the other in its past tells [Tx.Sees].
type Order interface {
	Compare(Order) int
}

// Placed is an operation at its place in the history.
type Placed struct {
	Subject string
	Bytes   []byte
	At      Position
	N       int            // among the operations of its event
	Event   tinycloud.Hash // whose event it is
	Written int64          // the time that it is ordered by, in unix milliseconds
	Row     int64          // of its epoch in the database
	Order   Order
	Removes bool
	Valid   bool // the last verdict on it
}

// Is reports whether p and q are one operation at one place.
func (p Placed) Is(q Placed) bool { return p.Row == q.Row && p.At.Index == q.At.Index && p.N == q.N }

// Plan is what a request makes.
type Plan struct {
	Ops    [][]byte // all of one service
	Values []Value  // that they name
	Size   *Size    // what the state takes then, for the quota; nil: nothing beside the values
}

// Size is what the state of a subject takes on this host: it may take more on others.
type Size struct {
	Subject string
	Bytes   int64
}

// Value is a value that an operation names.
type Value struct {
	Hash  tinycloud.Hash
	Size  int64  // in bytes
	Bytes []byte // nil when the block store has it
}
