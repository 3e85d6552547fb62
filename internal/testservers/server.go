//go:build unix

package testservers

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Server is a running server as one test sees it. Its methods fail the test if they can't do their work.
type Server struct {
	// Addr is host and port, the same after a restart.
	Addr string

	t testing.TB
	p *process
}

// Kill9 ends the server and its children by SIGKILL. Its data stays.
func (s *Server) Kill9() {
	s.t.Helper()
	s.must(s.p.kill())
}

// Start starts the server again and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.must(s.p.start(s.t.Context()))
}

// Pause lets the server hang: it takes connections and does nothing.
func (s *Server) Pause() {
	s.t.Helper()
	s.must(s.p.signal(syscall.SIGSTOP))
}

// Resume ends a Pause.
func (s *Server) Resume() {
	s.t.Helper()
	s.must(s.p.signal(syscall.SIGCONT))
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// Database is an empty database in a server of databases.
type Database struct {
	Server
	// DSN is the URL of the database as storage.database takes it, with the user's name and password.
	DSN string

	name string
}

// databases is an engine that has databases.
type databases interface {
	engine
	query(ctx context.Context, port int, database, sql string) (string, error)
	create(ctx context.Context, port int, database string) error
	drop(ctx context.Context, port int, database string) error
	scheme() (scheme, query string)
}

// Postgres starts a PostgreSQL for this test alone.
func Postgres(t testing.TB) *Database {
	t.Helper()
	return database(t, own(t, postgresEngine))
}

// MariaDB starts a MariaDB for this test alone.
func MariaDB(t testing.TB) *Database {
	t.Helper()
	return database(t, own(t, mariadbEngine))
}

func postgresEngine() (engine, error) { return findPostgres() }

func mariadbEngine() (engine, error) { return findMariaDB() }

// hastyMariaDBEngine is for tests that don't kill it. Changing a schema syncs a file many times.
func hastyMariaDBEngine() (engine, error) {
	e, err := findMariaDB()
	e.hasty = true
	return e, err
}

// own starts a server that ends with the test.
func own(t testing.TB, find func() (engine, error)) *process {
	t.Helper()
	e, err := find()
	if err != nil {
		t.Fatal(err)
	}
	p, err := launch(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.remove(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// database makes a database of a test.
func database(t testing.TB, p *process) *Database {
	t.Helper()
	d := &Database{Server: Server{Addr: address(p.port), t: t, p: p}}
	d.must(d.make())
	return d
}

func (d *Database) engine() databases { return d.p.engine.(databases) }

func (d *Database) make() error {
	d.name = "t" + strings.ToLower(rand.Text())
	scheme, query := d.engine().scheme()
	dsn := url.URL{Scheme: scheme, User: url.UserPassword(admin, password), Host: d.Addr, Path: "/" + d.name, RawQuery: query}
	d.DSN = dsn.String()
	return d.engine().create(d.t.Context(), d.p.port, d.name)
}

// New returns another empty database of the same server.
func (d *Database) New() *Database {
	d.t.Helper()
	return database(d.t, d.p)
}

// Exec runs SQL in the database as its administrator, on a connection of its own, and returns what the server's
// command-line client printed: rows without headings.
func (d *Database) Exec(sql string) string {
	d.t.Helper()
	out, err := d.engine().query(d.t.Context(), d.p.port, d.name, sql)
	d.must(err)
	return out
}

// discard removes the database from a server that lives on.
func (d *Database) discard() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), 20*time.Second)
	defer cancel()
	if err := d.engine().drop(ctx, d.p.port, d.name); err != nil {
		d.t.Error(err)
	}
}
