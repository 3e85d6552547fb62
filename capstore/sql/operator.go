package sql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

var errOnlyReads = tinycloud.Refuse(tinycloud.ErrForbidden, "The operator reads only: a write needs a token of who may write")

// Look answers the operator's query: body is what an app would send for a query. It takes no token and reads only.
func (s *Service) Look(ctx context.Context, store service.Store, space tinycloud.SpaceID, path string, body []byte) (answer []byte, err error) {
	q, err := request.Parse(body)
	if err != nil {
		return nil, err
	}
	writes, err := gate.Check(&q, gate.Admin, nil)
	if err == nil && (writes || q.Action != request.Query) {
		err = errOnlyReads
	}
	if err != nil {
		return nil, err
	}
	err = s.existing(ctx, store, space, path, func(d *database) error {
		answer, err = s.query(ctx, store, d, authority{held: gate.Admin}, &q)
		return err
	})
	return answer, err
}

// Export calls f with a database as a file that SQLite opens, and its size in bytes.
func (s *Service) Export(ctx context.Context, store service.Store, space tinycloud.SpaceID, path string, f func(r io.Reader, size int64) error) error {
	return s.existing(ctx, store, space, path, func(d *database) error { return s.asFile(ctx, store, d, f) })
}

// existing calls f with a database that somebody wrote.
func (s *Service) existing(ctx context.Context, store service.Store, space tinycloud.SpaceID, path string, f func(*database) error) error {
	d, err := s.acquire(name{space, pathOf(path)})
	if err != nil {
		return err
	}
	defer s.release(d)
	if now, err := d.now(ctx, store); err != nil {
		return err
	} else if now.n == 0 {
		return errNoDatabase
	}
	return f(d)
}

// query answers what only reads. Its time begins when the files are at the log: that they are not there in time is no fault of it.
func (s *Service) query(ctx context.Context, store service.Store, d *database, a authority, q *request.Request) (answer []byte, err error) {
	coming, cancel := context.WithTimeout(ctx, maxQuery)
	defer cancel()
	err = s.view(coming, store, d, func(v *engine.View) error {
		within, cancel := context.WithTimeout(ctx, maxQuery)
		defer cancel()
		answer, err = v.Query(within, q, a.held, a.facts)
		return err
	})
	if ctx.Err() == nil {
		err = late(err)
	}
	return answer, err
}

// late gives an error its class that says that a time has ended: a query that ran takes too long, and one that had not begun
// waited for this host.
func late(err error) error {
	switch {
	case !errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, tinycloud.ErrInvalid):
		return tinycloud.Refuse(tinycloud.ErrInvalid, "SQLite error: interrupted")
	}
	return fmt.Errorf("database not ready in time: %w: %w", tinycloud.ErrUnavailable, err)
}

// asFile calls f with a copy of the database that is one file.
func (s *Service) asFile(ctx context.Context, store service.Store, d *database, f func(r io.Reader, size int64) error) (err error) {
	dir, err := s.passingDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "database")
	if err := s.view(ctx, store, d, func(v *engine.View) error { return v.Export(ctx, path) }); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return f(file, info.Size())
}

// Collect deletes the files of databases that nobody wrote any more, or of Spaces that are not among those given, and returns
// how many bytes they took. Files of databases in use stay, and all of a directory that another process has.
func (s *Service) Collect(ctx context.Context, store service.Store, spaces []tinycloud.SpaceID) (freed int64, err error) {
	if s.o.Dir == "" {
		return 0, nil
	}
	s.mu.Lock()
	root, err := s.dir()
	s.mu.Unlock()
	if err != nil || root != s.o.Dir {
		return 0, err
	}
	kept := map[string]bool{}
	for _, space := range spaces {
		err := store.States(ctx, space, request.Service, func(path string, _ []byte) { kept[folder(root, name{space, path})] = true })
		if err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock() // nobody opens files meanwhile
	for of := range s.open {
		kept[folder(root, of)] = true
	}
	all, err := fs.Glob(os.DirFS(root), hashName+"/"+hashName)
	for _, dir := range all {
		if dir = filepath.Join(root, dir); kept[dir] {
			continue
		}
		n, failed := sizeOf(dir)
		if failed = errors.Join(failed, os.RemoveAll(dir)); failed == nil {
			freed += n
			_ = os.Remove(filepath.Dir(dir)) // if it was the last of its Space
		}
		err = errors.Join(err, failed)
	}
	return freed, err
}

// hashName matches the names of directories of Spaces, and of their databases.
var hashName = strings.Repeat("[0-9a-f]", 2*len(tinycloud.Hash{}))

func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
