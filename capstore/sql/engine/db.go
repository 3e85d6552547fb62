package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/lite"
)

// Options are what a database is kept by; the zero value is good.
type Options struct {
	FoldAt    int // frames of the log at which its older part goes to the base; 0 for 4,096
	Keep      int // frames that stay; 0 for half of them
	Group     int // operations that [DB.Apply] commits at once; 0 for 256
	UndoPages int // pages kept to bring the base back; 0 for 16,384
	Readers   int // connections for queries; 0 for 4

	Newer map[uint64]Rules // that this release doesn't have; for tests of the next

	step func(string) // called between steps on files, by tests
}

func (o *Options) fill() {
	def := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	def(&o.FoldAt, 4096)
	def(&o.Keep, o.FoldAt/2)
	def(&o.Group, 256)
	def(&o.UndoPages, 16384)
	def(&o.Readers, 4)
}

// ErrBroken is the error after which a database has to be closed and opened again: what its files hold is not known. The
// history is not touched, and no operation has a verdict by it.
var ErrBroken = errors.New("the materialised database is broken")

// ErrLost is the error of [Open] for files that hold no state that can be used, and of whatever reads what is not what was
// written: [Create] makes them anew.
var ErrLost = errors.New("the materialised database is lost")

var errDisk = errors.New("the disk failed")

// DB is a database as it is materialised. Its methods are for one goroutine at a time, but for those of [Reader].
type DB struct {
	dir  string
	opts Options

	c      *lite.Conn
	sums   []uint32                 // of the pages of the base
	known  atomic.Pointer[[]uint32] // the same as connections know it, which may not read pages that are being moved
	moving sync.RWMutex             // held while a fold is at work; shared by who copies all files
	log    *os.File                 // base.db-wal and its index, nil until needed
	index  *os.File

	marks     []mark // of the commits; the first is the base
	marksFile *os.File
	headSize  int64
	undo      []segment
	nextUndo  int
	undoing   bool

	inTx    bool
	defined bool   // something in it changed the schema, if only for a while
	pending []Op   // what was taken since the last commit
	tried   []Op   // behind it: what was tried and has an effect, and was not taken
	pos     uint64 // with what was taken
	digest  tinycloud.Hash

	readers readers
	broken  error
}

// Create makes a database without content in a directory, which it empties.
func Create(dir string, o Options) (*DB, error) {
	o.fill()
	d := &DB{dir: dir, opts: o, nextUndo: 1}
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = d.initial()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create database: %w", err), d.Close())
	}
	return d, nil
}

// initial makes base.db of one page, without a log.
func (d *DB) initial() error {
	d.marks = []mark{{}}
	if err := d.connect(); err != nil {
		return err
	}
	d.c.Clock.Set(time.UnixMilli(0), 0)
	d.c.Clock.Check = nil
	d.c.Limit(lite.LimitAttached, 1) // for the copy that VACUUM makes
	if err := errors.Join(d.c.Script("VACUUM"), d.c.Script("PRAGMA wal_checkpoint(TRUNCATE)"), d.disconnect()); err != nil {
		return err
	}
	if err := d.dropLog(); err != nil {
		return err
	}
	return errors.Join(syncFile(d.base()), d.sumBase(), d.saveMarks(), d.connect())
}

func (d *DB) base() string    { return filepath.Join(d.dir, "base.db") }
func (d *DB) logPath() string { return d.base() + "-wal" }

// dropLog deletes the log and its index. No connection is open.
func (d *DB) dropLog() error {
	return errors.Join(remove(d.logPath()), remove(d.base()+"-shm"))
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *DB) connect() (err error) {
	sums := slices.Clone(d.sums)
	d.known.Store(&sums)
	d.c, err = connect(d.base(), lite.Create, true, d.whole)
	if err == nil {
		d.c.SetFrames(d.frames())
	}
	return err
}

// disconnect closes the writing connection and what is open beside it.
func (d *DB) disconnect() (err error) {
	if d.c != nil {
		err = d.c.Close()
		d.c, d.inTx = nil, false
	}
	for _, f := range []**os.File{&d.log, &d.index} {
		if *f != nil {
			err = errors.Join(err, (*f).Close())
			*f = nil
		}
	}
	return err
}

// Close closes the files. What was not committed is gone.
func (d *DB) Close() error {
	err := errors.Join(d.readers.close(), d.disconnect())
	if d.marksFile != nil {
		err = errors.Join(err, d.marksFile.Close())
		d.marksFile = nil
	}
	if d.broken == nil {
		d.broken = errors.New("it is closed")
	}
	return err
}

// fails notes that the database is broken.
func (d *DB) fails(err error) error {
	if d.broken == nil {
		d.broken = err
	}
	return fmt.Errorf("%w: %w", ErrBroken, lost(err))
}

// lost adds [ErrLost] to an error that says that a file is not what was written, and [ErrBroken] to one that says that the
// disk failed.
func lost(err error) error {
	switch {
	case lite.Damaged(err):
		return fmt.Errorf("%w: %w", ErrLost, err)
	case lite.Failed(err):
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return err
}

// Position is how many operations were taken, and the digest of them.
func (d *DB) Position() (uint64, tinycloud.Hash) { return d.pos, d.digest }

// Next is the digest of operations and one more, by its key.
func Next(digest, key tinycloud.Hash) tinycloud.Hash {
	return blake3.Sum256(append(digest[:], key[:]...))
}

func (d *DB) begin() error {
	if d.inTx {
		return nil
	}
	d.inTx = true
	return d.c.Run("BEGIN IMMEDIATE")
}

// Apply takes operations that follow on what was taken, and calls verdict with what became of each; it may be called
// again for one, with the same. What they did is committed once before has returned, which may be nil: if it fails it is not.
func (d *DB) Apply(ctx context.Context, ops []Op, verdict func(*Op, Result), before func() error) error {
	if err := d.Rollback(); err != nil {
		return err
	}
	commit := func() error {
		if before != nil {
			if err := before(); err != nil {
				return errors.Join(err, d.Rollback())
			}
		}
		return d.Commit()
	}
	for i := range ops {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, commit())
		}
		res, lost, err := d.try(&ops[i], false, false, func() {})
		if err != nil {
			return err
		}
		verdict(&ops[i], res)
		d.take(&ops[i])
		if lost || len(d.pending) >= d.opts.Group || i == len(ops)-1 {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Try runs an operation after all that were taken or tried, within the bounds of admission, and has its effect stay in the
// transaction. [DB.Take] has it count, [DB.Untry] takes it back; [DB.Rollback] takes back all that was not committed.
func (d *DB) Try(ctx context.Context, op *Op) (Result, error) {
	if d.broken != nil {
		return Result{}, d.fails(d.broken)
	}
	end := interruptible(ctx, d.c, admissionTime)
	ran := func() {
		end()
		d.c.Resume()
	}
	res, _, err := d.try(op, true, true, ran)
	ran()
	if err == nil && res.Err == nil && res.Changed {
		d.tried = append(d.tried, *op)
	}
	return res, err
}

// Untry takes back the last operation that was tried and has an effect.
func (d *DB) Untry() error {
	d.tried = d.tried[:len(d.tried)-1]
	return d.again()
}

// again makes the transaction anew with what was taken and tried.
func (d *DB) again() error {
	if d.broken != nil {
		return d.fails(d.broken)
	}
	if err := d.c.Run("ROLLBACK"); err != nil {
		return d.fails(err)
	}
	return d.redo()
}

// interruptible has what runs on a connection be interrupted when a context ends, or after some time if that is not 0. What
// it returns ends that: the connection is not interrupted afterwards.
func interruptible(ctx context.Context, c *lite.Conn, after time.Duration) (end func()) {
	var mu sync.Mutex
	ended := false
	interrupt := func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			c.Interrupt()
		}
	}
	stop := context.AfterFunc(ctx, interrupt)
	var timer *time.Timer
	if after > 0 {
		timer = time.AfterFunc(after, interrupt)
	}
	return func() {
		stop()
		if timer != nil {
			timer.Stop()
		}
		mu.Lock()
		defer mu.Unlock()
		ended = true
	}
}

// admissionTime is how long a request may take before it is an operation.
const admissionTime = 2 * time.Second

// Take has the operation count as taken that was tried first of those that have an effect and were not taken yet.
func (d *DB) Take(op *Op) {
	if len(d.tried) > 0 {
		d.tried = d.tried[1:]
	}
	d.take(op)
}

func (d *DB) take(op *Op) {
	d.pending = append(d.pending, *op)
	d.pos, d.digest = d.pos+1, Next(d.digest, op.Key)
}

// try runs an operation in a savepoint of its own. lost says that it took the transaction with it, which was made anew
// without it. ran is called once the operation has run: what stops it may not stop those that are made anew.
func (d *DB) try(op *Op, admission, answer bool, ran func()) (res Result, lost bool, err error) {
	if d.broken != nil {
		return res, false, d.fails(d.broken)
	}
	r, known := rules[op.Rules]
	if !known {
		r, known = d.opts.Newer[op.Rules]
	}
	if !known {
		return res, false, fmt.Errorf("rules %d are not known: %w", op.Rules, tinycloud.ErrUnsupported)
	}
	if admission {
		r = r.admission()
	}
	if err := errors.Join(d.begin(), d.c.Run("SAVEPOINT request"), d.c.Run("SELECT 1 FROM sqlite_schema LIMIT 0")); err != nil {
		return res, false, d.fails(err)
	}
	defines := false
	for tier := tierFor(r, op.Request); ; tier++ {
		res, defines, err = d.attempt(op, r, tier, answer)
		d.defined = d.defined || defines
		var big tooBig
		if !errors.As(err, &big) {
			break
		}
		if err = big.error; tier == len(r.Tiers)-1 {
			res.Over = Budgets[0]
			break
		}
		if err := d.back(defines); err != nil {
			return res, false, d.fails(err)
		}
	}
	ran()
	var refusal *tinycloud.Refusal
	switch {
	case err == nil:
		if err := d.c.Run("RELEASE request"); err != nil {
			return res, false, d.fails(err)
		}
		return res, false, nil
	case !errors.As(err, &refusal) || errors.Is(err, errDisk):
		return res, false, d.fails(err)
	}
	res.Err, res.Changed, res.Answer = refusal, false, nil
	if !d.c.InTransaction() { // ON CONFLICT ROLLBACK: the operations before it went with it
		return res, true, d.redo()
	}
	if err := errors.Join(d.back(defines), d.c.Run("RELEASE request")); err != nil {
		return res, false, d.fails(err)
	}
	return res, false, nil
}

// back takes back what the operation did.
func (d *DB) back(defined bool) error {
	if defined {
		d.c.Forget()
	}
	err := d.c.Run("ROLLBACK TO request")
	if defined {
		d.c.Forget()
	}
	return err
}

// redo makes the transaction anew, after it was rolled back, with what was taken and tried in it.
func (d *DB) redo() error {
	d.inTx = false
	d.c.Forget()
	for _, ops := range [][]Op{d.pending, d.tried} {
		for i := range ops {
			if _, lost, err := d.try(&ops[i], false, false, func() {}); err != nil || lost {
				return d.fails(errors.Join(err, errors.New("an operation does not do again what it did")))
			}
		}
	}
	return nil
}

// Rollback takes back what was not committed.
func (d *DB) Rollback() error {
	if d.broken != nil {
		return d.fails(d.broken)
	}
	last := d.last()
	d.pending, d.tried, d.pos, d.digest = nil, nil, last.pos, last.digest
	if !d.inTx {
		return nil
	}
	if d.inTx = false; d.defined {
		d.c.Forget() // one of them may know another schema
		d.defined = false
	}
	if err := d.c.Run("ROLLBACK"); err != nil {
		return d.fails(err)
	}
	return nil
}

// Commit commits what was taken and sets a mark. What was tried and not taken is taken back.
func (d *DB) Commit() error {
	if d.broken != nil {
		return d.fails(d.broken)
	}
	if len(d.pending) == 0 {
		return d.Rollback()
	}
	if len(d.tried) > 0 {
		d.tried = nil
		if err := d.again(); err != nil {
			return err
		}
	}
	d.c.Clock.Set(time.UnixMilli(0), 0)
	if err := d.begin(); err != nil {
		return d.fails(err)
	}
	if err := d.c.Run("COMMIT"); err != nil || d.c.Clock.Failed() {
		return d.fails(errors.Join(err, errDisk))
	}
	d.inTx, d.defined, d.pending = false, false, nil
	if err := d.mark(); err != nil {
		return d.fails(err)
	}
	if d.frames() >= d.opts.FoldAt {
		return d.fold()
	}
	return nil
}

func (d *DB) at(step string) {
	if d.opts.step != nil {
		d.opts.step(step)
	}
}
