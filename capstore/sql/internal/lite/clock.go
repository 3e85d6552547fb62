package lite

import (
	"fmt"
	"sync"
	"time"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// Clock is a file system of the engine whose time stands still where it was set: 'now', CURRENT_TIMESTAMP and all
// functions of dates of the connections opened with it read that time. It counts the bytes written to temporary files, and
// sees when the disk fails. One connection at a time uses it.
type Clock struct {
	name uintptr // of the file system, for the engine

	now       int64 // Julian day in milliseconds
	temp      int64
	tempLimit int64
	failed    bool

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

// NewClock returns a clock for one connection. [Clock.Release] gives it back.
func NewClock() *Clock {
	clocks.Lock()
	defer clocks.Unlock()
	if n := len(clocks.free); n > 0 {
		k := clocks.free[n-1]
		clocks.free = clocks.free[:n-1]
		return k
	}
	clocks.n++
	return newClock(fmt.Sprintf("clock-%d", clocks.n))
}

// Release gives the clock back, once its connection is closed.
func (k *Clock) Release() {
	clocks.Lock()
	defer clocks.Unlock()
	clocks.free = append(clocks.free, k)
}

func newClock(name string) *Clock {
	tls := libc.NewTLS()
	defer tls.Close()
	sq.Xsqlite3_initialize(tls)
	k := &Clock{tables: map[[2]uintptr]uintptr{}}
	system := at[sq.Tsqlite3_vfs](sq.Xsqlite3_vfs_find(tls, 0))
	p := libc.Xmalloc(tls, libc.Tsize_t(sizeof[sq.Tsqlite3_vfs]()))
	v := at[sq.Tsqlite3_vfs](p)
	*v = *system
	k.name = cstring(tls, name)
	open := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](system.FxOpen)
	k.current = func(_ *libc.TLS, _, out uintptr) int32 {
		*at[int64](out) = k.now
		return sq.SQLITE_OK
	}
	k.open = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
		rc := open(tls, vfs, name, file, flags, out)
		if rc != sq.SQLITE_OK {
			k.failed = k.failed || flags&sq.SQLITE_OPEN_CREATE != 0
			return rc
		}
		methods := at[uintptr](file)
		*methods = k.table(tls, *methods, flags&(sq.SQLITE_OPEN_TEMP_JOURNAL|sq.SQLITE_OPEN_TRANSIENT_DB|sq.SQLITE_OPEN_TEMP_DB) != 0)
		return rc
	}
	v.FpNext, v.FzName, v.FxOpen, v.FxCurrentTimeInt64 = 0, k.name, pointer(&k.open), pointer(&k.current)
	sq.Xsqlite3_vfs_register(tls, p, 0)
	return k
}

// table makes of a table of methods one that counts.
func (k *Clock) table(tls *libc.TLS, methods uintptr, temporary bool) uintptr {
	key := [2]uintptr{methods}
	if temporary {
		key[1] = 1
	}
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
			if temporary {
				if k.temp += int64(n); over(k.temp, k.tempLimit) {
					return sq.SQLITE_FULL
				}
			}
			return k.see(xWrite(tls, file, b, n, off))
		},
		read: func(tls *libc.TLS, file, b uintptr, n int32, off int64) int32 {
			rc := xRead(tls, file, b, n, off)
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

func (k *Clock) see(rc int32) int32 {
	k.failed = k.failed || rc != sq.SQLITE_OK
	return rc
}

// julianEpoch is the Julian day of the epoch of Unix, in milliseconds.
const julianEpoch = 210866760000000

// Set stops the clock at a time, begins to count, and sets how many bytes may be written to temporary files.
func (k *Clock) Set(now time.Time, limit int64) {
	k.now, k.temp, k.tempLimit, k.failed = now.UnixMilli()+julianEpoch, 0, limit, false
}

// Temporary is how many bytes were written to temporary files since [Clock.Set].
func (k *Clock) Temporary() int64 { return k.temp }

// Over reports whether that was too many.
func (k *Clock) Over() bool { return over(k.temp, k.tempLimit) }

// Failed reports whether the disk failed since [Clock.Set]: then what a statement said says nothing.
func (k *Clock) Failed() bool { return k.failed }
