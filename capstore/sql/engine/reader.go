package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/gate"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// readers are the connections of queries. They run beside the writer; a rewind or a fold waits until none runs, and stops
// those that do.
type readers struct {
	gate sync.RWMutex // held by queries that run; exclusively by what may not meet one

	rewinds atomic.Uint64 // begun; see [View]

	mu      sync.Mutex
	idle    []*lite.Conn
	running map[*lite.Conn]bool
	stopped int           // rewinds that wait or run
	free    chan struct{} // told of a connection that is idle again, if somebody waits
}

// grace is how long queries may take to end by themselves before they are stopped: to run a short one again costs more.
const grace = 5 * time.Millisecond

// stop has queries end, keeps new ones waiting, and returns what lets them go on.
func (r *readers) stop() (resume func()) {
	ended, stopped := false, false // guarded by mu
	late := time.AfterFunc(grace, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if ended {
			return
		}
		stopped = true
		r.stopped++
		for c := range r.running {
			c.Interrupt()
		}
	})
	r.gate.Lock()
	late.Stop()
	r.mu.Lock()
	ended = true
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		if stopped {
			r.stopped--
		}
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

// busy is how long a query waits for a connection, when there are as many as are kept, before it opens another: short
// queries come faster by one that is open, and long ones may not hold them up.
const busy = 5 * time.Millisecond

func (r *readers) get(path string, check func(uint32, []byte) bool, most int) (*lite.Conn, error) {
	r.wait(most)
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

// wait waits for a connection, but not for long.
func (r *readers) wait(most int) {
	var timer *time.Timer
	for {
		r.mu.Lock()
		if r.free == nil {
			r.free = make(chan struct{}, most)
		}
		full := len(r.idle) == 0 && len(r.running) >= most && r.stopped == 0
		r.mu.Unlock()
		if !full {
			break
		}
		if timer == nil {
			timer = time.NewTimer(busy)
			defer timer.Stop()
		}
		select {
		case <-r.free:
		case <-timer.C:
			return
		}
	}
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
	select {
	case r.free <- struct{}{}:
	default:
	}
	return nil
}

// errStopped is the error of a query that a rewind stopped.
var errStopped = errors.New("stopped by a rewind")

// ErrMoved is the error of a [View] that a rewind came before.
var ErrMoved = errors.New("the database went back before it was read")

// View reads the committed state as it was when the view was made, or a later one, but none that a rewind went back to
// since. Its methods run beside everything else.
type View struct {
	d       *DB
	rewinds uint64
	copied  func() // see [View.Apart]
}

// View is made of the state as it is now.
func (d *DB) View() *View { return &View{d: d, rewinds: d.readers.rewinds.Load()} }

// Apart has one read take place on a copy of the files, and copied be called when it is made: nothing holds up the read
// from there on, nor does it hold up anything.
func (v *View) Apart(copied func()) *View { return &View{d: v.d, rewinds: v.rewinds, copied: copied} }

// valid reports whether no rewind came. The gate is held.
func (v *View) valid() bool { return v.rewinds == v.d.readers.rewinds.Load() }

// Query runs a request that writes nothing, and returns its answer. One that a rewind stops runs again on a copy, if it can.
// The error is a refusal, or says that the machine failed, or [ErrMoved], or the context's: with a refusal if the request ran
// when that ended, alone if it had not begun.
func (v *View) Query(ctx context.Context, q *request.Request, held gate.Held, facts *gate.Facts) (answer []byte, err error) {
	err = v.read(ctx, func(c *lite.Conn) error {
		answer, err = newRunner(c, held, facts, false).all(q, true)
		return err
	})
	return answer, err
}

// Query is [View.Query] of the state as it is when it runs.
func (d *DB) Query(ctx context.Context, q *request.Request, held gate.Held, facts *gate.Facts) (answer []byte, err error) {
	err = d.read(ctx, func(c *lite.Conn) error {
		answer, err = newRunner(c, held, facts, false).all(q, true)
		return err
	})
	return answer, err
}

// read calls f with a connection that reads the committed state.
func (d *DB) read(ctx context.Context, f func(*lite.Conn) error) error {
	err := d.View().read(ctx, f)
	for errors.Is(err, ErrMoved) {
		err = lost(d.View().readCopy(ctx, f))
	}
	return err
}

func (v *View) read(ctx context.Context, f func(*lite.Conn) error) error {
	if v.copied != nil {
		return lost(v.readCopy(ctx, f))
	}
	err := v.readShared(ctx, f)
	if errors.Is(err, errStopped) {
		err = v.readCopy(ctx, f)
	}
	return lost(err)
}

func (v *View) readShared(ctx context.Context, f func(*lite.Conn) error) (err error) {
	d := v.d
	d.readers.gate.RLock()
	defer d.readers.gate.RUnlock()
	if !v.valid() {
		return ErrMoved
	}
	c, err := d.readers.get(d.base(), d.whole, d.opts.Readers)
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
func (v *View) readCopy(ctx context.Context, f func(*lite.Conn) error) (err error) {
	d := v.d
	dir, err := os.MkdirTemp(d.dir, "copy-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "base.db")
	sums, err := v.copyTo(path)
	if err != nil {
		return err
	}
	if v.copied != nil {
		v.copied()
	}
	c, err := openReader(path, func(page uint32, b []byte) bool { return sound(sums, page, b) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return within(ctx, c, f)
}

func (v *View) copyTo(path string) (sums []uint32, err error) {
	d := v.d
	d.readers.gate.RLock()
	defer d.readers.gate.RUnlock()
	if !v.valid() {
		return nil, ErrMoved
	}
	return *d.known.Load(), errors.Join(copyFile(d.base(), path), copyFile(d.logPath(), path+"-wal"))
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
func (v *View) Export(ctx context.Context, to string) error {
	return lost(v.readCopy(ctx, func(c *lite.Conn) error {
		c.Limit(lite.LimitAttached, 1)
		return errors.Join(c.Script("PRAGMA query_only=OFF"), c.Run("VACUUM INTO ?", to))
	}))
}

// Export is [View.Export] of the state as it is now.
func (d *DB) Export(ctx context.Context, to string) error { return d.View().Export(ctx, to) }

// Size is what the committed state takes of a quota, in bytes.
func (d *DB) Size(ctx context.Context) (n int64, err error) {
	err = d.read(ctx, func(c *lite.Conn) error {
		n, err = size(c)
		return err
	})
	return n, err
}

// SizeTried is the same with what was tried.
func (d *DB) SizeTried() (int64, error) {
	if d.broken != nil {
		return 0, d.fails(d.broken)
	}
	n, err := size(d.c)
	if err != nil {
		return 0, d.fails(err)
	}
	return n, nil
}

func size(c *lite.Conn) (int64, error) {
	pages, err1 := c.Value("PRAGMA page_count")
	free, err2 := c.Value("PRAGMA freelist_count")
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return (pages.(int64) - free.(int64)) * 4096, nil
}

// StopViews ends all views, also those that are read: they fail with [ErrMoved].
func (d *DB) StopViews() {
	d.readers.rewinds.Add(1)
	d.readers.stop()()
}

// CopyTo copies the files into a directory that it makes, from which they can be opened: at what is committed by now, or a
// later state. It runs beside everything else, as queries do; a rewind or fold waits for it.
func (d *DB) CopyTo(dir string) error {
	d.moving.RLock()
	defer d.moving.RUnlock()
	d.readers.gate.RLock()
	defer d.readers.gate.RUnlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	undo, err := filepath.Glob(filepath.Join(d.dir, "undo-*"))
	// Marks come before the log that they tell of.
	for _, path := range append(undo, d.marksPath(), d.sumsPath(), d.base(), d.logPath()) {
		err = errors.Join(err, copyFile(path, filepath.Join(dir, filepath.Base(path))))
	}
	return err
}
