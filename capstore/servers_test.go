package capstore_test

import (
	"database/sql"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// servers hold the databases of the tests that do not kill their server.
var servers testservers.Shared

// A test that runs on several databases has a subtest for each; newDatabase takes the kind from its name.
const (
	onSQLite   = "sqlite"
	onMemory   = "memory"
	onPostgres = "postgres"
	onMySQL    = "mysql"
)

// everywhere runs a test on each database.
func everywhere(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if racing {
		t.Run(onSQLite, test) // what only servers have is tested by those that call onServers
		return
	}
	t.Parallel() // most of the time they wait for servers
	t.Run(onSQLite, test)
	t.Run(onMemory, test)
	onServers(t, test)
}

// onServers runs a test on each database that several processes can share.
func onServers(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	kinds := []string{onPostgres, onMySQL}
	if racing {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// kind is the database that a test runs on.
func kind(t testing.TB) string {
	for _, part := range strings.Split(t.Name(), "/") {
		switch part {
		case onMemory, onPostgres, onMySQL:
			return part
		}
	}
	return onSQLite
}

// newDatabase returns an empty database of the test's kind.
func newDatabase(t testing.TB) string {
	t.Helper()
	switch kind(t) {
	case onMemory:
		return capstore.InMemory
	case onPostgres, onMySQL:
		return newServerDatabase(t).DSN
	}
	return filepath.Join(t.TempDir(), "caps.db")
}

func newServerDatabase(t testing.TB) *testservers.Database {
	t.Helper()
	if kind(t) == onPostgres {
		db := servers.Postgres(t)
		hurryPostgres.Do(func() {
			db.Exec("ALTER SYSTEM SET fsync = off")
			db.Exec("SELECT pg_reload_conf()")
		})
		return db
	}
	db := servers.MariaDB(t)
	hurryMariaDB.Do(func() { db.Exec("SET GLOBAL innodb_flush_log_at_trx_commit = 0") })
	return db
}

// The shared servers outlive no crash of the machine, and need not.
var hurryPostgres, hurryMariaDB sync.Once

// ownServer starts a server that the test may kill.
func ownServer(t *testing.T) *testservers.Database {
	t.Helper()
	if kind(t) == onPostgres {
		return testservers.Postgres(t)
	}
	return testservers.MariaDB(t)
}

// inspect opens the store's database behind its back.
func (s *testStore) inspect() *sql.DB {
	s.t.Helper()
	driver, dsn := "sqlite", "file:"+s.path+"?_pragma=query_only(1)"
	switch kind(s.t) {
	case onPostgres:
		driver, dsn = "pgx", s.path
	case onMySQL:
		u, err := url.Parse(s.path)
		if err != nil {
			s.t.Fatal(err)
		}
		password, _ := u.User.Password()
		driver, dsn = "mysql", u.User.Username()+":"+password+"@tcp("+u.Host+")"+u.Path
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	return db
}
