package main

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// dumped is a database server with the programs that copy one of its databases to another, as operators do.
type dumped struct {
	database *testservers.Database
	dump     func(from *url.URL) *exec.Cmd // writes to its standard output
	load     func(to *url.URL) *exec.Cmd   // reads its standard input
}

func mariadbClient(program string, u *url.URL, options ...string) *exec.Cmd {
	password, _ := u.User.Password()
	cmd := exec.Command(program, append(options, "--protocol=TCP", "--host="+u.Hostname(), "--port="+u.Port(),
		"--user="+u.User.Username(), strings.TrimPrefix(u.Path, "/"))...)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+password)
	return cmd
}

// TestBackupOfServers backs a node up while it is written to, first its database and then its values, and restores
// both elsewhere: all that was acknowledged before is there, whole.
func TestBackupOfServers(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) dumped{
		"Postgres": func(t *testing.T) dumped {
			return dumped{
				testservers.Postgres(t),
				func(u *url.URL) *exec.Cmd { return exec.Command("pg_dump", "--dbname="+u.String()) },
				func(u *url.URL) *exec.Cmd {
					return exec.Command("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname="+u.String())
				},
			}
		},
		"MariaDB": func(t *testing.T) dumped {
			return dumped{
				testservers.MariaDB(t),
				func(u *url.URL) *exec.Cmd {
					return mariadbClient("mariadb-dump", u, "--single-transaction", "--hex-blob")
				},
				func(u *url.URL) *exec.Cmd { return mariadbClient("mariadb", u) },
			}
		},
	} {
		for _, where := range []string{"files", "S3"} {
			t.Run(name+" and "+where, func(t *testing.T) {
				t.Parallel()
				g := startGroup(t, 0)
				backUpAndRestore(g, open(t), where == "S3")
			})
		}
	}
}

func backUpAndRestore(g *group, d dumped, bucket bool) {
	g.Helper()
	secret := "TINYCLOUD_KEYS_SECRET=" + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("of a backup ", 6)))
	fresh, values := d.database.New(), [2]string{g.TempDir(), g.TempDir()}
	env := func(i int, dsn string) []string {
		return []string{secret, "TINYCLOUD_STORAGE_DATABASE=" + dsn, "TINYCLOUD_STORAGE_BLOCKS_PATH=" + values[i]}
	}
	if bucket {
		one := testservers.S3(g.T)
		two := one.New()
		values = [2]string{one.Dir(), two.Dir()}
		env = func(i int, dsn string) []string {
			return append(s3Env([]*testservers.Bucket{one, two}[i]), secret, "TINYCLOUD_STORAGE_DATABASE="+dsn)
		}
	}
	g.nodes = cluster.New(cluster.Options{Binary: g.binary, Dir: g.TempDir(), Env: env(0, d.database.DSN)})
	p := g.add()
	large := strings.Repeat("too large for the database. ", 5000)
	before := map[string]string{"large": large}
	g.put(p, "large", large)
	for i := range 50 {
		key := fmt.Sprint("before/", i)
		before[key] = key
		g.put(p, key, key)
	}
	end := g.keepWriting(p)
	dump := filepath.Join(g.TempDir(), "dump")
	g.backUp(d, dump, values)
	end()

	load := d.load(g.dsn(fresh.DSN))
	in, err := os.Open(dump)
	g.must(err)
	defer in.Close() //nolint:errcheck // only read
	load.Stdin = in
	if out, err := load.CombinedOutput(); err != nil {
		g.Fatalf("restore: %v %.500s", err, out)
	}
	restored := cluster.New(cluster.Options{Binary: g.binary, Dir: g.TempDir(), Env: env(1, fresh.DSN)})
	g.Cleanup(func() { g.must(restored.Close()) })
	q, err := restored.Add(g.ctx)
	g.must(err)
	g.readsAll(q, before)
	if v, err := q.Admin.Space(g.ctx, g.owner.Space); err != nil || v.Void != 0 || v.Wants != 0 {
		g.Errorf("restored: %+v %v", v, err)
	}
}

func (g *group) dsn(text string) *url.URL {
	g.Helper()
	u, err := url.Parse(text)
	g.must(err)
	return u
}

// backUp copies the database first: then all values that it names are copied.
func (g *group) backUp(d dumped, dump string, values [2]string) {
	g.Helper()
	out, err := os.Create(dump)
	g.must(err)
	cmd := d.dump(g.dsn(d.database.DSN))
	cmd.Stdout = out
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		g.Fatalf("backup: %v %s", err, said.String())
	}
	g.must(out.Close())
	if out, err := exec.Command("cp", "-a", values[0]+"/.", values[1]).CombinedOutput(); err != nil {
		g.Fatalf("values: %v %s", err, out)
	}
}

// keepWriting writes to a peer until the returned function is called.
func (g *group) keepWriting(p *cluster.Peer) (end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := g.owner.Put(g.ctx, p, fmt.Sprintf("meanwhile/%d/%d", w, n), []byte("x")); err != nil {
					g.Errorf("write during the backup: %v", err)
					return
				}
			}
		})
	}
	return func() {
		close(stop)
		wg.Wait()
	}
}

// TestCollectBucket frees what is left in a bucket, and only while no process that shares it is running.
func TestCollectBucket(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	bucket := testservers.S3(t)
	g.nodes = cluster.New(cluster.Options{
		Binary: g.binary, Dir: t.TempDir(), Env: append(s3Env(bucket), "TINYCLOUD_STORAGE_DATABASE="+testservers.Postgres(t).DSN,
			"TINYCLOUD_KEYS_SECRET="+base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("of a bucket ", 6)))),
	})
	p := g.add()
	twin, err := g.nodes.Add(g.ctx)
	g.must(err)
	objects := func() (n int) {
		g.must(filepath.WalkDir(bucket.Dir(), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !strings.Contains(path, ".sgwtmp") {
				n++
			}
			return err
		}))
		return n
	}
	old, kept := strings.Repeat("old ", 50_000), strings.Repeat("new ", 50_000)
	g.put(p, "k", old)
	g.put(p, "k", kept)
	if n := objects(); n != 2 {
		t.Errorf("%d objects", n)
	}
	g.must(p.Stop())
	if out, err := p.Verb(g.ctx, "gc"); err == nil || !strings.Contains(out, "a node is running") {
		t.Errorf("gc beside a running node: %v %s", err, out)
	}
	g.must(twin.Stop())
	if out, err := p.Verb(g.ctx, "gc"); err != nil || !strings.Contains(out, "freed 1 values") {
		t.Errorf("gc: %v %s", err, out)
	}
	if n := objects(); n != 1 {
		t.Errorf("%d objects after gc", n)
	}
	if out, err := p.Verb(g.ctx, "verify"); err != nil {
		t.Errorf("verify: %v %s", err, out)
	}
	g.must(p.Start(g.ctx))
	g.reads("k", kept, p)
	g.put(p, "k2", old)
	g.reads("k2", old, p)
}
