package engine

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/wal"
)

// ErrGone is the error of [DB.Rewind] for a position before all that is kept: the database has to be made anew.
var ErrGone = errors.New("the state is not kept any more")

// Rewind goes back to the last mark that is not behind a position, and returns where it is. What was not committed is
// taken back in any case.
func (d *DB) Rewind(pos uint64) (uint64, error) {
	if err := d.Rollback(); err != nil {
		return 0, err
	}
	if pos >= d.pos {
		return d.pos, nil
	}
	d.readers.rewinds.Add(1)
	defer d.readers.stop()()
	var err error
	if pos < d.marks[0].pos {
		err = d.rewindBase(pos)
	} else {
		err = d.rewindLog(pos)
	}
	if errors.Is(err, ErrGone) {
		return 0, err
	}
	if err != nil {
		return 0, d.fails(fmt.Errorf("rewind: %w", err))
	}
	d.pos, d.digest = d.last().pos, d.last().digest
	return d.pos, nil
}

// rewindLog goes back within the log.
func (d *DB) rewindLog(pos uint64) error {
	tip := *d.last()
	i := sort.Search(len(d.marks), func(i int) bool { return d.marks[i].pos > pos }) - 1
	d.marks = d.marks[:i+1]
	if err := d.marksFile.Truncate(d.headSize + int64(len(d.marks))*markSize); err != nil {
		return err
	}
	d.at("marks cut")
	m := d.last()
	switch {
	case m.frames == tip.frames:
		return nil
	case m.frames > 0 && m.schema == tip.schema && m.salt == tip.salt:
		if err := d.openLog(); err != nil {
			return err
		}
		d.c.SetFrames(int(m.frames))
		return wal.SetBack(d.log, d.index, int(m.frames))
	}
	// The schema is another one: every connection has to read it anew.
	if err := errors.Join(d.readers.close(), d.disconnect()); err != nil {
		return err
	}
	if err := d.cutLog(int(m.frames)); err != nil {
		return err
	}
	return d.connect()
}

// cutLog cuts the log behind so many frames. No connection is open.
func (d *DB) cutLog(frames int) error {
	if frames == 0 {
		return d.dropLog()
	}
	return errors.Join(remove(d.base()+"-shm"), os.Truncate(d.logPath(), wal.End(frames)))
}

// rewindBase goes back to before the base.
func (d *DB) rewindBase(pos uint64) error {
	if len(d.undo) == 0 || d.undo[0].From > pos {
		return ErrGone
	}
	if err := errors.Join(d.readers.close(), d.disconnect()); err != nil {
		return err
	}
	for d.marks[0].pos > pos {
		d.undoing = true
		if err := d.saveMarks(); err != nil {
			return err
		}
		d.at("undoing")
		if err := d.finishUndo(); err != nil {
			return err
		}
	}
	return d.connect()
}

// finishUndo puts the pages of the last segment back into the base, again if it was stopped while it did.
func (d *DB) finishUndo() error {
	u := d.undo[len(d.undo)-1]
	if err := d.putBack(u); err != nil {
		return err
	}
	d.at("undone")
	if err := d.dropLog(); err != nil {
		return err
	}
	d.undo, d.undoing = d.undo[:len(d.undo)-1], false
	d.marks = []mark{{pos: u.From, digest: u.FromDigest}}
	return errors.Join(d.saveMarks(), remove(d.undoPath(u.N)))
}

// Open opens a database after whatever end, at the last mark whose state is whole. The error is [ErrLost] if there is none.
func Open(dir string, o Options) (*DB, error) {
	o.fill()
	d := &DB{dir: dir, opts: o, nextUndo: 1}
	if err := d.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrLost, err), d.Close())
	}
	d.pos, d.digest = d.last().pos, d.last().digest
	return d, nil
}

func (d *DB) recover() error {
	if err := errors.Join(remove(d.base()+"-shm"), remove(d.logPath()+".tmp"), remove(d.marksPath()+".tmp")); err != nil {
		return err
	}
	if info, err := os.Stat(d.base()); err != nil || info.Size() == 0 || info.Size()%wal.PageSize != 0 {
		return errors.Join(err, errors.New("base.db is not whole"))
	}
	var sums []wal.Sum
	salt, err := wal.Scan(d.logPath(), func(_ int, f wal.Frame) bool {
		sums = append(sums, f.Sum)
		return true
	})
	if err != nil {
		return err
	}
	if err := d.chooseMarks(salt, len(sums)); err != nil {
		return err
	}
	h, marks, err := loadMarks(d.marksPath())
	if err != nil {
		return err
	}
	d.undo, d.undoing, d.marks = h.Undo, h.Undoing, marks
	if err := d.loadSums(); err != nil {
		return err
	}
	for _, u := range d.undo {
		d.nextUndo = max(d.nextUndo, u.N+1)
	}
	if d.undoing {
		if len(d.undo) == 0 {
			return errors.New("nothing to undo")
		}
		if err := d.finishUndo(); err != nil {
			return err
		}
		return d.start()
	}
	n := len(d.marks)
	for ; n > 0; n-- {
		m := &d.marks[n-1]
		if m.frames == 0 || int(m.frames) <= len(sums) && m.salt == salt && sums[m.frames-1] == m.sum {
			break
		}
	}
	if n == 0 {
		return errors.New("the base has moved on without a log")
	}
	d.marks = d.marks[:n]
	if d.marks[0].frames > 0 {
		if err := d.finishFold(func() error { return nil }); err != nil {
			return err
		}
	}
	if err := d.cutLog(d.frames()); err != nil {
		return err
	}
	return errors.Join(d.saveMarks(), d.start())
}

// chooseMarks takes the marks of a fold for the current ones if the log is the one it left.
func (d *DB) chooseMarks(salt wal.Salt, frames int) error {
	next := d.marksPath() + ".next"
	_, marks, err := loadMarks(next)
	if err != nil {
		return remove(next)
	}
	last := marks[len(marks)-1]
	if marks[0].salt == salt || frames == 0 && last.frames == 0 {
		return os.Rename(next, d.marksPath())
	}
	return remove(next)
}

// start connects, and checks that the file is a database.
func (d *DB) start() error {
	if err := d.connect(); err != nil {
		return err
	}
	d.c.Clock.Set(time.UnixMilli(0), 0)
	return d.c.Run("SELECT count(*) FROM sqlite_schema")
}

// Settle goes back to the last state whose digest is that of a log, which digest tells for a position; it is false behind the
// log's end. It returns where it is. The error is [ErrGone] if there is none.
func (d *DB) Settle(digest func(pos uint64) (tinycloud.Hash, bool)) (uint64, error) {
	if err := d.Rollback(); err != nil {
		return 0, err
	}
	marks := d.Marks()
	for i := len(marks) - 1; i >= 0; i-- {
		if h, there := digest(marks[i].Pos); there && h == marks[i].Digest {
			return d.Rewind(marks[i].Pos)
		}
	}
	return 0, ErrGone
}
