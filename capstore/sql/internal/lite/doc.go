// Package lite binds the SQLite engine of modernc.org/sqlite directly, without database/sql: what a state that every host
// computes alike needs and a driver does not give. A connection's clock, random numbers and counters are set by its user;
// the cost of what it runs is counted; its write-ahead log can be set back.
//
// It knows SQLite and nothing of Spaces, requests, or which statements are allowed. It reaches into structures of the
// engine that are no stable interface of it: the version in go.mod is part of what hosts agree on, and an update of it has
// to pass the tests of the packages above, golden histories first.
package lite

import (
	"unsafe"

	"modernc.org/libc"
	sq "modernc.org/sqlite/lib"
)

// at is what stands at an address of the engine's memory, which Go's collector does not know.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// pointer makes a C function pointer of a Go function, which has to stay reachable as long as the engine may call it.
func pointer[F any](f *F) uintptr { return *(*uintptr)(unsafe.Pointer(f)) }

// function is the Go function behind a C function pointer.
func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

// view is n bytes of the engine's memory.
func view(p uintptr, n int) []byte {
	if p == 0 || n <= 0 {
		return nil
	}
	return unsafe.Slice(at[byte](p), n)
}

// cstring copies a text to the engine's memory, to be freed by [libc.Xfree]. A zero byte in it ends it there.
func cstring(tls *libc.TLS, s string) uintptr {
	p := libc.Xmalloc(tls, libc.Tsize_t(len(s)+1))
	b := unsafe.Slice(at[byte](p), len(s)+1)
	copy(b, s)
	b[len(s)] = 0
	return p
}

// Version is the version of the engine.
func Version() string { return sq.SQLITE_VERSION }
