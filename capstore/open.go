package capstore

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	lru "github.com/hashicorp/golang-lru/v2"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/private"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
)

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
