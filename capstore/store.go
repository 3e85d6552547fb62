package capstore

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the database driver

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
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
	Database    string        // path of the SQLite file, or [InMemory]
	Keys        Keys          // required
	Blocks      Blocks        // nil: every value is inline
	MaxLifetime time.Duration // of an invocation from now; 0 means 300 s
	MaxTickets  int           // of a Space within the life of the oldest; 0 means 10,000
	// Limit returns the bytes a Space may hold; false means no limit. Nil: no limits. It runs on the
	// writer's goroutine: it must not block.
	Limit func(tinycloud.SpaceID) (int64, bool)
	// Allow is asked, outside of any transaction, before an authorised delegation creates a Space here; an
	// error refuses the delegation. Nil: all are allowed.
	Allow func(context.Context, tinycloud.SpaceID) error
	Now   func() time.Time // nil means time.Now
	// Committed is told what became durable, on the writer's goroutine: it must not block or call back.
	Committed func(Commit)
	Log       *slog.Logger // nil: nothing is logged
}

// Commit is what one transaction made durable in one Space.
type Commit struct {
	Space   tinycloud.SpaceID
	Local   []Bundle  // epochs this node made, in order
	Remote  int       // entries taken from peers
	Revoked []HostKey // hosts whose delegation was revoked
	Wants   int       // values that have to be fetched
	Created bool      // the Space is new on this node

	Writes    []Change // what became valid, in order; of very many the first
	LastWrite Cursor   // of the last change: beyond Writes, [Store.ChangesSince] gives them
	Ended     int      // delegations that the transaction revoked, in whatever Space
	More      bool     // commits of other Spaces in the same transaction follow
}

// Store is a node's capability database. It is safe for concurrent use.
type Store struct {
	o     Options
	log   *slog.Logger
	lock  *flock.Flock
	temp  string // directory of an in-memory database
	write *sql.DB
	read  *sql.DB
	jobs  chan *job
	gone  chan struct{} // closed when Run has returned

	tokens *lru.Cache[tinycloud.Hash, *Token] // delegations and revocations
	seen   replays

	mu  sync.RWMutex // guards what follows; written by the writer only
	ids map[tinycloud.SpaceID]int64
	// imported are Spaces taken over from elsewhere and not hosted yet.
	imported map[tinycloud.SpaceID]int64
	byHost   map[HostKey]tinycloud.SpaceID
	spaces   map[tinycloud.SpaceID]*space // loaded ones
	revoked  map[tinycloud.Hash]tinycloud.Hash
	quotas   map[tinycloud.SpaceID]int64
}

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// Open opens or creates the database and brings its schema up to date. It fails when another process
// has it open, naming that process.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		o: o, log: o.Log, jobs: make(chan *job, maxQueue), gone: make(chan struct{}),
		ids: map[tinycloud.SpaceID]int64{}, imported: map[tinycloud.SpaceID]int64{}, byHost: map[HostKey]tinycloud.SpaceID{},
		spaces: map[tinycloud.SpaceID]*space{}, revoked: map[tinycloud.Hash]tinycloud.Hash{},
		quotas: map[tinycloud.SpaceID]int64{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.o.Now == nil {
		s.o.Now = time.Now
	}
	if s.o.MaxLifetime == 0 {
		s.o.MaxLifetime = 300 * time.Second
	}
	if s.o.MaxTickets == 0 {
		s.o.MaxTickets = maxTickets
	}
	s.tokens, _ = lru.New[tinycloud.Hash, *Token](rememberedTokens)
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("storage.database %q: %w", o.Database, err)
	}
	return s, nil
}

const rememberedTokens = 1 << 16

func (s *Store) open(ctx context.Context) error {
	path, sync := s.o.Database, "FULL"
	if path == InMemory {
		dir, err := os.MkdirTemp("", "tinycloud-peer-")
		if err != nil {
			return err
		}
		s.temp, path, sync = dir, filepath.Join(dir, "caps.db"), "OFF"
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := s.acquire(path + ".lock"); err != nil {
		return err
	}
	dsn := "file:" + path + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(" + sync +
		")&_pragma=cache_size(-16000)&_pragma=wal_autocheckpoint(4000)"
	var err error
	if s.write, err = sql.Open("sqlite", dsn); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(8)
	s.read.SetMaxIdleConns(8)
	return s.preload(ctx)
}

func migrate(ctx context.Context, db *sql.DB) error {
	var n int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'seaql_migrations'").Scan(&n)
	if err != nil {
		return err
	}
	if n > 0 {
		return errors.New("this is a database of the reference node; take it over with import-reference")
	}
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithGoMigrations(fillParties()), goose.WithAllowOutofOrder(true))
	if err != nil {
		return err
	}
	if current, target, err := p.GetVersions(ctx); err == nil && current > target {
		return fmt.Errorf("schema version %d is newer than this program's %d", current, target)
	}
	_, err = p.Up(ctx)
	return err
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
		return fmt.Errorf("in use by process %s", pid)
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d", os.Getpid()), 0o600)
}

// preload reads what is kept in memory for all Spaces.
func (s *Store) preload(ctx context.Context) error {
	err := eachRow(ctx, s.read, func(scan func(...any) error) error {
		var sid int64
		var text, state string
		var host []byte
		if err := scan(&sid, &text, &host, &state); err != nil {
			return err
		}
		id, err := tinycloud.ParseSpaceID(text)
		if err != nil || len(host) != 32 {
			return fmt.Errorf("space %d: damaged row", sid)
		}
		if state == StateImporting || state == StateImported {
			s.imported[id] = sid
			return nil
		}
		s.ids[id], s.byHost[HostKey(host)] = sid, id
		return nil
	}, "SELECT sid, space, host, state FROM spaces")
	if err != nil {
		return err
	}
	err = eachRow(ctx, s.read, func(scan func(...any) error) error {
		var target, revocation []byte
		if err := scan(&target, &revocation); err != nil {
			return err
		}
		if len(target) != 32 || len(revocation) != 32 {
			return errors.New("revoked: damaged row")
		}
		s.revoked[tinycloud.Hash(target)] = tinycloud.Hash(revocation)
		return nil
	}, "SELECT target, revocation FROM revoked")
	if err != nil {
		return err
	}
	if err := s.loadQuotas(ctx); err != nil {
		return err
	}
	return s.loadReplays(ctx)
}

// Close releases the database. [Store.Run] has to have returned.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	if s.temp != "" {
		errs = append(errs, os.RemoveAll(s.temp))
	}
	return errors.Join(errs...)
}

// Ping reports whether the database answers and the writer runs.
func (s *Store) Ping(ctx context.Context) error {
	select {
	case <-s.gone:
		return fmt.Errorf("database: the writer has stopped: %w", tinycloud.ErrUnavailable)
	default:
	}
	var one int
	return dbErr(s.read.QueryRowContext(ctx, "SELECT 1").Scan(&one))
}

// Hosted reports whether this node hosts a Space.
func (s *Store) Hosted(id tinycloud.SpaceID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.ids[id]
	return ok
}

// SpaceOf returns the hosted Space in which this node has a given key.
func (s *Store) SpaceOf(host HostKey) (tinycloud.SpaceID, bool) {
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

func (s *Store) sid(id tinycloud.SpaceID) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sid, ok := s.ids[id]; ok {
		return sid, nil
	}
	return 0, errNoSpace()
}

func errNoSpace() error { return tinycloud.Refuse(tinycloud.ErrNotFound, "Space not found") }

func dbErr(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("database: %v: %w", err, tinycloud.ErrUnavailable)
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// eachRow calls f for each row of a query.
func eachRow(ctx context.Context, q querier, f func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return dbErr(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return dbErr(rows.Err())
}

// token returns a delegation or revocation that was accepted before, nil when unknown.
func (s *Store) token(ctx context.Context, q rowQuerier, id tinycloud.Hash) (*Token, error) {
	if t, ok := s.tokens.Get(id); ok {
		return t, nil
	}
	var b []byte
	err := q.QueryRowContext(ctx, "SELECT bytes FROM tokens WHERE id = ?", id[:]).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, dbErr(err)
	}
	t, err := judge.Decode(b, false)
	if err != nil {
		return nil, fmt.Errorf("stored token %s: %v: %w", id.EventID(), err, tinycloud.ErrUnavailable)
	}
	s.tokens.Add(id, t)
	return t, nil
}

type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}
