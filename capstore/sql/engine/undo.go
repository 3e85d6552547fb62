package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/wal"
)

var be = binary.BigEndian

// A file of pages: the number of pages of the base, then page numbers with their bytes, then a checksum of all.

// writeUndo writes a file of pages, durably.
func writeUndo(path string, size uint32, pages []uint32, read func(p uint32, page []byte) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := crc32.NewIEEE()
	put := func(b []byte) error {
		_, _ = sum.Write(b)
		_, err := f.Write(b)
		return err
	}
	if err := put(le.AppendUint32(nil, size)); err != nil {
		return err
	}
	entry := make([]byte, 4+wal.PageSize)
	for _, p := range pages {
		le.PutUint32(entry, p)
		if err := read(p, entry[4:]); err != nil {
			return err
		}
		if err := put(entry); err != nil {
			return err
		}
	}
	if _, err := f.Write(le.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	return f.Sync()
}

func (d *DB) readUndo(u segment) (size uint32, pages map[uint32][]byte, err error) {
	b, err := os.ReadFile(d.undoPath(u.N))
	if err != nil {
		return 0, nil, err
	}
	if len(b) != 8+u.Pages*(4+wal.PageSize) || crc32.ChecksumIEEE(b[:len(b)-4]) != le.Uint32(b[len(b)-4:]) {
		return 0, nil, fmt.Errorf("undo-%d is damaged", u.N)
	}
	pages = make(map[uint32][]byte, u.Pages)
	for o := 4; o+4 < len(b); o += 4 + wal.PageSize {
		pages[le.Uint32(b[o:])] = b[o+4 : o+4+wal.PageSize]
	}
	return le.Uint32(b), pages, nil
}

// putBack writes the pages of a segment to the base.
func (d *DB) putBack(u segment) (err error) {
	size, pages, err := d.readUndo(u)
	if err != nil {
		return err
	}
	base, err := os.OpenFile(d.base(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	for p, b := range pages {
		if err := d.putPage(base, p, b); err != nil {
			return err
		}
	}
	return d.endBase(base, size)
}

// compactUndo merges neighbours of which the older is not longer than the younger, so that spans grow with age, and drops
// the oldest when all are too many.
func (d *DB) compactUndo() error {
	for {
		i := d.mergeable()
		if i < 0 {
			break
		}
		if err := d.merge(i); err != nil {
			return err
		}
	}
	total, first := 0, len(d.undo)
	for first > 0 && total+d.undo[first-1].Pages <= d.opts.UndoPages {
		first--
		total += d.undo[first].Pages
	}
	if first == 0 {
		return nil
	}
	dropped := d.undo[:first]
	d.undo = slices.Clone(d.undo[first:])
	err := d.saveMarks()
	for _, u := range dropped {
		err = errors.Join(err, remove(d.undoPath(u.N)))
	}
	return err
}

// mergeable is the first of two neighbours to merge, from the young end, or -1.
func (d *DB) mergeable() int {
	if len(d.undo) < 3 {
		return -1
	}
	for i := len(d.undo) - 3; i >= 0; i-- {
		a, b := d.undo[i], d.undo[i+1]
		if a.To-a.From <= b.To-b.From {
			return i
		}
	}
	return -1
}

// merge makes one segment of two neighbours; the older image of a page is the one that counts.
func (d *DB) merge(i int) error {
	a, b := d.undo[i], d.undo[i+1]
	size, pages, err := d.readUndo(a)
	if err != nil {
		return err
	}
	_, younger, err := d.readUndo(b)
	if err != nil {
		return err
	}
	for p, page := range younger {
		if _, older := pages[p]; !older && p <= size {
			pages[p] = page
		}
	}
	u := segment{N: d.nextUndo, From: a.From, FromDigest: a.FromDigest, To: b.To, Pages: len(pages)}
	d.nextUndo++
	err = writeUndo(d.undoPath(u.N), size, slices.Sorted(maps.Keys(pages)), func(p uint32, page []byte) error {
		copy(page, pages[p])
		return nil
	})
	if err != nil {
		return err
	}
	d.undo = slices.Concat(d.undo[:i], []segment{u}, d.undo[i+2:])
	if err := d.saveMarks(); err != nil {
		return err
	}
	d.at("undo merged")
	return errors.Join(remove(d.undoPath(a.N)), remove(d.undoPath(b.N)))
}
