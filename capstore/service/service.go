// Package service is the seam between a Space's history and the services that keep state in it: key-value, and what
// stands beside it. The history admits, mints, replicates, orders and judges operations without knowing what they mean;
// a service knows what they mean and nothing of tokens, hosts and logs. Source: docs/replication.md, "Services".
package service

import (
	"errors"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Service is a kind of state of a Space, which follows from its valid operations and their order alone. Its methods are
// called by one goroutine at a time, but for Read and what names it.
type Service interface {
	// Name is in its operations, in resources, and told to other hosts: see [hostlog.Hello].
	Name() string
	// Version is the greatest form of operations that it reads.
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

// ErrNewer is the error for an operation of a form that this release does not know.
var ErrNewer = errors.New("operation of a newer form")

// Op is what the history has to know of an operation beside its subject.
type Op struct {
	Ability string         // that its token has to ask for on the subject, in its canonical spelling
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
	switch {
	case p.Seq != q.Seq:
		return cmpUint(p.Seq, q.Seq)
	case p.Epoch != q.Epoch:
		return slices.Compare(p.Epoch[:], q.Epoch[:])
	}
	return cmpUint(p.Index, q.Index)
}

func cmpUint(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// Placed is an operation at its place in the history.
type Placed struct {
	Subject string
	Bytes   []byte
	At      Position
	N       int            // among the operations of its event
	Event   tinycloud.Hash // whose event it is
	Row     int64          // of its epoch in the database
}

// Plan is what a request makes.
type Plan struct {
	Subject string
	Ops     [][]byte // all of one service and of the subject
	Grows   int64    // bytes by which the state may grow, for the quota
}

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
	// Operations calls f for the valid operations on a subject, each event at each of its places, in the order of writes
	// without regard to earliness: by time, seq, epoch digest and index.
	Operations(subject string, f func(Placed) error) error
}
