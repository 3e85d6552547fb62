package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver of SQLite
)

const (
	dialTimeout = 4 * time.Second
	// startTimeout bounds what [Open] waits for a server.
	startTimeout = 12 * time.Second
	// migrateTimeout bounds what it waits for changes of the schema.
	migrateTimeout = 5 * time.Minute
	maxConns       = 16 // of a pool that reads from a server
	idleLife       = 5 * time.Minute
	// Of SQLite, in KiB of a connection. There are up to eight that read.
	writeCache, bulkCache, readCache = 8000, 32000, 1000
	// checkpointFrom is how many pages SQLite's log has before they go to the file: what many transactions write goes once.
	checkpointFrom = 8000
	readIdle       = 30 * time.Second // until a connection that reads gives its cache back
)

// DB is an open database.
type DB struct {
	Dialect
	Read    *Pool // for readers
	Control *Pool // for what must go on however many readers there are; not on SQLite
	write   *sql.DB
	read    *sql.DB
	trips   atomic.Int64
	log     *slog.Logger
}

func (x *DB) pools() {
	x.Read = &Pool{d: x.Dialect, db: x.read, trips: &x.trips, quick: !x.Shared, stmts: map[string]*sql.Stmt{}}
	x.Control = &Pool{d: x.Dialect, db: x.write, trips: &x.trips, stmts: map[string]*sql.Stmt{}}
}

// Trips is how many times something was sent to the database and waited for, but for what prepares statements.
func (x *DB) Trips() int64 { return x.trips.Load() }

// IsServer reports whether a database is named by the URL of a server.
func IsServer(dsn string) bool {
	_, ok := server(dsn)
	return ok
}

// Redact returns the name of a database without what may be secret in it.
func Redact(dsn string) string {
	if !IsServer(dsn) {
		return dsn
	}
	u, err := url.Parse(dsn)
	if err != nil {
		scheme, _, _ := strings.Cut(dsn, "://")
		return scheme + "://REDACTED"
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), "REDACTED")
	}
	if u.RawQuery != "" {
		u.RawQuery = "REDACTED"
	}
	return u.String()
}

func server(dsn string) (Dialect, bool) {
	scheme, _, ok := strings.Cut(dsn, "://")
	switch strings.ToLower(scheme) {
	case "postgres", "postgresql":
		return Postgres(), ok
	case "mysql", "mariadb":
		return MySQL(), ok
	}
	return Dialect{}, false
}

// OpenServer connects to the database that the URL of a server names and brings its schema up to date.
// Migrations has a directory for each dialect.
func OpenServer(ctx context.Context, dsn string, migrations fs.FS, log *slog.Logger) (*DB, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	d, ok := server(dsn)
	if !ok {
		return nil, errors.New("not the URL of a server")
	}
	x := &DB{Dialect: d, log: log}
	open := openMySQL
	if d.Name == "postgres" {
		open = openPostgres
	}
	var err error
	if x.write, err = open(dsn, true); err != nil {
		return nil, err
	}
	if x.read, err = open(dsn, false); err != nil {
		return nil, err
	}
	x.pools()
	x.write.SetMaxOpenConns(10)
	for _, p := range []*sql.DB{x.read, x.write} {
		p.SetMaxIdleConns(maxConns)
		p.SetConnMaxIdleTime(idleLife)
	}
	x.read.SetMaxOpenConns(maxConns)
	if err := x.prepare(ctx, migrations); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// OpenSQLite opens or creates a file. Sync is SQLite's synchronous: FULL is durable at each commit.
// Older are migrations that files of earlier versions need besides.
func OpenSQLite(ctx context.Context, path, sync string, migrations fs.FS, log *slog.Logger, older ...*goose.Migration) (*DB, error) {
	dsn := fmt.Sprint("file:", path, "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(", sync,
		")&_pragma=wal_autocheckpoint(", checkpointFrom, ")&_pragma=cache_size(-")
	x := &DB{Dialect: SQLite(), log: log}
	write := fmt.Sprint(dsn, writeCache, ")")
	if sync == "FULL" {
		if err := gathering.register(); err != nil {
			return nil, err
		}
		write += "&vfs=" + gatheringVFS
	}
	var err error
	if x.write, err = sql.Open("sqlite", write); err != nil {
		return nil, err
	}
	x.write.SetMaxOpenConns(1)
	if x.read, err = openReadings(fmt.Sprint(dsn, readCache, ")&_pragma=query_only(1)")); err != nil {
		return nil, errors.Join(err, x.write.Close())
	}
	x.read.SetMaxOpenConns(8)
	x.read.SetMaxIdleConns(8)
	x.read.SetConnMaxIdleTime(readIdle)
	x.pools()
	if err := x.prepare(ctx, migrations, older...); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// Writer returns a connection for writing. On SQLite there is one.
func (x *DB) Writer(ctx context.Context) (*Conn, error) {
	if x.Shared {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout)
		defer cancel()
	}
	conn, err := x.write.Conn(ctx)
	if err != nil {
		return nil, Error(fmt.Errorf("%v", err)) // the timeout is not the caller's
	}
	c := &Conn{
		d: x.Dialect, pool: x.write, conn: conn, stmts: map[string]*sql.Stmt{}, inserts: map[Insert]*sql.Stmt{}, direct: map[string]directStmt{}, queries: map[string]queryStmt{},
		texts: map[string]string{}, inserted: map[rowsOf]string{}, shapes: map[shape]string{}, open: map[string]*inserts{}, trips: &x.trips, bulk: bulk{read: x.read},
	}
	if err := x.settle(ctx, c); err != nil {
		c.Drop()
		return nil, Error(fmt.Errorf("%v", err))
	}
	return c, nil
}

// Hasty returns a connection to a server for what need not survive its loss of power: PostgreSQL does not wait for its disk.
// The other servers know that for all connections alone.
func (x *DB) Hasty(ctx context.Context) (*Conn, error) {
	c, err := x.Writer(ctx)
	if err != nil || x.Name != "postgres" {
		return c, err
	}
	if err := c.plain(ctx, "SET synchronous_commit = off"); err != nil {
		c.Drop()
		return nil, err
	}
	return c, nil
}

// maxPause is how long a transaction may stand still before the server ends it: a process that is stopped
// or cut off must not keep the others from writing.
const maxPause = 10 * time.Second

func (x *DB) settle(ctx context.Context, c *Conn) error {
	switch x.Name {
	case "postgres":
		_, err := c.conn.ExecContext(ctx, fmt.Sprintf("SET idle_in_transaction_session_timeout = %d", maxPause.Milliseconds()))
		return err
	case "mysql":
		_, err := c.conn.ExecContext(ctx, fmt.Sprintf("SET SESSION idle_transaction_timeout = %d", int(maxPause.Seconds())))
		if Refused(err) { // MySQL knows it for whole sessions only
			_, err = c.conn.ExecContext(ctx, "SET SESSION wait_timeout = 60")
		}
		return err
	}
	return nil
}

// Close ends all connections.
func (x *DB) Close() error {
	return errors.Join(x.read.Close(), x.write.Close())
}

func (x *DB) prepare(ctx context.Context, migrations fs.FS, older ...*goose.Migration) error {
	if err := x.write.PingContext(ctx); err != nil {
		return plain(ctx, err)
	}
	if err := x.migrate(ctx, migrations, older); err != nil {
		return plain(ctx, err)
	}
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	return x.checkDurability(asked)
}

// plain says in words what a context tells by its class.
func plain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer within %s (%v)", startTimeout, err)
	}
	return err
}

func (x *DB) migrate(ctx context.Context, migrations fs.FS, older []*goose.Migration) error {
	foreign := "SELECT count(*) FROM information_schema.tables WHERE table_name = 'seaql_migrations' AND table_schema = "
	switch x.Name {
	case "postgres":
		foreign += "current_schema()"
	case "mysql":
		foreign += "database()"
	default:
		foreign = "SELECT count(*) FROM sqlite_master WHERE name = 'seaql_migrations'"
	}
	var n int
	if err := x.write.QueryRowContext(ctx, foreign).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return errors.New("this is a database of the reference node; take it over with import-reference")
	}
	dir, err := fs.Sub(migrations, x.Name)
	if err != nil {
		return err
	}
	unlock, err := x.lockSchema(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := goose.NewProvider(x.goose, x.write, dir, goose.WithGoMigrations(older...), goose.WithAllowOutofOrder(true))
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return fmt.Errorf("schema version %d is newer than this program's %d", current, target)
	}
	// A server that answers is not out of reach, however long it takes; and what was begun is better finished.
	up, cancel := context.WithTimeout(context.WithoutCancel(ctx), migrateTimeout)
	defer cancel()
	_, err = p.Up(up)
	return err
}

// schemaLock is the advisory lock under which processes that start together take turns to migrate.
const schemaLock = 7_473_627

func (x *DB) lockSchema(ctx context.Context) (unlock func(), err error) {
	if !x.Shared {
		return func() {}, nil
	}
	conn, err := x.write.Conn(ctx)
	if err != nil {
		return nil, err
	}
	lock := fmt.Sprintf("SELECT pg_advisory_lock(%d)", schemaLock)
	if x.Name == "mysql" {
		lock = fmt.Sprintf("SELECT GET_LOCK(concat('tinycloud-', left(md5(database()), 16), '-%d'), %d)", schemaLock, int(startTimeout.Seconds()))
	}
	if _, err := conn.ExecContext(ctx, lock); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &Conn{conn: conn}
	return c.Drop, nil // the lock ends with its connection
}

// checkDurability warns when the server answers before a commit is on its disk.
func (x *DB) checkDurability(ctx context.Context) error {
	var name, value, wanted string
	var err error
	switch x.Name {
	case "postgres":
		name, wanted = "synchronous_commit", "on"
		err = x.write.QueryRowContext(ctx, "SELECT current_setting('synchronous_commit')").Scan(&value)
		if value == "remote_apply" || value == "remote_write" || value == "local" { // all of them flush here
			value = wanted
		}
		if err == nil && value == wanted {
			name = "fsync"
			err = x.write.QueryRowContext(ctx, "SELECT current_setting('fsync')").Scan(&value)
		}
	case "mysql":
		name, wanted = "innodb_flush_log_at_trx_commit", "1"
		err = x.write.QueryRowContext(ctx, "SELECT @@global.innodb_flush_log_at_trx_commit").Scan(&value)
	default:
		return nil
	}
	if err == nil && value != wanted {
		x.log.WarnContext(ctx, "storage.database: the server acknowledges writes that a loss of power may undo", name, value, "expected", wanted)
	}
	return err
}

// dialer ends connections to a server that is gone.
func dialer() *net.Dialer {
	d := &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3},
	}
	giveUp(d)
	return d
}
