package sql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
)

// database is one that is materialised. Who has its turn follows the log and writes; queries run beside.
type database struct {
	s     *Service // nil: nothing is done aside
	tells bool     // what its writes change is told to hooks: they are those in use, or will be
	of    name
	dir   string

	counts *metrics
	turn   chan struct{} // holds one token while somebody has the turn

	engine engine.Options
	newest uint64 // rules that this host knows

	refs int    // guarded by Service.mu
	used uint64 // guarded by Service.mu; when it was used last

	usedAt time.Time // guarded by Service.mu; when it was given back last

	files sync.RWMutex           // held while db is used without the turn; exclusively while it is replaced
	db    *engine.DB             // nil until it is opened; replaced with the turn and files
	shown atomic.Pointer[cursor] // what queries see; nil: not known, or it is going back
	ahead ahead                  // what nobody was answered yet
	queue queue                  // of those who want to write
	aside atomic.Pointer[aside]  // a replay on a copy; changed with the turn

	// What follows belongs to who has the turn.
	base   cursor
	window []*place // behind base, up to where the engine is
	at     cursor   // behind window
	lost   bool     // where the engine stands in the log is not known
	sure   state    // of a log that comes to it by what is behind where the engine is; zero for none
	back   int      // how often the files went back
	pace   pace
	credit credit
	limit  time.Duration // how long a follow may be estimated to take; 0: as it does

	replayed   time.Duration // how long the last replay aside took
	replayedAt time.Time     // when it had ended
	rules      uint64        // by which it writes: what the hosts know that told
	failed     map[tinycloud.Hash]string
	since      uint64                          // verdicts on requests before it are not known
	told       func(*engine.Op, engine.Result) // nil, or called with verdicts
	sized      sized
}

// acquire takes a database for use until it is released.
func (s *Service) acquire(of name) (*database, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("databases: closing: %w", tinycloud.ErrUnavailable)
	}
	d := s.open[of]
	if d == nil {
		root, err := s.dir()
		if err != nil {
			return nil, err
		}
		d = s.detached(of, folder(root, of))
		d.s, d.tells = s, true
		s.open[of] = d
	}
	d.refs++
	s.clock++
	d.used = s.clock
	return d, nil
}

func (s *Service) detached(of name, dir string) *database {
	newest := s.Version()
	return &database{
		of: of, dir: dir, counts: s.metrics, turn: make(chan struct{}, 1), failed: map[tinycloud.Hash]string{}, lost: true,
		engine: engine.Options{Newer: s.o.Newer}, newest: newest, rules: newest,
	}
}

// folder is where a database is materialised: its path is any text, and may be long.
func folder(root string, of name) string {
	return filepath.Join(root, tinycloud.Sum([]byte(of.space.String())).String(), tinycloud.Sum([]byte(of.path)).String())
}

// dir makes the directory of all databases, and deletes what requests that never ended left there. The lock is held.
func (s *Service) dir() (_ string, err error) {
	if s.root != "" {
		return s.root, nil
	}
	root := s.o.Dir
	if root != "" {
		if root, err = s.occupy(root); err != nil {
			return "", fmt.Errorf("databases: %w", err)
		}
	}
	if root == "" {
		if root, err = os.MkdirTemp("", "tinycloud-sql-"); err != nil {
			return "", fmt.Errorf("databases: %w", err)
		}
	}
	left, err := fs.Glob(os.DirFS(root), passing+"*")
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(root, name)))
	}
	if err == nil {
		s.root = root
	}
	return root, err
}

// occupy makes a directory and takes its lock. It returns "" if another process has that: two may not have the same files.
func (s *Service) occupy(root string) (string, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(root, "lock"), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return "", err
	}
	if !ok {
		s.o.Log.Warn("another process has the databases of this directory: its own are temporary", "directory", root)
		return "", nil
	}
	s.lock = lock
	return root, nil
}

// passing is how the names of directories begin that are of one request.
const passing = "request-"

// passingDir makes a directory for a request.
func (s *Service) passingDir() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.dir()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(root, passing)
}

// release gives a database back, and closes those that were not used for longest while there are too many. They are closed
// under the lock: nobody may open their files meanwhile.
func (s *Service) release(d *database) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.usedAt = time.Now()
	s.giveBack(d)
}

// giveBack is [Service.release] with the lock.
func (s *Service) giveBack(d *database) {
	d.refs--
	for len(s.open) > s.o.Open {
		var oldest *database
		for _, x := range s.open {
			if x.refs == 0 && (oldest == nil || x.used < oldest.used) {
				oldest = x
			}
		}
		if oldest == nil {
			return
		}
		s.shut(oldest)
	}
}

// shut closes a database that nobody uses. The lock is held.
func (s *Service) shut(d *database) {
	delete(s.open, d.of)
	if err := d.close(); err != nil {
		s.o.Log.Warn("database not closed", "space", d.of.space, "database", d.of.path, "error", err)
	}
}

// shutIdle closes the databases that nobody has used for a while.
func (s *Service) shutIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.open {
		if d.refs == 0 && time.Since(d.usedAt) > s.o.Idle {
			s.shut(d)
		}
	}
}

// Close closes all databases. It is called when nobody uses the service any more.
func (s *Service) Close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for of, d := range s.open {
		err = errors.Join(err, d.close())
		delete(s.open, of)
	}
	if s.empty != nil {
		err = errors.Join(err, s.empty.Close())
		s.empty = nil
	}
	switch {
	case s.lock != nil:
		err = errors.Join(err, s.lock.Unlock())
	case s.root != "":
		err = errors.Join(err, os.RemoveAll(s.root))
	}
	s.lock, s.root = nil, ""
	return err
}

// close closes the files, and deletes those of a database that nobody wrote.
func (d *database) close() error {
	if d.db == nil {
		return nil
	}
	pos, _ := d.db.Position()
	err := d.db.Close()
	if d.db = nil; pos == 0 && err == nil {
		err = os.RemoveAll(d.dir)
	}
	return err
}

// nobodys is a database without content, for queries of those that nobody wrote.
func (s *Service) nobodys() (db *engine.DB, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("databases: closing: %w", tinycloud.ErrUnavailable)
	}
	if s.empty != nil {
		return s.empty, nil
	}
	root, err := s.dir()
	if err == nil {
		s.empty, err = engine.Create(filepath.Join(root, "empty"), engine.Options{})
	}
	return s.empty, err
}

// enter waits for the turn.
func (d *database) enter(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *database) leave() { <-d.turn }

// ready opens the files if they are not open.
func (d *database) ready() error {
	if d.db != nil {
		return nil
	}
	d.files.Lock()
	defer d.files.Unlock()
	d.shown.Store(nil)
	db, err := engine.Open(d.dir, d.engine)
	if errors.Is(err, engine.ErrLost) {
		db, err = engine.Create(d.dir, d.engine)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tinycloud.ErrUnavailable, err)
	}
	d.db, d.lost = db, true
	d.since, _ = db.Position()
	clear(d.failed)
	return nil
}

// anew has the files be opened again, or made anew if they are lost.
func (d *database) anew(lost bool) error {
	d.files.Lock()
	defer d.files.Unlock()
	d.shown.Store(nil)
	d.aside.Store(nil)
	if d.db != nil {
		_ = d.db.Close() // it is broken, or goes
		d.db = nil
	}
	if lost {
		d.counts.rewinds.WithLabelValues(rewindAnew).Inc()
		return os.RemoveAll(d.dir)
	}
	return nil
}
