package transfer_test

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

// newServer runs a PostgreSQL server of its own that listens on a socket alone. Root may not run one, so it
// is given to the user postgres.
func newServer(t *testing.T) (*sql.DB, config.Database) {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Skip("PostgreSQL is not installed")
	}
	bin := bins[len(bins)-1]
	dir, err := os.MkdirTemp("", "pg")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...)
		cmd.Dir = dir
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t, dir)}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-U", "tinycloud", "--auth=trust", "--no-sync")
	start := []string{"-D", data, "-o", "-k " + dir + " -c listen_addresses= -c fsync=off", "-l", filepath.Join(dir, "log"), "-w"}
	run("pg_ctl", append(start, "start")...)
	t.Cleanup(func() {
		cmd := exec.Command(filepath.Join(bin, "pg_ctl"), "-D", data, "-m", "immediate", "stop")
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t, dir)}
		}
		_ = cmd.Run()
	})
	url := fmt.Sprintf("postgres://tinycloud@/postgres?host=%s", dir)
	where, err := config.ParseDatabase(url)
	must(t, err)
	db, err := sql.Open("pgx", url)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db, where
}

// credential is that of the user postgres, to whom it gives a directory.
func credential(t *testing.T, dir string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("there is no user postgres to run a server as")
	}
	uid, err := strconv.Atoi(u.Uid)
	must(t, err)
	gid, err := strconv.Atoi(u.Gid)
	must(t, err)
	must(t, os.Chown(dir, uid, gid))
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
