package service

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// HTTP is a service that clients invoke.
type HTTP interface {
	Service
	// Invoke carries an admitted invocation out and answers it, or returns an error that is answered by its class. What
	// changes nothing it may not be asked for twice: its token is burned before.
	Invoke(w http.ResponseWriter, r *http.Request, c Call) error
}

// Whole is a service that takes all that an invocation asks for as one request, if it asks for this: other capabilities
// are only authorised then. The service burns the token itself, if it makes nothing of it.
type Whole interface {
	HTTP
	Takes(ability string) bool
}

// Verifier is a service that has more of a Space than what the history stores of it.
type Verifier interface {
	Service
	// Verify compares it with the history and calls damaged for each thing that is wrong.
	Verify(ctx context.Context, store Store, space tinycloud.SpaceID, damaged func(what, which string)) error
}

// Comparer is a service of which hosts compare what they made of the same operations.
type Comparer interface {
	Service
	// Sums are the hashes of subjects of a Space, as far as they are at hand or can be made in a while.
	Sums(ctx context.Context, store Store, space tinycloud.SpaceID) ([]Sum, error)
	// Sum is the hash of a subject that was made last; it costs nothing.
	Sum(space tinycloud.SpaceID, subject string) (Sum, bool)
	// Compared takes the hash that another host has of a subject. A difference may have the subject be made anew.
	Compared(ctx context.Context, store Store, space tinycloud.SpaceID, host string, theirs Sum) error
}

// Sum is the hash of what follows from the operations on a subject.
type Sum struct {
	Subject string
	State   tinycloud.Hash // of the operations: only sums of equal states are compared
	Content tinycloud.Hash
}

// Collector is a service that has files of Spaces.
type Collector interface {
	Service
	// Collect deletes those that nothing needs, or of Spaces that are not among those given, and returns how many bytes they took.
	Collect(ctx context.Context, store Store, spaces []tinycloud.SpaceID) (freed int64, err error)
}

// Follower is a service that keeps up with the history beside what it is asked.
type Follower interface {
	Service
	// Follow keeps up until the context ends.
	Follow(ctx context.Context, s Store)
	// Changed says that something became durable in a Space, here or through another process. It is called by the history's
	// writer: it must not block.
	Changed(space tinycloud.SpaceID)
}

// Teller is a service that tells hooks itself what its operations changed, once they are carried out: [Store.Tell], [Tx.Tell].
// The history tells them nothing of these.
type Teller interface {
	Service
	// Paths are the spellings of what was told of a subject, by which it may be asked for: one that is told, and another.
	Paths(subject, what string) (path, also string)
}

// News is what an operation changed.
type News struct {
	Spot    Spot           // of the first operation of its event
	Event   tinycloud.Hash // likewise
	Actor   tinycloud.Principal
	Ability string
	What    []string // parts of the subject, each told once of the event: as tables
}

// Call is an admitted invocation that asks for one thing of a service.
type Call struct {
	Store   Store
	Token   *token.Token
	Space   tinycloud.SpaceID
	Path    string // of the resource, never percent-decoded
	Ability string // as signed
}

// Store is what a service asks of the store outside of the writer's transactions.
type Store interface {
	// Now is the store's clock.
	Now() time.Time
	// Perform carries a request out: all or nothing, durable when it returns.
	Perform(ctx context.Context, r Request) error
	// PerformAll carries requests out one after the other, each all or nothing, durable when it returns: in one transaction
	// if none fails that had written, and always with none of another caller of this process in between.
	PerformAll(ctx context.Context, all []Request) []error
	// Burn remembers the token of an invocation that made nothing, so that it is refused from now on. It is a refusal of
	// class [tinycloud.ErrConflict] when the token was used before.
	Burn(ctx context.Context, t *token.Token) error
	// Log calls f with the valid operations of a service on a subject, as they are at one moment. The error is of class
	// [tinycloud.ErrUnavailable] while operations on it are pending.
	Log(ctx context.Context, space tinycloud.SpaceID, name, about string, f func(Log) error) error
	// Holders is how many hosts there are now, this one among them, and how many of these are known to have an epoch.
	Holders(ctx context.Context, space tinycloud.SpaceID, epoch tinycloud.Hash) (holders, hosts int, err error)
	// Unapplied says why the operations of an epoch on a subject do not count; found is false if it has none, or they do.
	Unapplied(ctx context.Context, space tinycloud.SpaceID, name, about string, epoch tinycloud.Hash) (d Dropped, found bool, err error)
	// Dropped are the events of this host's own epochs with operations on a subject that do not count, the newest first.
	Dropped(ctx context.Context, space tinycloud.SpaceID, name, about string, limit int) ([]Dropped, error)
	// Subjects lists what a service has operations on, as far as it keeps a state of it or cannot read them.
	Subjects(ctx context.Context, space tinycloud.SpaceID, name string, limit int) ([]Subject, error)
	// NoteSize notes how many bytes the state of a subject takes on this host, for the quota.
	NoteSize(ctx context.Context, space tinycloud.SpaceID, name, about string, bytes int64) error
	// ServiceState is what a service has stored for a subject, nil for nothing. The error is of class
	// [tinycloud.ErrUnavailable] while operations on it are pending.
	ServiceState(ctx context.Context, space tinycloud.SpaceID, name, about string) ([]byte, error)
	// Shared reports whether several processes may have the store's database, and so be this host together.
	Shared() bool
	// OwnSince reports whether a process of this host made a valid operation on a subject in an epoch of a row greater than
	// one: rows of a Space's epochs rise.
	OwnSince(ctx context.Context, space tinycloud.SpaceID, name, about string, row int64) (bool, error)
	// Listened reports whether somebody wants to be told what a service changes in a Space, by operations of epochs behind a
	// row, and ListenedSpaces where somebody does.
	Listened(space tinycloud.SpaceID, name string) (since int64, ok bool)
	ListenedSpaces(name string) []tinycloud.SpaceID
	// Tell tells hooks what operations on a subject changed, in the order given, if somebody listens and it was not told
	// before. It is durable when it returns.
	Tell(ctx context.Context, space tinycloud.SpaceID, name, about string, all []News) error
	// States calls f with what a service has stored for the subjects of a Space. f must not use the store.
	States(ctx context.Context, space tinycloud.SpaceID, name string, f func(subject string, state []byte)) error
	// Reader reads the rows of a hosted Space as they are at each query.
	Reader(ctx context.Context, space tinycloud.SpaceID) (Reader, error)
	// Value opens a value of a Space. The error is of class [tinycloud.ErrUnavailable] while it is still to be fetched
	// from another host.
	Value(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error)
	// HeldValue opens a value that was here a moment ago, and not small: its row may be gone since, its file is not for
	// a while.
	HeldValue(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error)
}

// Log is what a subject follows from, and what the service has stored of it.
type Log interface {
	// State is as of [Tx].
	State(ctx context.Context) ([]byte, error)
	// Spots calls f for the operations behind a spot, all for nil, in their order: by time, seq, epoch digest, index and
	// number. f must not use the log.
	Spots(ctx context.Context, after *Spot, f func(Spot) error) error
	// Event reads the operations on the subject of the event at a spot.
	Event(ctx context.Context, s Spot) (Event, error)
	// Events reads those of several at once, in their order.
	Events(ctx context.Context, at []Spot) ([]Event, error)
	// Own reports whether this host itself says that the epoch of a spot stands: it answered who asked for its events.
	Own(ctx context.Context, s Spot) (bool, error)
}

// Subject is what is told of a subject.
type Subject struct {
	Name    string
	Events  int64 // that count
	Bytes   int64 // of all operations on it
	Size    int64 // as was noted last
	Pending int64 // operations that this release can't read
	Doubled []Doubled
}

// Doubled is an event that stands in several places with other operations on a subject: a host has put an old token again.
type Doubled struct {
	Event  tinycloud.Hash
	Places []Double
}

// Double is one of its places.
type Double struct {
	Epoch  tinycloud.Hash
	Hosts  []string // that say that it stands
	Counts bool
}

// Dropped is an event whose operations on a subject do not count.
type Dropped struct {
	Epoch   tinycloud.Hash
	Written int64 // the time that its epoch is ordered by, in unix milliseconds
	Why     string
	Ops     [][]byte
	Instead *Dropped // where the event counts, without why; nil: nowhere
}

// Spot is where a valid operation stands.
type Spot struct {
	Written int64 // the time that it is ordered by, in unix milliseconds
	At      Position
	N       int   // among the operations of its event
	Row     int64 // of its epoch in the database
}

// Compare orders spots as [Log.Spots] does.
func (s Spot) Compare(t Spot) int {
	return cmp.Or(cmp.Compare(s.Written, t.Written), s.At.Compare(t.At), cmp.Compare(s.N, t.N))
}

// Event is an event with its valid operations on a subject.
type Event struct {
	ID     tinycloud.Hash
	Token  *token.Token
	Ops    [][]byte
	Others int // operations of the event that are not among them
}

// Request is what an admitted invocation asks of a service. Authority, replay and quota are judged in the transaction.
type Request struct {
	Token   *token.Token
	Service string
	Adds    bool // it may take room: refused while there is none
	Only    bool // it is judged and not carried out
	Parts   []Part
}

// Part is what a request asks for in one Space.
type Part struct {
	Space tinycloud.SpaceID
	// Ahead are looks that Plan, and the operations of the plan when they are folded, are going to make, as far as that is
	// known; nil: none. They are answered for several requests together, where that saves time.
	Ahead func(sid int64, d db.Dialect) []Looked
	// Plan is called in the transaction, once the authority of the token is judged, and may be called again.
	Plan func(Tx) (Plan, error)
	// Made is called in the transaction, if it is not nil, with where the first operation of the plan came to stand; the
	// others stand behind it. It is not called if they stood there before. What it is told may come to nothing, and be told
	// again, like the plan. An error has the request fail.
	Made func(Tx, Spot) error
}

// Reader reads the rows of one Space.
type Reader interface {
	Sid() int64
	// Dialect is the database's.
	Dialect() db.Dialect
	// One scans the first row of a query; ok is false when there is none.
	One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error)
	// Row is One of a query that finds a row by its key: on a server those who ask at the same time share a round trip, so
	// that it may take no time there.
	Row(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error)
	// Each calls f for each row of a query. f must not use the reader.
	Each(ctx context.Context, f func(db.Scan) error, query string, args ...any) error
	// Told is what is to be told of an operation, by the row of its epoch, the index of its event and its number there.
	Told(ctx context.Context, row int64, index uint64, n int) (Told, error)
}

// Told is what is told of an operation.
type Told struct {
	Bytes []byte
	Epoch tinycloud.Hash
	Actor tinycloud.Principal // who signed the invocation
	Time  time.Time           // when it was written, as far as the order goes by it; zero for what is older than that
	Early bool                // it is of a history's first day
}
