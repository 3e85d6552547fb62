//go:build unix

package testservers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Who the servers' administrator is.
const (
	admin    = "tinycloud"
	password = "p@ss/word"
)

type postgres struct {
	bin string              // directory of the programs
	as  *syscall.Credential // nil: as we are
}

func findPostgres() (postgres, error) {
	var e postgres
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if path, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		found = []string{path}
	}
	if len(found) == 0 {
		return e, missing("PostgreSQL", "postgresql")
	}
	e.bin = filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
	for _, program := range []string{"postgres", "psql"} {
		if _, err := exec.LookPath(filepath.Join(e.bin, program)); err != nil {
			return e, fmt.Errorf("%w: %w", missing("PostgreSQL", "postgresql"), err)
		}
	}
	if os.Getuid() != 0 {
		return e, nil
	}
	// The server refuses to run as root.
	u, err := user.Lookup("postgres")
	if err != nil {
		return e, fmt.Errorf("PostgreSQL needs a user of its own when tests run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return e, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return e, err
	}
	e.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return e, nil
}

// version is that of /usr/lib/postgresql/<version>/bin/initdb, 0 for one that is no number.
func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func (e postgres) name() string { return "postgres" }

// own lets a command run as the server's user, in a directory that it may enter.
func (e postgres) own(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	if e.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: e.as}
	}
	return cmd
}

func (e postgres) prepare(ctx context.Context, dir string) error {
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return err
	}
	if e.as != nil {
		for _, path := range []string{dir, secret} {
			if err := os.Chown(path, int(e.as.Uid), int(e.as.Gid)); err != nil {
				return err
			}
		}
	}
	_, err := run(e.own(exec.CommandContext(ctx, filepath.Join(e.bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", admin,
		"--auth=scram-sha-256", "--pwfile="+secret, "--no-sync", "--no-locale", "--encoding=UTF8"), dir))
	return err
}

func (e postgres) command(dir string, port int) *exec.Cmd {
	return e.own(exec.Command(filepath.Join(e.bin, "postgres"), "-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-k", dir,
		"-c", "listen_addresses=127.0.0.1",
		"-c", "dynamic_shared_memory_type=mmap", // in the data directory, so that a killed server leaves nothing
		"-c", "max_connections=200"), dir)
}

func (e postgres) quit() syscall.Signal { return syscall.SIGQUIT } // an immediate shutdown, which frees its shared memory

func (e postgres) ping(ctx context.Context, port int) error {
	_, err := e.query(ctx, port, "postgres", "SELECT 1")
	return err
}

func (e postgres) query(ctx context.Context, port int, database, sql string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(e.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", admin, "-d", database, "-c", sql)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=5")
	return run(cmd)
}

func (e postgres) create(ctx context.Context, port int, database string) error {
	_, err := e.query(ctx, port, "postgres", "CREATE DATABASE "+database)
	return err
}

func (e postgres) drop(ctx context.Context, port int, database string) error {
	_, err := e.query(ctx, port, "postgres", "DROP DATABASE "+database+" WITH (FORCE)")
	return err
}

func (e postgres) scheme() (scheme, query string) { return "postgres", "sslmode=disable" }
