package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/wal"
)

func (d *DB) undoPath(n int) string { return filepath.Join(d.dir, fmt.Sprintf("undo-%d", n)) }

// fold moves the older part of the log into the base, and keeps what it overwrites there. Queries go on meanwhile: what they
// see of the pages that are moved is in the log. They are stopped twice for a moment, so that none reads what was before
// the part that is moved, and while the log is put in the place of the old one.
func (d *DB) fold() error {
	want := max(0, d.frames()-d.opts.Keep)
	i := sort.Search(len(d.marks), func(i int) bool { return int(d.marks[i].frames) > want }) - 1
	if i <= 0 || d.marks[i].frames == 0 {
		return nil
	}
	d.moving.Lock()
	defer d.moving.Unlock()
	d.readers.stop()()
	resume := func() {}
	err := d.foldTo(i, func() error {
		resume = d.readers.stop()
		return errors.Join(d.readers.close(), d.disconnect())
	})
	if err == nil {
		err = d.connect()
	}
	resume()
	if err == nil {
		err = d.compactUndo()
	}
	if err != nil {
		return d.fails(fmt.Errorf("fold: %w", err))
	}
	return nil
}

// foldTo moves the log up to a mark into the base. Until the log is swapped it covers all that is written to the base, so
// that a stop at any point leaves a state. alone has nobody use the files any more.
func (d *DB) foldTo(i int, alone func() error) error {
	latest, size, err := d.latestFrames(int(d.marks[i].frames))
	if err != nil {
		return err
	}
	if err := d.keepPages(latest, size, i); err != nil {
		return err
	}
	d.marks = slices.Clone(d.marks[i:]) // none before the base, once it begins to change
	if err := d.saveMarks(); err != nil {
		return err
	}
	d.at("fold begun")
	return d.finishFold(alone)
}

// finishFold moves the log up to the first mark into the base, for the first time or again after it was stopped: then the base
// is neither what it was nor what it is to be.
func (d *DB) finishFold(alone func() error) (err error) {
	m := d.marks[0]
	latest, size, err := d.latestFrames(int(m.frames))
	if err != nil {
		return err
	}
	base, err := os.OpenFile(d.base(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	log, err := os.Open(d.logPath())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := d.movePages(base, log, latest, size); err != nil {
		return err
	}
	return d.swapLog(m, alone)
}

// latestFrames are the last frame of each page among the first so many, and the size of the database after them.
func (d *DB) latestFrames(frames int) (latest map[uint32]int, size uint32, err error) {
	latest = map[uint32]int{}
	n := 0
	_, err = wal.Scan(d.logPath(), func(k int, f wal.Frame) bool {
		if k >= frames {
			return false
		}
		n++
		latest[f.Page] = k
		if f.Pages != 0 {
			size = f.Pages
		}
		return true
	})
	if err == nil && n < frames {
		err = fmt.Errorf("the log has %d frames of %d", n, frames)
	}
	maps.DeleteFunc(latest, func(page uint32, _ int) bool { return page > size })
	return latest, size, err
}

// keepPages writes the segment that brings the base back to where it is.
func (d *DB) keepPages(latest map[uint32]int, size uint32, i int) error {
	base, err := os.Open(d.base())
	if err != nil {
		return err
	}
	defer func() { _ = base.Close() }()
	info, err := base.Stat()
	if err != nil {
		return err
	}
	old := uint32(info.Size() / wal.PageSize)
	pages := slices.Sorted(maps.Keys(latest))
	pages = slices.DeleteFunc(pages, func(p uint32) bool { return p > old })
	for p := size + 1; p <= old; p++ {
		pages = append(pages, p)
	}
	u := segment{N: d.nextUndo, From: d.marks[0].pos, FromDigest: d.marks[0].digest, To: d.marks[i].pos, Pages: len(pages)}
	d.nextUndo++
	err = writeUndo(d.undoPath(u.N), old, pages, func(p uint32, page []byte) error {
		if _, err := base.ReadAt(page, int64(p-1)*wal.PageSize); err != nil {
			return err
		}
		if !sound(d.sums, p, page) {
			return fmt.Errorf("page %d: %w", p, ErrLost)
		}
		return nil
	})
	d.undo = append(d.undo, u)
	return err
}

func (d *DB) movePages(base, log *os.File, latest map[uint32]int, size uint32) error {
	page := make([]byte, wal.PageSize)
	for k, p := range slices.Sorted(maps.Keys(latest)) {
		if err := wal.Page(log, latest[p], page); err != nil {
			return err
		}
		if err := d.putPage(base, p, page); err != nil {
			return err
		}
		if k == len(latest)/2 {
			d.at("fold half")
		}
	}
	return d.endBase(base, size)
}

// swapLog puts in place of the log what of it is behind a mark.
func (d *DB) swapLog(m mark, alone func() error) error {
	salt := m.salt
	be.PutUint32(salt[:], be.Uint32(salt[:])+1)
	be.PutUint32(salt[4:], uint32(m.pos)*2654435761+1)
	sums, err := wal.Tail(d.logPath(), d.logPath()+".tmp", int(m.frames), salt)
	if err != nil {
		return err
	}
	for i := range d.marks {
		x := &d.marks[i]
		x.frames -= m.frames
		x.salt, x.sum = salt, wal.Sum{}
		if x.frames > 0 {
			if int(x.frames) > len(sums) {
				return errors.New("the log ends early")
			}
			x.sum = sums[x.frames-1]
		}
	}
	next := d.marksPath() + ".next"
	if err := errors.Join(d.writeMarks(next), syncFile(d.dir)); err != nil {
		return err
	}
	d.at("next written")
	if err := alone(); err != nil {
		return err
	}
	if d.frames() > 0 {
		err = os.Rename(d.logPath()+".tmp", d.logPath())
	} else {
		err = errors.Join(remove(d.logPath()+".tmp"), remove(d.logPath()))
	}
	if err = errors.Join(err, syncFile(d.dir)); err != nil {
		return err
	}
	d.at("log swapped")
	if err := errors.Join(remove(d.base()+"-shm"), d.renameMarks(next)); err != nil {
		return err
	}
	d.at("folded")
	return nil
}
