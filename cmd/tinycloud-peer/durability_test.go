package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// storage is a choice of databases and of block stores.
type storage struct {
	env    []string            // settings of a node
	outage *testservers.Server // the server that may be killed; nil where all is in files
	kind   string              // of that server
}

func s3Env(b *testservers.Bucket) []string {
	return []string{
		"TINYCLOUD_STORAGE_BLOCKS_TYPE=S3", "TINYCLOUD_STORAGE_BLOCKS_BUCKET=" + b.Name,
		"TINYCLOUD_STORAGE_BLOCKS_ENDPOINT=" + b.Endpoint, "AWS_ACCESS_KEY_ID=" + b.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + b.SecretKey, "AWS_DEFAULT_REGION=" + b.Region,
	}
}

// storages are the combinations that are promised to keep what was acknowledged.
var storages = map[string]func(*testing.T) storage{
	"sqlite and files": func(*testing.T) storage { return storage{} },
	"Postgres and files": func(t *testing.T) storage {
		d := testservers.Postgres(t)
		return storage{env: []string{"TINYCLOUD_STORAGE_DATABASE=" + d.DSN}, outage: &d.Server, kind: "Postgres"}
	},
	"MariaDB and files": func(t *testing.T) storage {
		d := testservers.MariaDB(t)
		return storage{env: []string{"TINYCLOUD_STORAGE_DATABASE=" + d.DSN}, outage: &d.Server, kind: "MariaDB"}
	},
	"Postgres and S3": func(t *testing.T) storage {
		d, b := testservers.Postgres(t), testservers.S3(t)
		return storage{env: append(s3Env(b), "TINYCLOUD_STORAGE_DATABASE="+d.DSN), outage: &b.Server, kind: "S3"}
	},
}

// rounds is how often each storage is killed: DURABILITY_ROUNDS.
func rounds(t *testing.T) int {
	t.Helper()
	text, ok := os.LookupEnv("DURABILITY_ROUNDS")
	if !ok {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("DURABILITY_ROUNDS: %q", text)
	}
	return n
}

// TestDurability kills the node, or the server that holds its data, under 16 writers at a random moment, again and
// again. The clients' own log says what was acknowledged: all of it is there afterwards.
func TestDurability(t *testing.T) {
	t.Parallel()
	for name, open := range storages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			g := startGroup(t, 0)
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(rounds(t))*time.Minute, errors.New("not in time"))
			defer cancel()
			g.ctx = ctx
			g.nodes = cluster.New(cluster.Options{Binary: g.binary, Dir: t.TempDir(), Env: s.env})
			p := g.add()
			all := map[string]string{}
			for round := range rounds(t) {
				var crash func()
				switch {
				case s.outage == nil || round%2 == 0:
					crash = func() { g.must(p.Kill()) }
				default:
					crash = s.outage.Kill9
				}
				log := g.writeUntil(p, round, 200+rand.IntN(200), crash)
				if s.outage != nil && round%2 == 1 {
					g.unhealthy(p)
					s.outage.Start()
					g.recovered(p)
				} else {
					g.must(p.Start(g.ctx))
				}
				if len(log) < 200 {
					t.Fatalf("round %d: only %d writes were acknowledged", round, len(log))
				}
				g.readsAll(p, log)
				maps.Copy(all, log)
			}
			g.must(p.Kill())
			g.must(p.Start(g.ctx))
			g.readsAll(p, all)
			if v, err := p.Admin.Space(g.ctx, g.owner.Space); err != nil || v.Void != 0 {
				t.Errorf("history: %+v %v", v, err)
			}
			t.Logf("%d acknowledged writes, all there", len(all))
		})
	}
}

// writeUntil has 16 clients write until some writes were acknowledged, then lets the crash happen under them. It
// returns what was acknowledged.
func (g *group) writeUntil(p *cluster.Peer, round, after int, crash func()) map[string]string {
	g.Helper()
	var mu sync.Mutex
	log := map[string]string{}
	enough, crashed := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(enough) })
	var count atomic.Int64
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				key, value := fmt.Sprintf("%d/%d/%d", round, w, n), fmt.Sprintf("%d.%d.%d ", round, w, n)
				if n%8 == 7 {
					value = strings.Repeat(value, 12_000) // beyond what the database keeps itself
				}
				err := g.owner.Put(g.ctx, p, key, []byte(value))
				if err == nil {
					mu.Lock()
					log[key] = value
					mu.Unlock()
					if count.Add(1) >= int64(after) {
						once()
					}
					continue
				}
				select {
				case <-crashed:
					return // not acknowledged: it may be there or not
				case <-g.ctx.Done():
					return
				default:
				}
			}
		})
	}
	select {
	case <-enough:
	case <-g.ctx.Done():
	}
	crash()
	close(crashed)
	wg.Wait()
	return log
}

// unhealthy waits until a node says that its storage is gone, and sees it refuse with 503.
func (g *group) unhealthy(p *cluster.Peer) {
	g.Helper()
	g.health(p, http.StatusServiceUnavailable)
	large := strings.Repeat("large", 20_000)
	if err := g.owner.Put(g.ctx, p, "refused", []byte(large)); !errors.Is(err, tinycloud.ErrUnavailable) {
		g.Errorf("put without storage: %v", err)
	}
}

// recovered waits until a node has its storage again, without a restart.
func (g *group) recovered(p *cluster.Peer) {
	g.Helper()
	began := time.Now()
	g.health(p, http.StatusOK)
	g.must(cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) {
		return g.owner.Put(g.ctx, p, "recovered", []byte("yes")) == nil, nil
	}))
	g.Logf("recovered after %s", time.Since(began).Round(time.Millisecond))
}

func (g *group) health(p *cluster.Peer, status int) {
	g.Helper()
	var a cluster.Answer
	err := cluster.Poll(g.ctx, 20*time.Millisecond, func() (ok bool, err error) {
		a, err = g.owner.Call(g.ctx, p, http.MethodGet, "/healthz", "", nil, nil)
		return a.Status == status, err
	})
	if err != nil {
		g.Fatalf("health: %v; last %d", err, a.Status)
	}
	if status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
		g.Errorf("health without Retry-After: %v", a.Header)
	}
}
