package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// readers are the connections of queries. They run beside the writer; a rewind or a fold waits until none runs, and stops
// those that do.
type readers struct {
	gate sync.RWMutex // held by queries that run; exclusively by what may not meet one

	mu      sync.Mutex
	idle    []*lite.Conn
	running map[*lite.Conn]bool
	stopped int // rewinds that wait or run
}

// stop has queries end, keeps new ones waiting, and returns what lets them go on.
func (r *readers) stop() (resume func()) {
	r.mu.Lock()
	r.stopped++
	for c := range r.running {
		c.Interrupt()
	}
	r.mu.Unlock()
	r.gate.Lock()
	return func() {
		r.mu.Lock()
		r.stopped--
		r.mu.Unlock()
		r.gate.Unlock()
	}
}

// close closes the connections that are idle, all of them while queries are stopped.
func (r *readers) close() (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.idle {
		err = errors.Join(err, c.Close())
	}
	r.idle = nil
	return err
}

func (r *readers) get(path string, check func(uint32, []byte) bool) (*lite.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var c *lite.Conn
	if n := len(r.idle); n > 0 {
		c, r.idle = r.idle[n-1], r.idle[:n-1]
	} else {
		var err error
		if c, err = openReader(path, check); err != nil {
			return nil, err
		}
	}
	if r.running == nil {
		r.running = map[*lite.Conn]bool{}
	}
	r.running[c] = true
	if r.stopped > 0 {
		c.Interrupt()
	}
	return c, nil
}

func openReader(path string, check func(uint32, []byte) bool) (*lite.Conn, error) {
	c, err := connect(path, lite.ReadWrite, false, check)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.Script("PRAGMA query_only=ON"), c.Run("SELECT count(*) FROM sqlite_schema")); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.HideName()
	return c, nil
}

// put takes a connection back, and keeps it unless there are many.
func (r *readers) put(c *lite.Conn, most int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, c)
	c.Resume()
	if len(r.idle) >= most {
		return c.Close()
	}
	r.idle = append(r.idle, c)
	return nil
}

// errStopped is the error of a query that a rewind stopped.
var errStopped = errors.New("stopped by a rewind")

// Query runs a request that writes nothing on the committed state, and returns its answer. It runs beside everything else;
// one that a rewind stops runs again on a copy. The error is a refusal, or says that the machine failed, or the context's.
func (d *DB) Query(ctx context.Context, q *request.Request, held gate.Held, facts *gate.Facts) (answer []byte, err error) {
	err = d.read(ctx, func(c *lite.Conn) error {
		answer, err = newRunner(c, held, facts, false).all(q, true)
		return err
	})
	return answer, err
}

// read calls f with a connection that reads the committed state.
func (d *DB) read(ctx context.Context, f func(*lite.Conn) error) error {
	err := d.readShared(ctx, f)
	if errors.Is(err, errStopped) {
		err = d.readCopy(ctx, f)
	}
	return lost(err)
}

func (d *DB) readShared(ctx context.Context, f func(*lite.Conn) error) (err error) {
	d.readers.gate.RLock()
	defer d.readers.gate.RUnlock()
	c, err := d.readers.get(d.base(), d.whole)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.readers.put(c, d.opts.Readers)) }()
	err = within(ctx, c, f)
	d.readers.mu.Lock()
	defer d.readers.mu.Unlock()
	if err != nil && d.readers.stopped > 0 {
		return errStopped
	}
	return err
}

// within calls f until the context ends.
func within(ctx context.Context, c *lite.Conn, f func(*lite.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	end := interruptible(ctx, c, 0)
	err := f(c)
	end()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// readCopy calls f with a connection to a copy of the files, which no rewind touches.
func (d *DB) readCopy(ctx context.Context, f func(*lite.Conn) error) (err error) {
	dir, err := os.MkdirTemp(d.dir, "copy-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "base.db")
	d.readers.gate.RLock()
	sums := slices.Clone(d.sums)
	err = errors.Join(copyFile(d.base(), path), copyFile(d.logPath(), path+"-wal"))
	d.readers.gate.RUnlock()
	if err != nil {
		return err
	}
	c, err := openReader(path, func(page uint32, b []byte) bool { return sound(sums, page, b) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return within(ctx, c, f)
}

// copyFile copies a file that may be missing.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Export writes the committed state to a file as a database without what was deleted.
func (d *DB) Export(ctx context.Context, to string) error {
	return d.readCopy(ctx, func(c *lite.Conn) error {
		c.Limit(lite.LimitAttached, 1)
		return errors.Join(c.Script("PRAGMA query_only=OFF"), c.Run("VACUUM INTO ?", to))
	})
}

// Size is what the committed state takes of a quota, in bytes.
func (d *DB) Size(ctx context.Context) (n int64, err error) {
	err = d.read(ctx, func(c *lite.Conn) error {
		pages, err1 := c.Value("PRAGMA page_count")
		free, err2 := c.Value("PRAGMA freelist_count")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		n = (pages.(int64) - free.(int64)) * 4096
		return nil
	})
	return n, err
}
