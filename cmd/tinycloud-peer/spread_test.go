package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/node"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// spreadSpaces are those of the test; in each a writer writes.
const spreadSpaces = 16

// Two processes of a database replicate each its own Spaces with a second host. Round by round one of them is killed under
// 16 writers, and started again: nothing that was acknowledged is lost, on any process or the second host, and all Spaces
// are replicated again within 10 s. SPREAD_ROUNDS says how often; without it the test is left out, since a lease has to
// run out each time. SPREAD_PEER is another program for the second host, such as one of an older release.
func TestKilledProcessesSpacesMove(t *testing.T) {
	if os.Getenv("SPREAD_ROUNDS") == "" {
		t.Skip("set SPREAD_ROUNDS to the number of kills")
	}
	rounds := scale(t, "SPREAD_ROUNDS", 1)
	g := startGroup(t, 0)
	g.longer(rounds)
	env := append(s3Env(testservers.S3(t)), "TINYCLOUD_STORAGE_DATABASE="+testservers.Postgres(t).DSN,
		"TINYCLOUD_KEYS_SECRET="+base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("spread ", 8))))
	shared := cluster.New(cluster.Options{Binary: g.binary, Dir: t.TempDir(), Env: env})
	t.Cleanup(func() { g.must(shared.Close()) })
	var twins []*cluster.Peer
	for range 2 {
		p, err := shared.Add(g.ctx)
		g.must(err)
		twins = append(twins, p)
	}
	g.awaitShards(twins, 32)
	if other := os.Getenv("SPREAD_PEER"); other != "" {
		g.nodes.Run(other)
	}
	outsider, err := g.nodes.Add(g.ctx)
	g.must(err)
	var writers []*spreadWriter
	for i := range spreadSpaces {
		w := &spreadWriter{g: g, o: cluster.NewOwner("default"), acked: map[string]string{}}
		t.Cleanup(w.o.Close)
		writers = append(writers, w)
		g.must(w.o.Host(g.ctx, twins[i%2]))
		g.must(w.o.Host(g.ctx, outsider))
		g.must(w.o.Join(g.ctx, outsider, twins[i%2]))
		for _, p := range []*cluster.Peer{twins[i%2], outsider} {
			_, err := w.o.SignIn(g.ctx, p)
			g.must(err)
		}
	}
	var longest time.Duration
	for n := range rounds {
		killed := rand.IntN(2)
		var stop atomic.Bool
		var writing sync.WaitGroup
		for i, w := range writers {
			writing.Go(func() {
				pace := time.NewTicker(100 * time.Millisecond)
				defer pace.Stop()
				for k := 0; !stop.Load() && g.ctx.Err() == nil; k++ {
					w.put(fmt.Sprintf("%d/%d", n, k), twins, (i+k)%2)
					<-pace.C
				}
			})
		}
		g.must(cluster.Poll(g.ctx, 50*time.Millisecond, func() (bool, error) { return writers[0].count() > 5*(n+1), nil }))
		g.oneEach(writers, twins)
		front := g.hasFront(twins[killed])
		g.must(twins[killed].Kill())
		died := time.Now()
		g.must(cluster.Each(writers, func(_ int, w *spreadWriter) error {
			key := fmt.Sprintf("after/%d", n)
			w.put(key, twins, 1-killed)
			return cluster.Poll(g.ctx, 20*time.Millisecond, func() (bool, error) { return w.has(outsider, key) })
		}))
		took := time.Since(died)
		longest = max(longest, took)
		t.Logf("round %d: with the front: %t; all Spaces replicate again after %s", n, front, took.Round(time.Millisecond))
		if took > 10*time.Second {
			t.Errorf("round %d: taken over in %s", n, took)
		}
		g.must(twins[killed].Start(g.ctx))
		g.awaitShards(twins, 32)
		stop.Store(true)
		writing.Wait()
		g.must(cluster.Each(writers, func(_ int, w *spreadWriter) error {
			_, err := w.o.AwaitSame(g.ctx, []*cluster.Peer{twins[0], twins[1], outsider})
			return err
		}))
	}
	var all, lost atomic.Int64
	g.must(cluster.Each(writers, func(_ int, w *spreadWriter) error {
		for key, value := range w.acked {
			all.Add(1)
			p := []*cluster.Peer{twins[0], twins[1], outsider}[rand.IntN(3)] // their states are equal
			got, err := w.o.Get(g.ctx, p, key)
			if errors.Is(err, tinycloud.ErrNotFound) || err == nil && string(got) != value {
				lost.Add(1)
				t.Errorf("%s: %s of %s is %q, %v", p.Name, key, w.o.Space, got, err)
			} else if err != nil {
				return err
			}
		}
		return nil
	}))
	t.Logf("%d rounds, %d acknowledged writes, %d lost, taken over within %s", rounds, all.Load(), lost.Load(), longest.Round(time.Millisecond))
}

// spreadWriter writes in one Space by any process that answers.
type spreadWriter struct {
	g *group
	o *cluster.Owner

	mu    sync.Mutex
	acked map[string]string // guarded by mu
}

func (w *spreadWriter) put(key string, processes []*cluster.Peer, first int) {
	for try := first; w.g.ctx.Err() == nil; try++ {
		if err := w.o.Put(w.g.ctx, processes[try%len(processes)], key, []byte(key)); err == nil {
			break
		}
		_ = cluster.Poll(w.g.ctx, 20*time.Millisecond, func() (bool, error) { return true, nil })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[key] = key
}

func (w *spreadWriter) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func (w *spreadWriter) has(p *cluster.Peer, key string) (bool, error) {
	got, err := w.o.Get(w.g.ctx, p, key)
	if errors.Is(err, tinycloud.ErrNotFound) || errors.Is(err, tinycloud.ErrUnavailable) {
		err = nil
	}
	return string(got) == key, err
}

// awaitShards waits until each process has as many shards.
func (g *group) awaitShards(peers []*cluster.Peer, want float64) {
	g.Helper()
	g.must(cluster.Poll(g.ctx, 50*time.Millisecond, func() (bool, error) {
		for _, p := range peers {
			values, _, err := p.Metrics(g.ctx)
			if err != nil || values["tinycloud_replicated_shards"] != want {
				return false, err
			}
		}
		return true, nil
	}))
}

// hasFront says whether a process is the one that is reached by other nodes.
func (g *group) hasFront(p *cluster.Peer) bool {
	g.Helper()
	v, err := p.Admin.Node(g.ctx)
	g.must(err)
	return len(v.Addrs) > 0
}

// oneEach checks that each Space is replicated by one process.
func (g *group) oneEach(writers []*spreadWriter, processes []*cluster.Peer) {
	g.Helper()
	by := map[string]int{}
	for _, w := range writers {
		var does []string
		for _, p := range processes {
			if g.view(p, w.o).Activity != node.ActivityElsewhere {
				does = append(does, p.Name)
			}
		}
		if len(does) != 1 {
			g.Errorf("%s is replicated by %q", w.o.Space, does)
			continue
		}
		by[does[0]]++
	}
	g.Logf("Spaces of the processes: %v", by)
}
