package capstore

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

// InMemory as a database keeps nothing beyond the life of the store.
const InMemory = ":memory:"

// Keys gives the node's key of a Space.
type Keys interface {
	SpaceKey(tinycloud.SpaceID) ed25519.PrivateKey
}

// Blocks holds the values that are too large for the database.
type Blocks interface {
	// Open returns a value; the error is of class [tinycloud.ErrNotFound] when it is not held.
	Open(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error)
}

// Options configure a [Store].
type Options struct {
	// Database is the path of an SQLite file, [InMemory], or the URL of a server: postgres://… or mysql://….
	// Several processes with the same keys may use one server's database; together they are one host.
	Database string
	Keys     Keys // required
	// Identity is whose data they have to be. The zero value does not ask.
	Identity    Identity
	Blocks      Blocks        // nil: every value is inline
	MaxLifetime time.Duration // of an invocation from now; 0 means 300 s
	// Limit returns the bytes a Space may hold; false means no limit. Nil: no limits. It runs on the
	// writer's goroutine: it must not block.
	Limit func(tinycloud.SpaceID) (int64, bool)
	// Policy of the Spaces that have none of their own; "" means [Eager].
	Policy Policy
	// Room is asked before what clients add is queued for the writer; an error refuses it. What frees room is not
	// asked for. Nil: there is always room. It must not block.
	Room func() error
	// Allow is asked, outside of any transaction, before an authorised delegation creates a Space here; an
	// error refuses the delegation. Nil: all are allowed.
	Allow func(context.Context, tinycloud.SpaceID) error
	Now   func() time.Time // nil means time.Now
	// Named reports whether nodes are named by the configuration: a Space that comes to be hosted here begins
	// joining then. Nil: none are. It runs on the writer's goroutine: it must not block.
	Named func() bool
	// Services keep the state of Spaces: package kv, and what stands beside it.
	Services []service.Service
	// Unpaired says that paired nodes are not asked about Spaces, so that none waits for them.
	Unpaired bool
	// JoinTimeout is how long a Space without anything of another host is joining; 0 means 10 s.
	JoinTimeout time.Duration
	// Committed is told what became durable, here or through another process, by one goroutine at a time. It
	// may hold up the writer: it must not block or call back.
	Committed func(Commit)
	// Heeds is asked whether Committed has a use for what another process did in a Space: the entries of this host's log, and the
	// changes. They have to be read, and are left out otherwise. Nil: both. It must not block or call back.
	Heeds func(tinycloud.SpaceID) (entries, changes bool)
	// Busy is told when many entries begin to come, which makes much garbage, and when none came for a while. Nil: nobody is.
	Busy func(on bool)
	Log  *slog.Logger // nil: nothing is logged
}

// Commit is what one transaction made durable in one Space.
type Commit struct {
	hostlog.Commit // the Space, and what came of its logs

	Created bool // the Space is new on this node
	Joins   bool // addresses to join it through were added
	// Beside says that rows beside the history came or went in another process: [BesideTx.Tell]. Then Space may be zero.
	Beside bool
	// Pairs says that paired nodes came or went, here or in another process. Then Space may be zero.
	Pairs bool

	Writes    []Change // what became valid, in order; of very many the first
	LastWrite Cursor   // of the last change: beyond Writes, [Store.ChangesSince] gives them
	Ended     int      // delegations that the transaction revoked, in whatever Space
	More      bool     // commits of other Spaces in the same transaction follow

	step step
}

// Store is a node's capability database. It is safe for concurrent use.
type Store struct {
	o         Options
	log       *slog.Logger
	lock      *flock.Flock
	temp      string // directory of an in-memory database
	db        *db.DB
	me        [16]byte // names this process to the others
	leading   sync.Map // of time.Time, by Task: until when this process leads
	jobs      chan *job
	bulk      chan *job                       // jobs that take long; those of jobs come in between
	gone      chan struct{}                   // closed when Run has returned
	parked    wait.Signal                     // something was parked
	awaited   map[tinycloud.SpaceID]time.Time // guarded by mu: until when own entries are fetched
	short     sync.Map                        // Spaces whose values were not fetched for want of room
	unsigned  unsigned
	listeners listeners
	patient   patient
	patience  time.Duration // see awaitOpen
	serving   *lru.Cache[tinycloud.SpaceID, serving]
	removals  *lru.Cache[tinycloud.SpaceID, lookedAt]
	looking   singleflight.Group             // for what is served, by Space
	settled   map[tinycloud.SpaceID]struct{} // guarded by mu: those that wait for no history, now and later
	joining   joining

	tokens      *tokens
	granted     *lru.Cache[proven, struct{}] // tokens whose proofs grant all that they need, see [chain.all]
	seen        replays
	others      others
	turns       turns
	followEvery time.Duration     // see the constant
	asking      flights[struct{}] // for the generation, see [Store.fresh]
	errands     errands
	// performed are tokens of mutations that this process carried out of late, so that [Store.AdmitToPerform] asks about them.
	performed *lru.Cache[tinycloud.Hash, struct{}]
	paired    atomic.Pointer[map[string]struct{}] // peer ids of paired nodes; a map that is there never changes

	services map[string]service.Service // by name; never changes
	keepers  []service.Keeper           // those with tables of their own, by name
	held     *held

	redating     redating
	adopting     wait.Signal   // delegations are still to be adopted
	adoptAtOnce  int           // see the constant
	outdated     wait.Signal   // a long history has to be judged anew
	reviewAtOnce int64         // see the constant
	reviewSlice  time.Duration // likewise
	reviewing    sync.Mutex    // held while histories are judged anew: who comes between would begin anew what another has half done

	metrics *metrics

	mu      sync.RWMutex // guards what follows; written by the writer only
	ids     map[tinycloud.SpaceID]int64
	lastSID int64 // of the Spaces that were read from the database
	// imported are Spaces taken over from elsewhere and not hosted yet.
	imported map[tinycloud.SpaceID]int64
	byHost   map[hostlog.Key]tinycloud.SpaceID
	spaces   map[tinycloud.SpaceID]*space // loaded ones
	// loadedBytes is what these take, about, as far as that was counted.
	loadedBytes int
	revoked     map[tinycloud.Hash]tinycloud.Hash
	quotas      map[tinycloud.SpaceID]int64
	// removed are Spaces that this node may have been removed from, see [Store.Removed].
	removed map[tinycloud.SpaceID]struct{}

	guess  *guess // of the writer alone
	pruned int64  // likewise: generation at which old rows of commits were deleted last
	deaf   bool   // it is not told of what others write; for tests
	doubts bool   // what is known is asked for again, and compared; for tests

	// Of the writer alone.
	mostLoaded int   // bytes that loaded Spaces may take, see maxLoaded
	uses       int64 // of Spaces, by transactions
}

// pingTimeout is how long a healthy database may take to answer.
const pingTimeout = 3 * time.Second

// Ping reports whether the database answers and the writer runs.
func (s *Store) Ping(ctx context.Context) error {
	select {
	case <-s.gone:
		return fmt.Errorf("database: the writer has stopped: %w", tinycloud.ErrUnavailable)
	default:
	}
	pool := s.db.Read
	if s.db.Shared {
		pool = s.db.Control
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	var one int
	_, err := pool.One(ctx, []any{&one}, "SELECT 1")
	return err
}

// Hosted reports whether this node hosts a Space.
func (s *Store) Hosted(id tinycloud.SpaceID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.ids[id]
	return ok
}

// SpaceOf returns the hosted Space in which this node has a given key.
func (s *Store) SpaceOf(host hostlog.Key) (tinycloud.SpaceID, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.byHost[host]
	return id, ok
}

// Spaces returns the hosted Spaces, in no order.
func (s *Store) Spaces() []tinycloud.SpaceID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]tinycloud.SpaceID, 0, len(s.ids))
	for id := range s.ids {
		out = append(out, id)
	}
	return out
}

// number returns the number of a Space that this process knows of, 0 when it does not.
func (s *Store) number(id tinycloud.SpaceID) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.ids[id]
}

// sid returns the number of a hosted Space, also of one that another process has just made.
func (s *Store) sid(ctx context.Context, id tinycloud.SpaceID) (int64, error) {
	if sid := s.number(id); sid != 0 {
		return sid, nil
	}
	if err := s.fresh(ctx); err != nil {
		return 0, err
	}
	if sid := s.number(id); sid != 0 {
		return sid, nil
	}
	return 0, errNoSpace()
}

func errNoSpace() error { return tinycloud.Refuse(tinycloud.ErrNotFound, "Space not found") }

// querier reads the database, in a transaction or not.
type querier interface {
	One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error)
	Each(ctx context.Context, f func(db.Scan) error, query string, args ...any) error
}

// hashes returns the hashes that a query selects.
func hashes(ctx context.Context, q querier, query string, args ...any) (out []tinycloud.Hash, err error) {
	err = q.Each(ctx, func(scan db.Scan) error {
		var b []byte
		err := scan(&b)
		if err == nil {
			out = append(out, tinycloud.Hash(b))
		}
		return err
	}, query, args...)
	return out, err
}

// token returns a delegation or revocation that was accepted before, nil when unknown.
func (s *Store) token(ctx context.Context, q querier, id tinycloud.Hash) (*Token, error) {
	if t, ok := s.tokens.Get(id); ok {
		return t, nil
	}
	var b []byte
	ok, err := q.One(ctx, []any{&b}, "SELECT bytes FROM tokens WHERE id = ?", id[:])
	if err != nil || !ok {
		return nil, err
	}
	t, err := token.Decode(b, false)
	if err != nil {
		return nil, fmt.Errorf("stored token %s: %v: %w", id.EventID(), err, tinycloud.ErrUnavailable)
	}
	s.tokens.Add(id, t)
	return t, nil
}
