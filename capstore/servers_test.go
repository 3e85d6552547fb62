package capstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// backends are where the tests run. A test that runs on all of them has a subtest of each name, and openNew
// takes the database from that name.
var backends = []string{"sqlite", "memory", "postgres", "mysql"}

// everywhere runs a test on each database.
func everywhere(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			if name == "postgres" || name == "mysql" {
				t.Parallel()
			}
			test(t)
		})
	}
}

func onServers(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	for _, name := range []string{"postgres", "mysql"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, shared(t, name))
		})
	}
}

// newDatabase returns an empty database of the backend that the test's name tells.
func newDatabase(t *testing.T) string {
	t.Helper()
	for _, part := range strings.Split(t.Name(), "/") {
		switch part {
		case "memory":
			return capstore.InMemory
		case "postgres", "mysql":
			return shared(t, part).create(t)
		}
	}
	return filepath.Join(t.TempDir(), "caps.db")
}

var (
	sharedMu      sync.Mutex
	sharedServers = map[string]*server{}
)

// shared returns the server of a kind that all tests use.
func shared(t *testing.T, kind string) *server {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if s := sharedServers[kind]; s != nil {
		return s
	}
	s, err := startServer(kind)
	if err != nil {
		t.Fatal(err)
	}
	sharedServers[kind] = s
	return s
}

func stopServers() {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	for _, s := range sharedServers {
		s.remove()
	}
}

// server is a database server of the tests' own.
type server struct {
	kind, dir string
	port      int
	cmd       *exec.Cmd
	databases atomic.Int64
}

func startServer(kind string) (*server, error) {
	dir, err := os.MkdirTemp("", "tinycloud-"+kind)
	if err != nil {
		return nil, err
	}
	s := &server{kind: kind, dir: filepath.Join(dir, "data")}
	var init *exec.Cmd
	if kind == "postgres" {
		init = exec.Command(find("initdb"), "-D", s.dir, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", filepath.Join(dir, "password"), "--no-sync")
		err = os.WriteFile(filepath.Join(dir, "password"), []byte("secret"), 0o644)
	} else {
		init = exec.Command(find("mariadb-install-db"), "--no-defaults", "--datadir="+s.dir, "--auth-root-authentication-method=normal", "--skip-test-db")
	}
	if err := errors.Join(err, s.own(dir)); err != nil {
		return nil, err
	}
	s.as(init)
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", init, err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	return s, s.start()
}

// start runs the server and returns when it answers.
func (s *server) start() error {
	if s.kind == "postgres" {
		s.cmd = exec.Command(find("postgres"), "-D", s.dir, "-k", s.dir, "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
			"-c", "fsync=off", "-c", "max_connections=400", "-c", "log_min_messages=fatal")
	} else {
		s.cmd = exec.Command(find("mariadbd"), "--no-defaults", "--datadir="+s.dir, "--socket="+filepath.Join(s.dir, "s.sock"),
			"--bind-address=127.0.0.1", "--port="+strconv.Itoa(s.port), "--skip-name-resolve", "--max-connections=400")
	}
	s.as(s.cmd)
	log, err := os.OpenFile(filepath.Join(filepath.Dir(s.dir), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(30 * time.Second)
	for {
		err := s.do("SELECT 1")
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not start: %w", s.kind, err)
		}
		<-tick.C
	}
}

// kill ends the server as a loss of power would its processes.
func (s *server) kill() {
	if s.kind == "postgres" { // its children see that it is gone
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	} else {
		_ = s.cmd.Process.Kill()
	}
	_ = s.cmd.Wait()
}

func (s *server) remove() {
	s.kill()
	_ = os.RemoveAll(filepath.Dir(s.dir))
}

func find(program string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	return program
}

// account is who the servers run as: they refuse to be root.
func (s *server) account() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup(s.kind)
	if err != nil {
		return nil
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *server) own(dir string) error {
	if c := s.account(); c != nil {
		return os.Chown(dir, int(c.Uid), int(c.Gid))
	}
	return nil
}

func (s *server) as(cmd *exec.Cmd) {
	cmd.Dir = filepath.Dir(s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account(), Setpgid: true}
}

func (s *server) url(database string) string {
	if s.kind == "postgres" {
		return fmt.Sprintf("postgres://postgres:secret@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
	}
	return fmt.Sprintf("mysql://root@127.0.0.1:%d/%s", s.port, database)
}

func (s *server) open(database string) (*sql.DB, error) {
	if s.kind == "postgres" {
		if database == "" {
			database = "postgres"
		}
		return sql.Open("pgx", s.url(database))
	}
	return sql.Open("mysql", fmt.Sprintf("root@tcp(127.0.0.1:%d)/%s", s.port, database))
}

func (s *server) do(statement string) error {
	db, err := s.open("")
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// create makes an empty database and returns its URL.
func (s *server) create(t *testing.T) string {
	t.Helper()
	name := fmt.Sprint("t", s.databases.Add(1))
	if err := s.do("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	return s.url(name)
}

// in runs a statement in the database that a URL names.
func (s *server) in(url, statement string) error {
	name, _, _ := strings.Cut(url[strings.LastIndex(url, "/")+1:], "?")
	db, err := s.open(name)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(statement)
	return err
}

func containsAll(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// inspect opens the store's database behind its back.
func (s *testStore) inspect() *sql.DB {
	s.t.Helper()
	var db *sql.DB
	var err error
	switch scheme, rest, _ := strings.Cut(s.path, "://"); scheme {
	case "postgres":
		db, err = sql.Open("pgx", s.path)
	case "mysql":
		host, name, _ := strings.Cut(strings.TrimPrefix(rest, "root@"), "/")
		db, err = sql.Open("mysql", "root@tcp("+host+")/"+name)
	default:
		db, err = sql.Open("sqlite", "file:"+s.path+"?_pragma=query_only(1)")
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return db
}
