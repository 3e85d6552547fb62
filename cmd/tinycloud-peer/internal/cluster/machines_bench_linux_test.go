package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// BenchmarkMachines measures puts of 1 KiB over HTTP by 64 clients to 64 Spaces, of one, two and four processes that share a
// PostgreSQL over a way of 5 ms in each direction; who puts into a Space asks one of them. Clients cost little, see
// [BenchmarkHTTPReady]. A process gets as much of the processors as there is, or a part of one alone: as if it had a small
// machine of its own, so that what the database and the clients need is there as well. That takes control groups, as root.
func BenchmarkMachines(b *testing.B) {
	for _, share := range []float64{0, 0.1} {
		for _, processes := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("share=%v/processes=%d", share, processes), func(b *testing.B) { benchMachines(b, share, processes) })
		}
	}
}

func benchMachines(b *testing.B, share float64, processes int) {
	const spaces, clients = 64, 64
	dsn := testservers.Distant(b, testservers.Postgres(b).DSN, 5*time.Millisecond, 0)
	c := cluster.New(cluster.Options{Binary: program(b), Dir: b.TempDir(), Env: on(&testservers.Database{DSN: dsn})})
	b.Cleanup(func() { _ = c.Close() })
	for range processes {
		if _, err := c.Add(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	owners := make([]*cluster.Owner, spaces)
	at := func(i int) *cluster.Peer { return c.Peers()[i%spaces%processes] }
	for i := range owners {
		owners[i] = cluster.NewOwner(fmt.Sprint("space", i))
		defer owners[i].Close()
		if err := hosted(b.Context(), owners[i], at(i)); err != nil {
			b.Fatal(err)
		}
	}
	free := make([]lines, processes)
	for i, p := range c.Peers() {
		free[i] = dialLines(b, p, clients)
	}
	puts := func(n int, of string) func(context.Context, int) error {
		requests := make([][]byte, n)
		for i := range requests {
			requests[i] = invocation(at(i), owners[i%spaces].Token(fmt.Sprintf("kv/%s/%d", of, i), "tinycloud.kv/put"), value(i))
		}
		return func(_ context.Context, i int) error { return free[i%spaces%processes].ask(requests[i], 0) }
	}
	const first = 20 * spaces
	drive(b, clients, first, puts(first, "first")) // what is asked, and prepared, for the first time
	for _, p := range c.Peers() {
		limit(b, p, share)
	}
	measured(b, c.Peers(), clients, puts(b.N, "measured"))
}

// limit gives a peer a part of a processor until the end of a benchmark, 0 for no limit.
func limit(b *testing.B, p *cluster.Peer, share float64) {
	if share == 0 {
		return
	}
	const period = 10 * time.Millisecond
	quota := int64(share * float64(period.Microseconds()))
	group, files := "/sys/fs/cgroup/cpu", map[string]string{"cpu.cfs_period_us": fmt.Sprint(period.Microseconds()), "cpu.cfs_quota_us": fmt.Sprint(quota)}
	if _, err := os.Stat(group); err != nil {
		group, files = "/sys/fs/cgroup", map[string]string{"cpu.max": fmt.Sprint(quota, " ", period.Microseconds())}
	}
	pid := strconv.Itoa(p.PID())
	own := filepath.Join(group, "tinycloud-bench-"+pid)
	if err := os.Mkdir(own, 0o700); err != nil {
		b.Skip(err)
	}
	files["cgroup.procs"] = pid
	b.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0o600) // unless it has ended
		if err := os.Remove(own); err != nil {
			b.Error(err)
		}
	})
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(own, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
