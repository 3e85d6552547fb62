package engine

import (
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/internal/wal"
)

// The pages of the base have checksums in a file of their own: the log has them itself. Whatever writes to the base leaves
// pages whose checksum is another one only where the log has the page, or the undoing of it begins again.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(page []byte) uint32 { return crc32.Checksum(page, castagnoli) }

// whole reports whether a page of the base is what was written.
func (d *DB) whole(page uint32, b []byte) bool { return sound(*d.known.Load(), page, b) }

func sound(sums []uint32, page uint32, b []byte) bool {
	return int(page) <= len(sums) && sums[page-1] == sumOf(b)
}

// putPage writes a page to the base.
func (d *DB) putPage(base *os.File, page uint32, b []byte) error {
	for int(page) > len(d.sums) {
		d.sums = append(d.sums, 0)
	}
	d.sums[page-1] = sumOf(b)
	_, err := base.WriteAt(b, int64(page-1)*wal.PageSize)
	return err
}

// endBase cuts the base to a size in pages, and makes it durable with its checksums.
func (d *DB) endBase(base *os.File, pages uint32) error {
	d.sums = d.sums[:min(len(d.sums), int(pages))]
	return errors.Join(base.Truncate(int64(pages)*wal.PageSize), base.Sync(), d.saveSums())
}

func (d *DB) sumsPath() string { return filepath.Join(d.dir, "sums") }

func (d *DB) saveSums() error {
	b := make([]byte, 0, 4*len(d.sums)+4)
	for _, s := range d.sums {
		b = le.AppendUint32(b, s)
	}
	b = le.AppendUint32(b, sumOf(b))
	path := d.sumsPath() + ".tmp"
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return errors.Join(syncFile(path), os.Rename(path, d.sumsPath()), syncFile(d.dir))
}

// loadSums reads the checksums, of a base that has as many pages at least as there are.
func (d *DB) loadSums() error {
	b, err := os.ReadFile(d.sumsPath())
	if err != nil {
		return err
	}
	n := len(b) - 4
	if n < 4 || n%4 != 0 || sumOf(b[:n]) != le.Uint32(b[n:]) {
		return errors.New("checksums of the base are damaged")
	}
	d.sums = make([]uint32, n/4)
	for i := range d.sums {
		d.sums[i] = le.Uint32(b[4*i:])
	}
	info, err := os.Stat(d.base())
	if err == nil && info.Size() < int64(n/4)*wal.PageSize && !d.undoing {
		err = errors.New("base.db has lost pages")
	}
	return err
}

// sumBase makes the checksums of a base as it is.
func (d *DB) sumBase() error {
	b, err := os.ReadFile(d.base())
	if err != nil {
		return err
	}
	d.sums = nil
	for ; len(b) >= wal.PageSize; b = b[wal.PageSize:] {
		d.sums = append(d.sums, sumOf(b[:wal.PageSize]))
	}
	return d.saveSums()
}
