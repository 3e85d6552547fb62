package capstore

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
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
	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
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

//go:embed migrations
var migrations embed.FS

// Open opens or creates the database and brings its schema up to date. It fails when another process has
// the file open, naming that process, and when a server is out of reach.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		o: o, log: o.Log, jobs: make(chan *job, maxQueue), bulk: make(chan *job, maxQueue), gone: make(chan struct{}), parked: wait.NewSignal(), outdated: wait.NewSignal(), reviewAtOnce: reviewAtOnce, reviewSlice: reviewSlice, redating: newRedating(), awaited: map[tinycloud.SpaceID]time.Time{}, settled: map[tinycloud.SpaceID]struct{}{},
		seen: newReplays(), joining: newJoining(), patience: awaitOpen,
		unsigned: unsigned{signed: map[tinycloud.SpaceID]struct{}{}, comparing: map[tinycloud.SpaceID]*comparison{}},
		ids:      map[tinycloud.SpaceID]int64{}, imported: map[tinycloud.SpaceID]int64{}, byHost: map[hostlog.Key]tinycloud.SpaceID{},
		spaces: map[tinycloud.SpaceID]*space{}, revoked: map[tinycloud.Hash]tinycloud.Hash{},
		others: newOthers(), followEvery: followEvery, asking: flights[struct{}]{most: maxAsking, far: farAsking, full: 1 << 20}, errands: newErrands(), quotas: map[tinycloud.SpaceID]int64{},
		metrics: newMetrics(), mostLoaded: maxLoaded, adopting: wait.NewSignal(), adoptAtOnce: adoptAtOnce,
	}
	s.paired.Store(&map[string]struct{}{})
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.o.Room == nil {
		s.o.Room = func() error { return nil }
	}
	if s.o.Heeds == nil {
		s.o.Heeds = func(tinycloud.SpaceID) (entries, changes bool) { return true, true }
	}
	if s.o.Busy == nil {
		s.o.Busy = func(bool) {}
	}
	if s.o.Policy == "" {
		s.o.Policy = Eager
	}
	if s.o.Now == nil {
		s.o.Now = time.Now
	}
	if s.o.MaxLifetime == 0 {
		s.o.MaxLifetime = 300 * time.Second
	}
	if s.o.JoinTimeout == 0 {
		s.o.JoinTimeout = joinTimeout
	}
	_, _ = rand.Read(s.me[:]) // it never fails
	s.tokens, s.guess = newTokens(), newGuess()
	s.performed, _ = lru.New[tinycloud.Hash, struct{}](rememberedTokens)
	s.granted, _ = lru.New[proven, struct{}](rememberedTokens)
	s.serving, _ = lru.New[tinycloud.SpaceID, serving](rememberedServing)
	s.removals, _ = lru.New[tinycloud.SpaceID, lookedAt](rememberedServing)
	if err := s.register(o.Services); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("storage.database %q: %w", db.Redact(o.Database), err), s.Close())
	}
	return s, nil
}

const rememberedTokens = 1 << 12

func (s *Store) open(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.identify(ctx); err != nil {
		return err
	}
	return s.preload(ctx)
}

// connect opens the database and brings its schema up to date.
func (s *Store) connect(ctx context.Context) error {
	schemas, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if db.IsServer(s.o.Database) {
		s.db, err = db.OpenServer(ctx, s.o.Database, schemas, s.log)
		return err
	}
	return s.openFile(ctx, schemas)
}

func (s *Store) openFile(ctx context.Context, schemas fs.FS) (err error) {
	path, sync := s.o.Database, "FULL"
	if path == InMemory {
		if s.temp, err = os.MkdirTemp("", "tinycloud-peer-"); err != nil {
			return err
		}
		path, sync = filepath.Join(s.temp, "caps.db"), "OFF"
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := s.acquire(path + ".lock"); err != nil {
		return err
	}
	if err := s.hide(path); err != nil {
		return err
	}
	s.db, err = db.OpenSQLite(ctx, path, sync, schemas, s.log, fillParties())
	return err
}

// hide keeps other users of the machine from the database. SQLite gives its other files the mode of the first.
func (s *Store) hide(path string) error {
	if err := private.Create(path); err != nil {
		return err
	}
	for _, m := range private.Mend(path, path+"-wal", path+"-shm", path+"-journal", path+".lock") {
		s.log.Warn("database", "warning", m.String())
	}
	return nil
}

// acquire takes the lock file, which holds the pid of its owner.
func (s *Store) acquire(path string) error {
	s.lock = flock.New(path, flock.SetPermissions(0o600))
	ok, err := s.lock.TryLock()
	if err != nil {
		return err
	}
	if !ok {
		pid, _ := os.ReadFile(path)
		s.lock = nil
		return fmt.Errorf("in use by process %s: stop it first", pid)
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d", os.Getpid()), 0o600)
}

// preload reads what is kept in memory for all Spaces.
func (s *Store) preload(ctx context.Context) (err error) {
	if err := s.upgraded(ctx); err != nil {
		return err
	}
	if s.db.Shared {
		// First, so that nothing is missed: what comes meanwhile is read twice.
		if _, err = s.db.Read.One(ctx, []any{&s.others.told}, readGeneration); err != nil {
			return err
		}
		s.others.generation.Store(s.others.told)
		if s.others.cursor, err = s.LatestChange(ctx); err != nil {
			return err
		}
	}
	if !s.db.Shared {
		s.joining.since = s.o.Now().Add(s.o.JoinTimeout).UnixMilli()
	}
	if err := s.learnWaiting(ctx, s.db.Read); err != nil {
		return err
	}
	if err := s.learnSpaces(ctx, s.db.Read); err != nil {
		return err
	}
	if err := s.learnRemoved(ctx, s.db.Read); err != nil {
		return err
	}
	if err := s.learnRevoked(ctx, s.db.Read); err != nil {
		return err
	}
	if err := s.learnQuotas(ctx, s.db.Read); err != nil {
		return err
	}
	if err := s.learnPaired(ctx, s.db.Read); err != nil {
		return err
	}
	if err := s.learnListened(ctx, s.db.Read); err != nil {
		return err
	}
	if s.db.Shared {
		return nil // [Store.Burn] asks the database
	}
	if err := s.loadReplays(ctx); err != nil {
		return err
	}
	s.seen.saves = true
	return nil
}

// learnSpaces reads the Spaces that are new since the last time.
func (s *Store) learnSpaces(ctx context.Context, q querier) error {
	s.mu.RLock()
	last := s.lastSID
	for _, sid := range s.imported { // they may be hosted by now
		last = min(last, sid-1)
	}
	s.mu.RUnlock()
	found, imported := map[tinycloud.SpaceID]int64{}, map[tinycloud.SpaceID]int64{}
	hosts := map[hostlog.Key]tinycloud.SpaceID{}
	err := q.Each(ctx, func(scan db.Scan) error {
		var text, state string
		var host []byte
		if err := scan(&last, &text, &host, &state); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		if err != nil || len(host) != 32 {
			return fmt.Errorf("space %d: damaged row", last)
		}
		if s.db.Shared && len(found) == 0 && newSpace(s, 0, id, "").host != hostlog.Key(host) {
			return errors.New("the database belongs to a node with another secret (keys.secret)")
		}
		if state == StateImporting || state == StateImported {
			imported[id] = last
			return nil
		}
		found[id], hosts[hostlog.Key(host)] = last, id
		return nil
	}, "SELECT sid, space, host, state FROM spaces WHERE sid > ? ORDER BY sid", last)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.ids, found)
	maps.Copy(s.byHost, hosts)
	maps.Copy(s.imported, imported)
	for id := range found {
		delete(s.imported, id)
	}
	s.lastSID = max(s.lastSID, last)
	return nil
}

func (s *Store) learnRevoked(ctx context.Context, q querier) error {
	found := map[tinycloud.Hash]tinycloud.Hash{}
	err := q.Each(ctx, func(scan db.Scan) error {
		var target, revocation []byte
		if err := scan(&target, &revocation); err != nil {
			return err
		}
		if len(target) != 32 || len(revocation) != 32 {
			return errors.New("revoked: damaged row")
		}
		found[tinycloud.Hash(target)] = tinycloud.Hash(revocation)
		return nil
	}, "SELECT target, revocation FROM revoked")
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.revoked, found)
	return err
}

// Close releases the database. [Store.Run] has to have returned.
func (s *Store) Close() error {
	var errs []error
	s.errands.close()
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	if s.temp != "" {
		errs = append(errs, os.RemoveAll(s.temp))
	}
	return errors.Join(errs...)
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
