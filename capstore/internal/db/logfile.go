package db

import (
	"errors"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// SQLite writes each page of a transaction to its write-ahead log in two calls, some 140 for eight requests, and then has
// them made durable. What is written there is contiguous, so it is gathered here and written at once: before it is made
// durable, which comes before anybody else is told of it, and before this connection reads or cuts its log. That holds with
// synchronous=FULL alone, and where one connection writes: what is left of a transaction that was undone goes to the file when
// something else is written, which then lies over it.

const (
	logRoom     = 512 << 10 // bytes that are gathered
	mostWritten = 1<<17 - 1 // of them at once: SQLite counts what it writes with 17 bits
)

// gatheringVFS is the name of the file system that does so.
const gatheringVFS = "tinycloud-gathering"

type (
	openFunc  = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	closeFunc = func(tls *libc.TLS, file uintptr) int32
	moveFunc  = func(tls *libc.TLS, file, buf uintptr, n int32, at int64) int32 // xRead, xWrite
	cutFunc   = func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunc  = func(tls *libc.TLS, file uintptr, flags int32) int32
	sizeFunc  = func(tls *libc.TLS, file, size uintptr) int32
)

// logMethods are those of files that are logs, in memory of SQLite; the functions have to stay reachable.
type logMethods struct {
	plain uintptr // what they go on to
	ours  uintptr

	close closeFunc
	read  moveFunc
	write moveFunc
	cut   cutFunc
	sync  syncFunc
	size  sizeFunc
}

// logFile is an open log.
type logFile struct {
	methods *sq.Tsqlite3_io_methods // that it would have
	room    uintptr                 // memory of SQLite for what is gathered; 0 until something is written
	n       int32                   // bytes of it in use
	at      int64                   // where in the file they begin
}

var gathering struct {
	register func() error
	open     openFunc
	base     uintptr // the usual file system

	mu      sync.Mutex
	methods map[uintptr]*logMethods // by those of the usual file system
	files   sync.Map                // of uintptr to *logFile
}

func init() {
	gathering.register = sync.OnceValue(registerGathering)
	gathering.methods = map[uintptr]*logMethods{}
}

// registerGathering makes the file system known to SQLite.
func registerGathering() error {
	tls := libc.NewTLS()
	defer tls.Close()
	g := &gathering
	if g.base = sq.Xsqlite3_vfs_find(tls, 0); g.base == 0 {
		return errors.New("SQLite has no file system")
	}
	name, err := libc.CString(gatheringVFS)
	if err != nil {
		return err
	}
	vfs := libc.Xmalloc(tls, sizeOf[sq.Tsqlite3_vfs]())
	if vfs == 0 {
		return errNoRoom
	}
	g.open = openGathering
	*in[sq.Tsqlite3_vfs](vfs) = *in[sq.Tsqlite3_vfs](g.base)
	in[sq.Tsqlite3_vfs](vfs).FzName, in[sq.Tsqlite3_vfs](vfs).FpNext, in[sq.Tsqlite3_vfs](vfs).FxOpen = name, 0, pointerTo(&g.open)
	if rc := sq.Xsqlite3_vfs_register(tls, vfs, 0); rc != sq.SQLITE_OK {
		return errors.New("SQLite takes no other file system")
	}
	return nil
}

var errNoRoom = errors.New("no memory for SQLite")

// openGathering opens a file; a log gets methods of its own.
func openGathering(tls *libc.TLS, _, name, file uintptr, flags int32, outFlags uintptr) int32 {
	g := &gathering
	rc := called[openFunc](in[sq.Tsqlite3_vfs](g.base).FxOpen)(tls, g.base, name, file, flags, outFlags)
	if rc != sq.SQLITE_OK || flags&sq.SQLITE_OPEN_WAL == 0 {
		return rc
	}
	f := in[sq.Tsqlite3_file](file)
	m := methodsFor(tls, f.FpMethods)
	if m == nil {
		return rc // as without
	}
	g.files.Store(file, &logFile{methods: in[sq.Tsqlite3_io_methods](m.plain)})
	f.FpMethods = m.ours
	return rc
}

// methodsFor are those of logs whose file would have others; nil if there is no memory for them.
func methodsFor(tls *libc.TLS, plain uintptr) *logMethods {
	g := &gathering
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.methods[plain]; m != nil {
		return m
	}
	ours := libc.Xmalloc(tls, sizeOf[sq.Tsqlite3_io_methods]())
	if ours == 0 {
		return nil
	}
	m := &logMethods{plain: plain, ours: ours, close: closeLog, read: readLog, write: writeLog, cut: cutLog, sync: syncLog, size: sizeOfLog}
	t := in[sq.Tsqlite3_io_methods](ours)
	*t = *in[sq.Tsqlite3_io_methods](plain)
	t.FxClose, t.FxRead, t.FxWrite = pointerTo(&m.close), pointerTo(&m.read), pointerTo(&m.write)
	t.FxTruncate, t.FxSync, t.FxFileSize = pointerTo(&m.cut), pointerTo(&m.sync), pointerTo(&m.size)
	g.methods[plain] = m
	return m
}

func logOf(file uintptr) *logFile {
	l, _ := gathering.files.Load(file)
	return l.(*logFile) // openGathering put it there
}

// flush writes what was gathered.
func (l *logFile) flush(tls *libc.TLS, file uintptr) int32 {
	if l.n == 0 {
		return sq.SQLITE_OK
	}
	n := l.n
	l.n = 0 // SQLite gives up what can't be written
	for done := int32(0); done < n; done += mostWritten {
		rc := called[moveFunc](l.methods.FxWrite)(tls, file, l.room+uintptr(done), min(n-done, mostWritten), l.at+int64(done))
		if rc != sq.SQLITE_OK {
			return rc
		}
	}
	return sq.SQLITE_OK
}

func writeLog(tls *libc.TLS, file, buf uintptr, n int32, at int64) int32 {
	l := logOf(file)
	if l.n > 0 && (at != l.at+int64(l.n) || l.n+n > logRoom) {
		if rc := l.flush(tls, file); rc != sq.SQLITE_OK {
			return rc
		}
	}
	if l.room == 0 {
		l.room = libc.Xmalloc(tls, logRoom)
	}
	if l.room == 0 || n > logRoom {
		return called[moveFunc](l.methods.FxWrite)(tls, file, buf, n, at)
	}
	if l.n == 0 {
		l.at = at
	}
	copy(unsafe.Slice(in[byte](l.room), logRoom)[l.n:], unsafe.Slice(in[byte](buf), n))
	l.n += n
	return sq.SQLITE_OK
}

func readLog(tls *libc.TLS, file, buf uintptr, n int32, at int64) int32 {
	l := logOf(file)
	if rc := l.flush(tls, file); rc != sq.SQLITE_OK {
		return rc
	}
	return called[moveFunc](l.methods.FxRead)(tls, file, buf, n, at)
}

func cutLog(tls *libc.TLS, file uintptr, size int64) int32 {
	l := logOf(file)
	if rc := l.flush(tls, file); rc != sq.SQLITE_OK {
		return rc
	}
	return called[cutFunc](l.methods.FxTruncate)(tls, file, size)
}

func syncLog(tls *libc.TLS, file uintptr, flags int32) int32 {
	l := logOf(file)
	if rc := l.flush(tls, file); rc != sq.SQLITE_OK {
		return rc
	}
	return called[syncFunc](l.methods.FxSync)(tls, file, flags)
}

func sizeOfLog(tls *libc.TLS, file, size uintptr) int32 {
	l := logOf(file)
	if rc := l.flush(tls, file); rc != sq.SQLITE_OK {
		return rc
	}
	return called[sizeFunc](l.methods.FxFileSize)(tls, file, size)
}

func closeLog(tls *libc.TLS, file uintptr) int32 {
	l := logOf(file)
	rc := l.flush(tls, file)
	gathering.files.Delete(file)
	if l.room != 0 {
		libc.Xfree(tls, l.room)
	}
	if closed := called[closeFunc](l.methods.FxClose)(tls, file); rc == sq.SQLITE_OK {
		rc = closed
	}
	return rc
}

// in is a value in SQLite's memory, which the garbage collector knows nothing of.
func in[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// pointerTo makes a C function pointer of a Go function, which has to stay reachable as long as SQLite may call it.
func pointerTo[F any](f *F) uintptr { return *(*uintptr)(unsafe.Pointer(f)) }

// called is the Go function behind a C function pointer.
func called[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

func sizeOf[T any]() libc.Tsize_t {
	var t T
	return libc.Tsize_t(unsafe.Sizeof(t))
}
