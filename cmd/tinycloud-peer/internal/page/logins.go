package page

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bounds of log-ins, in memory only: all end with the process.
const (
	codeLife    = 10 * time.Minute
	sessionLife = 12 * time.Hour
	maxCodes    = 8  // that are open; the oldest gives way
	maxSessions = 16 // likewise
)

// digest is what is kept of a secret: looking it up takes no time that tells of it.
type digest [sha256.Size]byte

// session is a browser that is logged in.
type session struct {
	token   digest // what its requests have beside the cookie
	expires time.Time
}

// logins are the open codes and the sessions.
type logins struct {
	now func() time.Time

	mu       sync.Mutex
	codes    map[digest]time.Time // guarded by mu; when they expire
	sessions map[digest]session   // guarded by mu; by the cookie
}

func newLogins(now func() time.Time) *logins {
	return &logins{now: now, codes: map[digest]time.Time{}, sessions: map[digest]session{}}
}

// secret is 256 bits of chance.
func secret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func digestOf(text string) digest { return sha256.Sum256([]byte(text)) }

// code makes a code for one log-in.
func (l *logins) code() (code string, expires time.Time) {
	code, expires = secret(), l.now().Add(codeLife)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	makeRoom(l.codes, maxCodes, func(t time.Time) time.Time { return t })
	l.codes[digestOf(code)] = expires
	return code, expires
}

// use takes a code, which is none from then on, and begins a session.
func (l *logins) use(code string) (cookie, token string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	id := digestOf(code)
	if _, ok := l.codes[id]; !ok {
		return "", "", false
	}
	delete(l.codes, id)
	cookie, token = secret(), secret()
	makeRoom(l.sessions, maxSessions, func(s session) time.Time { return s.expires })
	l.sessions[digestOf(cookie)] = session{digestOf(token), l.now().Add(sessionLife)}
	return cookie, token, true
}

// has reports whether a cookie and a token are of one session.
func (l *logins) has(cookie, token string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	s, ok := l.sessions[digestOf(cookie)]
	got := digestOf(token)
	return ok && subtle.ConstantTimeCompare(got[:], s.token[:]) == 1
}

// end ends a session.
func (l *logins) end(cookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, digestOf(cookie))
}

// forget drops what expired. The caller holds mu.
func (l *logins) forget() {
	now := l.now()
	maps.DeleteFunc(l.codes, func(_ digest, expires time.Time) bool { return !now.Before(expires) })
	maps.DeleteFunc(l.sessions, func(_ digest, s session) bool { return !now.Before(s.expires) })
}

// makeRoom drops what expires first until one more fits.
func makeRoom[V any](m map[digest]V, most int, expires func(V) time.Time) {
	for len(m) >= most {
		ids := slices.Collect(maps.Keys(m))
		first := slices.MinFunc(ids, func(a, b digest) int { return expires(m[a]).Compare(expires(m[b])) })
		delete(m, first)
	}
}
