//go:build unix

package testservers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

type mariadb struct {
	server, install, client string // programs
	user                    string // who runs the server
	hasty                   bool   // it brings nothing to the disk: no test of it is about that
}

func findMariaDB() (mariadb, error) {
	var e mariadb
	for _, p := range []struct {
		path  *string
		names []string
	}{
		{&e.server, []string{"mariadbd", "/usr/sbin/mariadbd"}},
		{&e.install, []string{"mariadb-install-db"}},
		{&e.client, []string{"mariadb"}},
	} {
		for _, name := range p.names {
			if path, err := exec.LookPath(name); err == nil {
				*p.path = path
				break
			}
		}
		if *p.path == "" {
			return e, missing("MariaDB ("+p.names[0]+")", "mariadb-server-core and mariadb-client")
		}
	}
	u, err := user.Current() // the server runs as root if it is told to
	if err != nil {
		return e, err
	}
	e.user = u.Username
	return e, nil
}

func (e mariadb) name() string { return "mariadb" }

func (e mariadb) initFile(dir string) string { return filepath.Join(dir, "init.sql") }

// tmp is not the machine's: a server that starts deletes the temporary tables of every other one there.
func (e mariadb) tmp(dir string) string { return filepath.Join(dir, "tmp") }

func (e mariadb) prepare(ctx context.Context, dir string) error {
	// Run at each start.
	sql := fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'127.0.0.1' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO '%s'@'127.0.0.1' WITH GRANT OPTION;\n", admin, password, admin)
	if err := os.WriteFile(e.initFile(dir), []byte(sql), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(e.tmp(dir), 0o700); err != nil {
		return err
	}
	_, err := run(exec.CommandContext(ctx, e.install, "--no-defaults", "--user="+e.user, "--datadir="+filepath.Join(dir, "data"), "--tmpdir="+e.tmp(dir),
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M",
		"--innodb-flush-log-at-trx-commit=0"))
	return err
}

func (e mariadb) command(dir string, port int) *exec.Cmd {
	args := []string{
		"--no-defaults", "--user=" + e.user, "--datadir=" + filepath.Join(dir, "data"), "--tmpdir=" + e.tmp(dir),
		"--socket=" + filepath.Join(dir, "sock"), "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + e.initFile(dir),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(port), "--skip-name-resolve",
		"--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M", "--max-connections=200",
	}
	if e.hasty {
		args = append(args, "--innodb-flush-method=nosync", "--debug-no-sync", "--sync-frm=0")
	}
	return exec.Command(e.server, args...)
}

func (e mariadb) quit() syscall.Signal { return syscall.SIGKILL } // all it has is in its directory

func (e mariadb) ping(ctx context.Context, port int) error {
	_, err := e.query(ctx, port, "mysql", "SELECT 1")
	return err
}

func (e mariadb) query(ctx context.Context, port int, database, sql string) (string, error) {
	cmd := exec.CommandContext(ctx, e.client, "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--port="+strconv.Itoa(port),
		"--user="+admin, "--connect-timeout=5", "--batch", "--skip-column-names", "--database="+database, "--execute="+sql)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+password)
	return run(cmd)
}

func (e mariadb) create(ctx context.Context, port int, database string) error {
	_, err := e.query(ctx, port, "mysql", "CREATE DATABASE "+database)
	return err
}

func (e mariadb) drop(ctx context.Context, port int, database string) error {
	_, err := e.query(ctx, port, "mysql", "DROP DATABASE "+database)
	return err
}

func (e mariadb) scheme() (scheme, query string) { return "mysql", "" }
