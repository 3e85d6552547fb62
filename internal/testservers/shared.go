//go:build unix

package testservers

import (
	"os"
	"sync"
	"testing"
)

// Shared is the servers that the tests of a package share, each started when the first test asks for it. The
// zero value is ready:
//
//	var servers testservers.Shared
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Main(m)) } // or os.Exit(servers.Main(m).Run())
//
// A test has a database or bucket of its own there, removed at its end, and doesn't kill or pause the server.
type Shared struct {
	mu      sync.Mutex
	servers map[string]*process
}

// Runner is a testing.M.
type Runner interface{ Run() int }

// Main returns what runs the tests and then ends the servers.
func (s *Shared) Main(m Runner) Runner { return ending{m, s} }

type ending struct {
	m Runner
	s *Shared
}

func (e ending) Run() int {
	code := e.m.Run()
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	for _, p := range e.s.servers {
		if err := p.remove(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n") // nothing else is left to tell
			code = max(code, 1)
		}
	}
	e.s.servers = nil
	return code
}

func (s *Shared) get(t testing.TB, find func() (engine, error)) *process {
	t.Helper()
	e, err := find()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.servers[e.name()]
	if p != nil {
		return p
	}
	if p, err = launch(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if s.servers == nil {
		s.servers = map[string]*process{}
	}
	s.servers[e.name()] = p
	return p
}

// Postgres returns an empty database of the shared PostgreSQL.
func (s *Shared) Postgres(t testing.TB) *Database {
	t.Helper()
	return sharedDatabase(t, s.get(t, postgresEngine))
}

// MariaDB returns an empty database of the shared MariaDB.
func (s *Shared) MariaDB(t testing.TB) *Database {
	t.Helper()
	return sharedDatabase(t, s.get(t, hastyMariaDBEngine))
}

func sharedDatabase(t testing.TB, p *process) *Database {
	t.Helper()
	d := database(t, p)
	t.Cleanup(d.discard)
	return d
}

// S3 returns an empty bucket of the shared S3 service.
func (s *Shared) S3(t testing.TB) *Bucket {
	t.Helper()
	b := bucket(t, s.get(t, s3Engine))
	t.Cleanup(func() {
		if err := os.RemoveAll(b.Dir()); err != nil {
			t.Error(err)
		}
	})
	return b
}
