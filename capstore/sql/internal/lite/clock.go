package lite

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// Clock is a file system of the engine whose time stands still where it was set: 'now', CURRENT_TIMESTAMP and all
// functions of dates of the connection opened with it read that time. It counts the bytes written to temporary files, and
// sees when the disk fails. Until it is set, its time is the machine's.
type Clock struct {
	name uintptr // of the file system, for the engine

	now       int64 // Julian day in milliseconds
	live      bool  // it goes on
	temp      int64
	tempLimit int64
	failed    bool
	opened    bool // the database file itself is

	// Check judges a page of the database file itself as it was read, nil for none; not of copies that the connection makes. What it rejects is an error of the disk.
	Check func(page uint32, b []byte) bool
	// Logged is how many frames of the write-ahead log are committed: those are judged by their checksums as they are read, and
	// an error of the disk if they are not what was written. nil: all that are read.
	Logged func() int

	open    func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
	tables  map[[2]uintptr]uintptr // tables of methods of files, of ours by those of the engine and the kind of file
	keep    []any
	current func(*libc.TLS, uintptr, uintptr) int32
}

// clocks are those nobody uses. The engine's list of file systems has to be short, and nothing leaves it.
var clocks struct {
	sync.Mutex
	free []*Clock
	n    int
}

// NewClock returns a clock for one connection, which gives it back when it is closed.
func NewClock() *Clock {
	clocks.Lock()
	defer clocks.Unlock()
	if n := len(clocks.free); n > 0 {
		k := clocks.free[n-1]
		clocks.free = clocks.free[:n-1]
		k.live, k.opened, k.Check, k.Logged, k.tempLimit = true, false, nil, nil, 0
		return k
	}
	clocks.n++
	return newClock(fmt.Sprintf("clock-%d", clocks.n))
}

// release gives the clock back, once its connection is closed.
func (k *Clock) release() {
	clocks.Lock()
	defer clocks.Unlock()
	clocks.free = append(clocks.free, k)
}

func newClock(name string) *Clock {
	tls := libc.NewTLS()
	defer tls.Close()
	sq.Xsqlite3_initialize(tls)
	k := &Clock{live: true, tables: map[[2]uintptr]uintptr{}}
	system := at[sq.Tsqlite3_vfs](sq.Xsqlite3_vfs_find(tls, 0))
	p := libc.Xmalloc(tls, libc.Tsize_t(sizeof[sq.Tsqlite3_vfs]()))
	v := at[sq.Tsqlite3_vfs](p)
	*v = *system
	k.name = cstring(tls, name)
	open := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](system.FxOpen)
	machine := function[func(*libc.TLS, uintptr, uintptr) int32](system.FxCurrentTimeInt64)
	k.current = func(tls *libc.TLS, vfs, out uintptr) int32 {
		if k.live {
			return machine(tls, vfs, out)
		}
		*at[int64](out) = k.now
		return sq.SQLITE_OK
	}
	k.open = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
		rc := open(tls, vfs, name, file, flags, out)
		if rc != sq.SQLITE_OK {
			k.failed = k.failed || flags&sq.SQLITE_OPEN_CREATE != 0
			return rc
		}
		kind := flags & (sq.SQLITE_OPEN_MAIN_DB | sq.SQLITE_OPEN_WAL | temporary)
		if kind&sq.SQLITE_OPEN_MAIN_DB != 0 {
			if k.opened { // a copy that the connection makes
				kind = 0
			}
			k.opened = true
		}
		methods := at[uintptr](file)
		*methods = k.table(tls, *methods, kind)
		return rc
	}
	v.FpNext, v.FzName, v.FxOpen, v.FxCurrentTimeInt64 = 0, k.name, pointer(&k.open), pointer(&k.current)
	sq.Xsqlite3_vfs_register(tls, p, 0)
	return k
}

// temporary are the kinds of files whose bytes count.
const temporary = sq.SQLITE_OPEN_TEMP_JOURNAL | sq.SQLITE_OPEN_TRANSIENT_DB | sq.SQLITE_OPEN_TEMP_DB

// table makes of a table of methods one that counts, for files of a kind.
func (k *Clock) table(tls *libc.TLS, methods uintptr, kind int32) uintptr {
	key := [2]uintptr{methods, uintptr(kind)}
	if p := k.tables[key]; p != 0 {
		return p
	}
	p := libc.Xmalloc(tls, libc.Tsize_t(sizeof[sq.Tsqlite3_io_methods]()))
	m := at[sq.Tsqlite3_io_methods](p)
	*m = *at[sq.Tsqlite3_io_methods](methods)
	type write = func(*libc.TLS, uintptr, uintptr, int32, int64) int32
	type sized = func(*libc.TLS, uintptr, int64) int32
	type plain = func(*libc.TLS, uintptr, int32) int32
	xWrite, xRead := function[write](m.FxWrite), function[write](m.FxRead)
	xTruncate, xSync := function[sized](m.FxTruncate), function[plain](m.FxSync)
	ours := &struct {
		write, read write
		truncate    sized
		sync        plain
	}{
		write: func(tls *libc.TLS, file, b uintptr, n int32, off int64) int32 {
			if kind&temporary != 0 {
				if k.temp += int64(n); over(k.temp, k.tempLimit) {
					return sq.SQLITE_FULL
				}
			}
			return k.see(xWrite(tls, file, b, n, off))
		},
		read: func(tls *libc.TLS, file, b uintptr, n int32, off int64) int32 {
			rc := xRead(tls, file, b, n, off)
			if rc == sq.SQLITE_OK && kind&sq.SQLITE_OPEN_MAIN_DB != 0 && k.Check != nil && off%pageSize == 0 && n > fileHeader {
				page := view(b, int(n))
				if n < pageSize { // part of a page is judged with the rest of it
					rest := tls.Alloc(pageSize)
					defer tls.Free(pageSize)
					if rc = xRead(tls, file, rest, pageSize, off); rc != sq.SQLITE_OK {
						return k.see(rc)
					}
					page = view(rest, pageSize)
				}
				if !k.Check(uint32(off/pageSize)+1, page) {
					rc = sq.SQLITE_IOERR_DATA
				}
			}
			if rc == sq.SQLITE_OK && kind&sq.SQLITE_OPEN_WAL != 0 && n == pageSize && !k.sound(off, view(b, pageSize), func(to []byte, at int64) bool {
				tmp := tls.Alloc(len(to))
				defer tls.Free(len(to))
				rc := xRead(tls, file, tmp, int32(len(to)), at)
				copy(to, view(tmp, len(to)))
				return rc == sq.SQLITE_OK
			}) {
				rc = sq.SQLITE_IOERR_DATA
			}
			if rc != sq.SQLITE_IOERR_SHORT_READ {
				k.see(rc)
			}
			return rc
		},
		truncate: func(tls *libc.TLS, file uintptr, n int64) int32 { return k.see(xTruncate(tls, file, n)) },
		sync:     func(tls *libc.TLS, file uintptr, flags int32) int32 { return k.see(xSync(tls, file, flags)) },
	}
	m.FxWrite, m.FxRead, m.FxTruncate, m.FxSync = pointer(&ours.write), pointer(&ours.read), pointer(&ours.truncate), pointer(&ours.sync)
	k.keep = append(k.keep, ours)
	k.tables[key] = p
	return p
}

// Sizes in bytes of a write-ahead log: of its header, and of that of a frame.
const (
	logHeader   = 32
	frameHeader = 24
)

// sound reports whether the page of a frame, which is at an offset of the log, has the checksum that its header says: it goes
// on from the one of the frame before. Source: https://www.sqlite.org/fileformat2.html#walformat, on machines that are little-endian.
func (k *Clock) sound(off int64, page []byte, read func(to []byte, at int64) bool) bool {
	frame := (off - logHeader) / (frameHeader + pageSize)
	if k.Logged != nil && frame >= int64(k.Logged()) {
		return true
	}
	var head [frameHeader]byte
	var before [8]byte
	at := off - frameHeader
	sumBefore := at - (frameHeader + pageSize) + 16
	if frame == 0 {
		sumBefore = logHeader - 8
	}
	if !read(head[:], at) || !read(before[:], sumBefore) {
		return false
	}
	a, b := binary.BigEndian.Uint32(before[:]), binary.BigEndian.Uint32(before[4:])
	for _, part := range [][]byte{head[:8], page} {
		for i := 0; i+8 <= len(part); i += 8 {
			a += binary.LittleEndian.Uint32(part[i:]) + b
			b += binary.LittleEndian.Uint32(part[i+4:]) + a
		}
	}
	return a == binary.BigEndian.Uint32(head[16:]) && b == binary.BigEndian.Uint32(head[20:])
}

func (k *Clock) see(rc int32) int32 {
	k.failed = k.failed || rc != sq.SQLITE_OK
	return rc
}

// Sizes in bytes: of a page, and of the header of a file.
const (
	pageSize   = 4096
	fileHeader = 100
)

// julianEpoch is the Julian day of the epoch of Unix, in milliseconds.
const julianEpoch = 210866760000000

// Set stops the clock at a time, begins to count, and sets how many bytes may be written to temporary files.
func (k *Clock) Set(now time.Time, limit int64) {
	k.live = false
	k.now, k.temp, k.tempLimit, k.failed = now.UnixMilli()+julianEpoch, 0, limit, false
}

// Temporary is how many bytes were written to temporary files since [Clock.Set].
func (k *Clock) Temporary() int64 { return k.temp }

// Over reports whether that was too many.
func (k *Clock) Over() bool { return over(k.temp, k.tempLimit) }

// Failed reports whether the disk failed since [Clock.Set]: then what a statement said says nothing.
func (k *Clock) Failed() bool { return k.failed }
