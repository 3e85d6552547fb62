package main

import (
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// TestStorageOutOfReach starts nodes whose storage cannot be used. Each ends soon, naming the setting and the cause.
func TestStorageOutOfReach(t *testing.T) {
	t.Parallel()
	postgres, mariadb, bucket := testservers.Postgres(t), testservers.MariaDB(t), testservers.S3(t)
	closed := func(dsn, addr string) string { return strings.ReplaceAll(dsn, addr, "127.0.0.1:1") }
	other := func(dsn string) string { return strings.Replace(dsn, "@", "x@", 1) }
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	wrong := *bucket
	wrong.SecretKey = "wrong"
	away := *bucket
	away.Endpoint = "http://127.0.0.1:1"
	missing := *bucket
	missing.Name = "no-such-bucket"
	readOnly := t.TempDir()
	if err := syscall.Mount("tmpfs", readOnly, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
		t.Fatalf("a disk that cannot be written (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(readOnly, 0); err != nil {
			t.Error(err)
		}
	})
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"read-only blocks":   {[]string{"TINYCLOUD_STORAGE_BLOCKS_PATH=" + readOnly + "/blocks"}, "storage.blocks.path"},
		"read-only database": {[]string{"TINYCLOUD_STORAGE_DATABASE=sqlite:" + readOnly + "/caps.db"}, "storage.database"},

		"Postgres, nobody there":     {[]string{"TINYCLOUD_STORAGE_DATABASE=" + closed(postgres.DSN, postgres.Addr)}, "storage.database"},
		"Postgres, wrong password":   {[]string{"TINYCLOUD_STORAGE_DATABASE=" + other(postgres.DSN)}, "storage.database"},
		"Postgres, no such database": {[]string{"TINYCLOUD_STORAGE_DATABASE=" + strings.Replace(postgres.DSN, "?", "x?", 1)}, "storage.database"},
		"MariaDB, nobody there":      {[]string{"TINYCLOUD_STORAGE_DATABASE=" + closed(mariadb.DSN, mariadb.Addr)}, "storage.database"},
		"MariaDB, wrong password":    {[]string{"TINYCLOUD_STORAGE_DATABASE=" + other(mariadb.DSN)}, "storage.database"},
		"S3, nobody there":           {s3Env(&away), "storage.blocks.endpoint"},
		"S3, wrong secret":           {s3Env(&wrong), "AWS_"},
		"S3, no such bucket":         {s3Env(&missing), "storage.blocks.bucket"},
		"path is a file":             {[]string{"TINYCLOUD_STORAGE_BLOCKS_PATH=" + file}, "storage.blocks.path"},
		"database in a file":         {[]string{"TINYCLOUD_STORAGE_DATABASE=sqlite:" + file + "/caps.db"}, "storage.database"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGroup(t, 0)
			g.nodes = cluster.New(cluster.Options{Binary: g.binary, Dir: t.TempDir(), Env: c.env})
			began := time.Now()
			_, err := g.nodes.Add(g.ctx)
			if err == nil || !strings.Contains(err.Error(), "exit status") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an end that names %s: %v", c.want, err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("ended after %s", took)
			}
		})
	}
}

// TestNewerSchema starts a node on databases that a later version of the program has changed.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	postgres, mariadb := testservers.Postgres(t), testservers.MariaDB(t)
	const later = "INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000000, %s)"
	for name, c := range map[string]struct {
		env   []string
		later func(*cluster.Peer) error
	}{
		"Postgres": {[]string{"TINYCLOUD_STORAGE_DATABASE=" + postgres.DSN}, func(*cluster.Peer) error {
			postgres.Exec(fmt.Sprintf(later, "true"))
			return nil
		}},
		"MariaDB": {[]string{"TINYCLOUD_STORAGE_DATABASE=" + mariadb.DSN}, func(*cluster.Peer) error {
			mariadb.Exec(fmt.Sprintf(later, "1"))
			return nil
		}},
		"sqlite": {nil, func(p *cluster.Peer) error {
			db, err := sql.Open("sqlite", filepath.Join(p.Dir, "data", "caps.db"))
			if err == nil {
				_, err = db.Exec(fmt.Sprintf(later, "1"))
			}
			return errors.Join(err, db.Close())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := startGroup(t, 0)
			g.nodes = cluster.New(cluster.Options{Binary: g.binary, Dir: t.TempDir(), Env: c.env})
			p, err := g.nodes.Add(g.ctx)
			g.must(err)
			g.must(p.Stop())
			g.must(c.later(p))
			err = p.Start(g.ctx)
			if err == nil || !strings.Contains(err.Error(), "storage.database") || !strings.Contains(err.Error(), "newer") {
				t.Errorf("start on a newer schema: %v", err)
			}
		})
	}
}

// TestTwoProcessesAreOneHost has two processes with one secret share a Postgres and a bucket, and a third peer on its
// own replicate the Space with them. What is written through one process is at once read through the other; their
// log is one chain; when the process that leads the swarm dies the other takes over.
func TestTwoProcessesAreOneHost(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0)
	env := append(s3Env(testservers.S3(t)), "TINYCLOUD_STORAGE_DATABASE="+testservers.Postgres(t).DSN,
		"TINYCLOUD_KEYS_SECRET="+base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("one host ", 8))))
	shared := cluster.New(cluster.Options{Binary: g.binary, Dir: t.TempDir(), Env: env})
	t.Cleanup(func() { g.must(shared.Close()) })
	var twins []*cluster.Peer
	for range 2 {
		p, err := shared.Add(g.ctx)
		g.must(err)
		twins = append(twins, p)
	}
	g.must(g.owner.Host(g.ctx, twins[0]))
	_, err := g.owner.SignIn(g.ctx, twins[1])
	g.must(err)

	leader, other := g.leader(twins), 0
	if leader == 0 {
		other = 1
	}
	outsider, err := g.nodes.Add(g.ctx)
	g.must(err)
	g.must(g.owner.Host(g.ctx, outsider))
	g.must(g.owner.Join(g.ctx, outsider, twins[leader]))

	large := strings.Repeat("in the bucket ", 20_000)
	all := map[string]string{}
	var mu sync.Mutex
	g.must(cluster.Each(make([]struct{}, 16), func(w int, _ struct{}) error {
		for n := range 15 {
			key, value := fmt.Sprintf("%d/%d", w, n), fmt.Sprintf("%d.%d", w, n)
			if n == 7 {
				value = large
			}
			from, to := twins[(w+n)%2], twins[(w+n+1)%2]
			if err := g.owner.Put(g.ctx, from, key, []byte(value)); err != nil {
				return err
			}
			got, err := g.owner.Get(g.ctx, to, key)
			if err != nil || string(got) != value {
				return fmt.Errorf("%s through %s: %.40q %w", key, to.Name, got, err)
			}
			mu.Lock()
			all[key] = value
			mu.Unlock()
		}
		return nil
	}))
	v := g.same(twins[0], twins[1], outsider)
	if len(v.Hosts) != 2 {
		t.Errorf("hosts %+v", v.Hosts)
	}
	for _, h := range v.Hosts {
		if h.Forked {
			t.Errorf("a log with forks: %+v", h)
		}
	}
	g.readsAll(outsider, all)

	g.must(twins[leader].Kill())
	died := time.Now()
	g.put(twins[other], "after", "the other took over")
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		got, err := g.owner.Get(g.ctx, outsider, "after")
		if errors.Is(err, tinycloud.ErrNotFound) || errors.Is(err, tinycloud.ErrUnavailable) {
			err = nil
		}
		return string(got) == "the other took over", err
	}))
	took := time.Since(died)
	t.Logf("a write reached the outsider %s after the leader's death", took.Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("took %s", took)
	}
	g.put(outsider, "back", "from outside")
	g.same(twins[other], outsider)
	g.must(twins[leader].Start(g.ctx))
	g.readsAll(twins[leader], all, map[string]string{"after": "the other took over", "back": "from outside"})
}

// leader waits until one of the processes has the Space's peer and returns which.
func (g *group) leader(peers []*cluster.Peer) (leads int) {
	g.Helper()
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		for i, p := range peers {
			v, err := p.Admin.Space(g.ctx, g.owner.Space)
			if err != nil {
				return false, err
			}
			if len(v.Addrs) > 0 {
				leads = i
				return true, nil
			}
		}
		return false, nil
	}))
	return leads
}
