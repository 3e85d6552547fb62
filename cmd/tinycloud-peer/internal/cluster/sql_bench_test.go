package cluster_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// askSQL has a peer carry out a request on a database, and returns its answer.
func askSQL(ctx context.Context, o *cluster.Owner, p *cluster.Peer, db, ability, body string) (string, error) {
	a, err := o.Call(ctx, p, http.MethodPost, "/invoke", o.Token("sql/"+db, "tinycloud.sql/"+ability), nil, strings.NewReader(body))
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%s answers %d %s", p.Name, a.Status, a.Body)
	}
	return a.Body, err
}

const table = `{"action":"execute","sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)"}`

func insert(i int) string {
	return fmt.Sprintf(`{"action":"execute","sql":"INSERT INTO t(name, n) VALUES(?, ?)","params":["name %d",%d]}`, i, i)
}

func must(b *testing.B, o *cluster.Owner, p *cluster.Peer, db, ability, body string) string {
	b.Helper()
	out, err := askSQL(b.Context(), o, p, db, ability, body)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// BenchmarkSQL measures durable inserts and look-ups of a row over HTTP, against a process of its own on disk.
func BenchmarkSQL(b *testing.B) {
	c, o := hosts(b, 1, false)
	p := c.Peers()[0]
	for i := range 16 {
		must(b, o, p, fmt.Sprint("db", i), "write", table)
	}
	for i := range 100 {
		must(b, o, p, "db0", "write", insert(i))
	}
	execute := func(databases int) func(context.Context, int) error {
		return func(ctx context.Context, i int) error {
			_, err := askSQL(ctx, o, p, fmt.Sprint("db", i%databases), "write", insert(i))
			return err
		}
	}
	look := func(ctx context.Context, i int) error {
		out, err := askSQL(ctx, o, p, "db0", "read", fmt.Sprintf(`{"action":"query","sql":"SELECT name, n FROM t WHERE id = ?","params":[%d]}`, 1+i%100))
		if err == nil && !strings.Contains(out, fmt.Sprintf("name %d", i%100)) {
			err = fmt.Errorf("row %d: %s", i%100, out)
		}
		return err
	}
	for _, tt := range []struct {
		name    string
		clients int
		writes  int // a second, beside
		op      func(ctx context.Context, i int) error
	}{
		{"execute/clients=1", 1, 0, execute(1)},
		{"execute/clients=16/databases=1", 16, 0, execute(1)},
		{"execute/clients=16/databases=16", 16, 0, execute(16)},
		{"query/clients=16", 16, 0, look},
		{"query/clients=4/writes=500", 4, 500, look},
		{"query/clients=16/writes=500", 16, 500, look},
	} {
		b.Run(tt.name, func(b *testing.B) {
			stop := atRate(b, tt.writes, func(ctx context.Context, i int) error {
				_, err := askSQL(ctx, o, p, "db0", "write", insert(i))
				return err
			})
			took := drive(b, tt.clients, b.N, tt.op)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			percentiles(b, took)
			b.StopTimer()
			stop()
		})
	}
}

// atRate does something so many times a second, until what it returns is called.
func atRate(b *testing.B, rate int, f func(ctx context.Context, i int) error) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	if rate > 0 {
		wg.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(rate))
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				wg.Go(func() {
					if err := f(b.Context(), i); err != nil {
						b.Error(err)
					}
				})
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// BenchmarkSQLLive measures, at 100 writes a second, from the answer to an insert on one process to the row being read on another.
func BenchmarkSQLLive(b *testing.B) {
	c, o := hosts(b, 2, true)
	from, to := c.Peers()[0], c.Peers()[1]
	must(b, o, from, "db", "write", table)
	took := make([]time.Duration, b.N)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var reading sync.WaitGroup
	b.ResetTimer()
	for i := range b.N {
		<-tick.C
		must(b, o, from, "db", "write", insert(i))
		begin := time.Now()
		reading.Go(func() {
			took[i] = sees(b, o, to, i, begin)
		})
	}
	reading.Wait()
	percentiles(b, took)
}

// sees waits until a peer has a row, and returns how long it took.
func sees(b *testing.B, o *cluster.Owner, p *cluster.Peer, i int, begin time.Time) time.Duration {
	for {
		out, err := askSQL(b.Context(), o, p, "db", "read", fmt.Sprintf(`{"action":"query","sql":"SELECT count(*) FROM t WHERE n = %d"}`, i))
		if strings.Contains(out, "[[1]]") {
			return time.Since(begin)
		}
		if err != nil && !strings.Contains(out, "no such table") || time.Since(begin) > 10*time.Second {
			b.Errorf("row %d: %s %v", i, out, err)
			return time.Since(begin)
		}
		time.Sleep(time.Millisecond) // leaves the two cores to the processes
	}
}

// BenchmarkSQLTogether has two processes write a table at once, 200 times a second each, b.N times in all, and measures how long
// their answers took, and from an answer on one to the row on the other; then both have the same rows.
func BenchmarkSQLTogether(b *testing.B) {
	c, o := hosts(b, 2, true)
	must(b, o, c.Peers()[0], "db", "write", table)
	if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
		b.Fatal(err)
	}
	took, lag := make([]time.Duration, b.N), make([]time.Duration, b.N)
	var wg sync.WaitGroup
	before := processor(b, c.Peers())
	b.ResetTimer()
	for k, p := range c.Peers() {
		other := c.Peers()[1-k]
		wg.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for i := k; i < b.N; i += 2 {
				<-tick.C
				wg.Go(func() {
					begin := time.Now()
					if _, err := askSQL(b.Context(), o, p, "db", "write", insert(i)); err != nil {
						b.Error(err)
						return
					}
					took[i] = time.Since(begin)
					if i%20 < 2 {
						lag[i] = sees(b, o, other, i, time.Now())
					}
				})
			}
		})
	}
	wg.Wait()
	percentiles(b, took)
	lag = slices.DeleteFunc(lag, func(d time.Duration) bool { return d == 0 })
	slices.Sort(lag)
	b.ReportMetric(lag[len(lag)/2].Seconds()*1e3, "lag-p50-ms")
	b.ReportMetric(lag[len(lag)*99/100].Seconds()*1e3, "lag-p99-ms")
	b.ReportMetric((processor(b, c.Peers())-before)*1e3/float64(b.N), "cpu-ms/write")
	if _, err := o.AwaitSame(b.Context(), c.Peers()); err != nil {
		b.Fatal(err)
	}
	const all = `{"action":"query","sql":"SELECT count(*), sum(id * n), group_concat(name) FROM (SELECT * FROM t ORDER BY id)"}`
	if p, q := must(b, o, c.Peers()[0], "db", "read", all), must(b, o, c.Peers()[1], "db", "read", all); p != q || !strings.Contains(p, fmt.Sprintf("[[%d,", b.N)) {
		b.Fatalf("they differ: %.80s %.80s", p, q)
	}
}

// BenchmarkSQLCatchUp has an empty process join one with a database of so many writes, until it answers with all of them executed.
func BenchmarkSQLCatchUp(b *testing.B) {
	c, o := hosts(b, 1, false)
	from := c.Peers()[0]
	must(b, o, from, "db", "write", table)
	drive(b, 16, b.N, func(ctx context.Context, i int) error {
		_, err := askSQL(ctx, o, from, "db", "write", insert(i))
		return err
	})
	to := newcomer(b, c, o)
	b.ResetTimer()
	if err := o.Join(b.Context(), to, from); err != nil {
		b.Fatal(err)
	}
	awaitEntries(b, to, float64(b.N))
	want := fmt.Sprintf("[[%d]]", b.N)
	err := cluster.Poll(b.Context(), 50*time.Millisecond, func() (bool, error) {
		out, _ := askSQL(b.Context(), o, to, "db", "read", `{"action":"query","sql":"SELECT count(*) FROM t"}`)
		return strings.Contains(out, want), nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

// processor is how much time of processors peers have taken, in seconds.
func processor(b *testing.B, peers []*cluster.Peer) (sum float64) {
	b.Helper()
	for _, p := range peers {
		m, _, err := p.Metrics(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		sum += m["process_cpu_seconds_total"]
	}
	return sum
}

// target is what writes to a database are measured on.
type target struct {
	name      string
	processes int
	env       []string

	peers []*cluster.Peer
	owner *cluster.Owner
	took  time.Duration
}

func on(d *testservers.Database) []string {
	return []string{"TINYCLOUD_STORAGE_DATABASE=" + d.DSN, "TINYCLOUD_KEYS_SECRET=" + base64.RawURLEncoding.EncodeToString(make([]byte, 64))}
}

// BenchmarkSQLServers measures durable inserts of 16 clients into one table over HTTP on every database, b.N times in turns of 160
// so that all have the same machine: each a second, and as parts of what SQLite does.
func BenchmarkSQLServers(b *testing.B) {
	inTurns(b, []target{
		{name: "sqlite", processes: 1},
		{name: "postgres", processes: 1, env: on(testservers.Postgres(b))},
		{name: "mariadb", processes: 1, env: on(testservers.MariaDB(b))},
	})
}

// BenchmarkSQLProcesses measures the same of one, two and three processes that write one table.
func BenchmarkSQLProcesses(b *testing.B) {
	postgres, mariadb := testservers.Postgres(b), testservers.MariaDB(b)
	inTurns(b, []target{
		{name: "postgres-1", processes: 1, env: on(postgres)},
		{name: "postgres-2", processes: 2, env: on(postgres.New())},
		{name: "postgres-3", processes: 3, env: on(postgres.New())},
		{name: "mariadb-1", processes: 1, env: on(mariadb)},
		{name: "mariadb-2", processes: 2, env: on(mariadb.New())},
	})
}

func inTurns(b *testing.B, targets []target) {
	b.Helper()
	for i := range targets {
		t := &targets[i]
		c, o := hosts(b, t.processes, false, t.env...)
		t.peers, t.owner = c.Peers(), o
		must(b, o, t.peers[0], "db", "write", table)
	}
	const turn = 160
	n := b.N * turn
	for done := 0; done < n; done += turn {
		for i := range targets {
			t := &targets[i]
			begin := time.Now()
			drive(b, 16, turn, func(ctx context.Context, i int) error {
				_, err := askSQL(ctx, t.owner, t.peers[i%len(t.peers)], "db", "write", insert(done+i))
				return err
			})
			t.took += time.Since(begin)
		}
	}
	for _, t := range targets {
		b.ReportMetric(float64(n)/t.took.Seconds(), t.name+"/s")
		if t.name != targets[0].name {
			b.ReportMetric(targets[0].took.Seconds()/t.took.Seconds(), t.name+"-of-"+targets[0].name)
		}
		for _, p := range t.peers {
			if got := must(b, t.owner, p, "db", "read", `{"action":"query","sql":"SELECT count(*) FROM t"}`); !strings.Contains(got, fmt.Sprintf("[[%d]]", n)) {
				b.Errorf("%s: %s has %s rows, not %d", t.name, p.Name, got, n)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}
