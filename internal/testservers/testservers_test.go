//go:build unix

package testservers_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// databases tests a kind of server: what was written before a kill is there after it.
func databases(t *testing.T, d *testservers.Database) {
	d.Exec("CREATE TABLE a (x INTEGER)")
	d.Exec("INSERT INTO a VALUES (41)")
	other := d.New()
	other.Exec("CREATE TABLE a (x INTEGER)")
	if other.DSN == d.DSN || other.Addr != d.Addr || !strings.Contains(d.DSN, d.Addr) {
		t.Errorf("%q and %q at %s and %s", d.DSN, other.DSN, d.Addr, other.Addr)
	}
	d.Kill9()
	wantDown(t, d.Addr)
	d.Start()
	if got := d.Exec("SELECT x + 1 FROM a"); got != "42" {
		t.Errorf("%q is left, want 42", got)
	}
	if got := other.Exec("SELECT count(*) FROM a"); got != "0" {
		t.Errorf("%q rows in the other database, want 0", got)
	}
}

func wantDown(t *testing.T, addr string) {
	t.Helper()
	if c, err := net.Dial("tcp", addr); err == nil {
		t.Errorf("%s still answers", addr)
		c.Close()
	}
}

func TestPostgres(t *testing.T) { databases(t, testservers.Postgres(t)) }

func TestMariaDB(t *testing.T) {
	d := testservers.MariaDB(t)
	databases(t, d)
	if tmp := d.Exec("SELECT @@tmpdir"); tmp == os.TempDir() {
		t.Errorf("temporary tables are in %s, which other servers clean as they start", tmp)
	}
}

func TestS3(t *testing.T) {
	b := testservers.S3(t)
	if _, err := os.Stat(b.Dir()); err != nil {
		t.Error(err)
	}
	get := func() error {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
		res, err := client.Get(b.Endpoint + "/" + b.Name)
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("a request without signature is answered %s", res.Status)
		}
		return res.Body.Close()
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	b.Pause()
	if err := get(); err == nil {
		t.Error("it answers while paused")
	}
	b.Resume()
	if err := get(); err != nil {
		t.Error(err)
	}
	b.Kill9()
	wantDown(t, b.Addr)
	b.Start()
	if err := get(); err != nil {
		t.Error(err)
	}
}

// TestShared runs a package's worth of tests.
func TestShared(t *testing.T) {
	var servers testservers.Shared
	var addr, dir string
	code := servers.Main(tests(func() int {
		for range 2 {
			t.Run("test", func(t *testing.T) {
				d := servers.Postgres(t)
				d.Exec("CREATE TABLE a (x INTEGER)")
				if addr != "" && d.Addr != addr {
					t.Errorf("server at %s, then another at %s", addr, d.Addr)
				}
				addr, dir = d.Addr, servers.S3(t).Dir()
			})
			if _, err := os.Stat(dir); err == nil {
				t.Error("the bucket outlives its test")
			}
		}
		return 7
	})).Run()
	if code != 7 {
		t.Errorf("exit code %d", code)
	}
	wantDown(t, addr)
	if _, err := os.Stat(filepath.Dir(filepath.Dir(dir))); err == nil {
		t.Error("data outlives the servers")
	}
}

type tests func() int

func (f tests) Run() int { return f() }

// TestACME finds that the server has a directory and roots, of which others are made when it starts again.
func TestACME(t *testing.T) {
	a := testservers.ACME(t, 0)
	before := a.Roots()
	if a.HTTP == a.TLS || !strings.HasSuffix(a.Directory, "/dir") {
		t.Errorf("%+v", a)
	}
	a.Kill9()
	wantDown(t, a.Addr)
	a.Start()
	if a.Roots().Equal(before) {
		t.Error("it is the server from before")
	}
}
