package capstore_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// benchSQL is a store on disk with databases, and their owner with a session.
type benchSQL struct {
	b       *testing.B
	s       *capstore.Store
	sql     *sql.Service
	owner   *captest.Wallet
	space   tinycloud.SpaceID
	session *captest.SessionKey
	proof   tinycloud.Hash
	n       int
}

// newBenchSQL makes a store of some name that hosts the Space of a user, whose other hosts are named too.
func newBenchSQL(b *testing.B, name string, hosts ...string) *benchSQL {
	b.Helper()
	return newBenchSQLAt(b, newDatabase(b), name, hosts...)
}

func newBenchSQLAt(b *testing.B, path, name string, hosts ...string) *benchSQL {
	b.Helper()
	x := &benchSQL{b: b, sql: sql.New(sql.Options{Dir: b.TempDir()}), owner: captest.NewWallet("bench"), session: captest.NewSession("bench")}
	b.Cleanup(func() { _ = x.sql.Close() })
	s, stop := runStore(b, capstore.Options{Services: servicetest.Services(x.sql), Database: path, Keys: keys(name)})
	b.Cleanup(stop)
	x.s, x.space = s, x.owner.Space("default")
	header := x.owner.SignDelegation(captest.DelegationOptions{
		Audience: x.session.URI(), Expires: time.Now().Add(time.Hour), IssuedAt: time.Now(), Nonce: "nonce " + name,
		Caps: captest.Caps{x.space.String() + "/sql": {"tinycloud.sql/*"}},
	})
	x.proof = captest.ID(header)
	for _, h := range append([]string{name}, hosts...) {
		delegateAll(b, s, x.owner.SignHost(x.space, hostlog.Key(keys(h).SpaceKey(x.space).Public().(ed25519.PublicKey)).String()))
	}
	delegateAll(b, s, header)
	return x
}

// tokens signs n invocations on databases.
func (x *benchSQL) tokens(n int, ability string, db func(i int) string) []*capstore.Token {
	x.b.Helper()
	out := make([]*capstore.Token, n)
	for i := range out {
		x.n++
		var err error
		out[i], err = capstore.ParseInvocation(x.session.Invoke(captest.TokenOptions{
			Caps:   captest.Caps{x.space.String() + "/sql/" + db(i): {"tinycloud.sql/" + ability}},
			Proofs: []tinycloud.Hash{x.proof}, Expires: time.Now().Add(290 * time.Second), Nonce: fmt.Sprint(x.n),
		}))
		if err != nil {
			x.b.Fatal(err)
		}
	}
	return out
}

func (x *benchSQL) invoke(tok *capstore.Token, body string) (string, error) {
	if err := x.s.Admit(x.b.Context(), tok); err != nil {
		return "", err
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(x.b.Context(), http.MethodPost, "/invoke", strings.NewReader(body))
	err := x.sql.Invoke(w, r, service.Call{Store: x.s, Token: tok, Space: x.space, Ability: tok.Caps[0].Ability})
	return w.Body.String(), err
}

func (x *benchSQL) must(db, ability, body string) string {
	x.b.Helper()
	out, err := x.invoke(x.tokens(1, ability, func(int) string { return db })[0], body)
	if err != nil {
		x.b.Fatal(body, err)
	}
	return out
}

const (
	benchTable  = `{"action":"execute","sql":"CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)"}`
	benchInsert = `{"action":"execute","sql":"INSERT INTO t(name, n) VALUES(?, ?)","params":["name %d",%d]}`
	benchQuery  = `{"action":"query","sql":"SELECT name, n FROM t WHERE id = ?","params":[%d]}`
)

// timed calls f for 0 … n-1 from so many callers, and reports how many a second and how long they took.
func timed(b *testing.B, callers, n int, f func(i int) error) {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				begin := time.Now()
				if err := f(i); err != nil {
					b.Error(i, err)
				}
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(n)/time.Since(begin).Seconds(), "requests/s")
	slices.Sort(took)
	b.ReportMetric(took[n/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[n*99/100].Seconds()*1e3, "p99-ms")
}

// BenchmarkSQLExecute measures durable inserts, without HTTP, by callers on some databases.
func BenchmarkSQLExecute(b *testing.B) {
	for _, tt := range []struct{ callers, databases int }{{1, 1}, {16, 1}, {16, 16}} {
		b.Run(fmt.Sprintf("callers=%d/databases=%d", tt.callers, tt.databases), func(b *testing.B) {
			x := newBenchSQL(b, "bench")
			db := func(i int) string { return fmt.Sprint("db", i%tt.databases) }
			for i := range tt.databases {
				x.must(db(i), "write", benchTable)
			}
			toks := x.tokens(b.N, "write", db)
			b.ResetTimer()
			timed(b, tt.callers, b.N, func(i int) error {
				_, err := x.invoke(toks[i], fmt.Sprintf(benchInsert, i, i))
				return err
			})
		})
	}
}

// BenchmarkSQLServers measures the same of 16 callers on one database of each kind, in b.N turns of 320 so that all have the same
// machine: each a second, and as parts of what SQLite does.
func BenchmarkSQLServers(b *testing.B) {
	const turn = 320
	kinds := []struct {
		name string
		path string
		x    *benchSQL
		toks []*capstore.Token
		took time.Duration
	}{
		{name: "sqlite", path: filepath.Join(b.TempDir(), "caps.db")},
		{name: "postgres", path: testservers.Postgres(b).DSN},
		{name: "mariadb", path: testservers.MariaDB(b).DSN},
	}
	for k := range kinds {
		kind := &kinds[k]
		kind.x = newBenchSQLAt(b, kind.path, "bench")
		kind.x.must("db", "write", benchTable)
		kind.toks = kind.x.tokens(turn*b.N, "write", func(int) string { return "db" })
	}
	for done := 0; done < turn*b.N; done += turn {
		for k := range kinds {
			kind := &kinds[k]
			begin := time.Now()
			timed(b, 16, turn, func(i int) error {
				_, err := kind.x.invoke(kind.toks[done+i], fmt.Sprintf(benchInsert, i, i))
				return err
			})
			kind.took += time.Since(begin)
		}
	}
	for _, kind := range kinds {
		b.ReportMetric(float64(turn*b.N)/kind.took.Seconds(), kind.name+"/s")
		b.ReportMetric(kinds[0].took.Seconds()/kind.took.Seconds(), kind.name+"-of-sqlite")
	}
	for _, of := range []string{"ns/op", "requests/s", "p50-ms", "p99-ms"} {
		b.ReportMetric(0, of)
	}
}

// BenchmarkSQLQuery measures look-ups of a row by 16 callers, alone and beside 500 inserts a second.
func BenchmarkSQLQuery(b *testing.B) {
	const rows = 1000
	for _, writes := range []int{0, 500} {
		b.Run(fmt.Sprint("writes=", writes), func(b *testing.B) {
			x := newBenchSQL(b, "bench")
			x.must("db", "write", benchTable)
			var all []string
			for i := range rows {
				all = append(all, fmt.Sprintf(`{"sql":"INSERT INTO t(name, n) VALUES('name %d', %d)"}`, i+1, i+1))
			}
			x.must("db", "write", `{"action":"batch","statements":[`+strings.Join(all, ",")+`]}`)
			toks := x.tokens(b.N, "read", func(int) string { return "db" })
			stop, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				x.writeAtRate(writes, stop)
			}()
			b.ResetTimer()
			timed(b, 16, b.N, func(i int) error {
				out, err := x.invoke(toks[i], fmt.Sprintf(benchQuery, 1+i%rows))
				if err == nil && !strings.Contains(out, fmt.Sprintf(`[["name %d",%d]]`, 1+i%rows, 1+i%rows)) {
					err = errors.New(out)
				}
				return err
			})
			close(stop)
			<-ended
		})
	}
}

// writeAtRate inserts so many rows a second from as many callers as it takes.
func (x *benchSQL) writeAtRate(rate int, stop <-chan struct{}) {
	if rate == 0 {
		return
	}
	toks := x.tokens(60*rate, "write", func(int) string { return "db" })
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, tok := range toks {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		wg.Go(func() {
			if _, err := x.invoke(tok, fmt.Sprintf(benchInsert, i, i)); err != nil {
				x.b.Error(err)
			}
		})
	}
}

// fill inserts n rows from 64 callers.
func (x *benchSQL) fill(n int) {
	x.b.Helper()
	toks := x.tokens(n, "write", func(int) string { return "db" })
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if _, err := x.invoke(toks[i], fmt.Sprintf(benchInsert, i, i)); err != nil {
					x.b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// fresh forgets all files of databases.
func (x *benchSQL) fresh() {
	x.b.Helper()
	if err := x.sql.Close(); err != nil {
		x.b.Fatal(err)
	}
	x.sql = sql.New(sql.Options{Dir: x.b.TempDir()})
	x.b.Cleanup(func() { _ = x.sql.Close() })
}

// BenchmarkSQLRebuild makes a database of some writes anew from the history.
func BenchmarkSQLRebuild(b *testing.B) {
	x := newBenchSQL(b, "bench")
	x.must("db", "write", benchTable)
	x.fill(b.N)
	x.fresh()
	b.ResetTimer()
	out := x.must("db", "read", `{"action":"query","sql":"SELECT count(*) FROM t"}`)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	if !strings.Contains(out, fmt.Sprintf("[[%d]]", b.N)) {
		b.Fatal(out)
	}
}

// BenchmarkSQLMerge has two hosts write a table apart, half of the writes each, and measures from when all is here until it is
// executed in order.
func BenchmarkSQLMerge(b *testing.B) {
	x, y := newBenchSQL(b, "bench", "other"), newBenchSQL(b, "other", "bench")
	x.must("db", "write", benchTable)
	give(b, x.s, y.s, x.space)
	x.n, y.n = 1<<30, 2<<30 // nonces differ
	x.fill(b.N / 2)
	y.fill(b.N / 2)
	give(b, x.s, y.s, x.space)
	give(b, y.s, x.s, x.space)
	b.ResetTimer()
	want := fmt.Sprintf("[[%d]]", b.N/2*2)
	for _, s := range []*benchSQL{x, y} {
		begin := time.Now()
		if out := s.must("db", "read", `{"action":"query","sql":"SELECT count(*) FROM t"}`); !strings.Contains(out, want) {
			b.Fatal(out, want)
		}
		b.ReportMetric(time.Since(begin).Seconds()*1e3, map[bool]string{true: "first-ms", false: "second-ms"}[s == x])
	}
	all := `{"action":"query","sql":"SELECT sum(id * n), group_concat(name) FROM t WHERE id % 97 = 0"}`
	if p, q := x.must("db", "read", all), y.must("db", "read", all); p != q {
		b.Fatal("they differ: ", p, q)
	}
}

// give has a store take what another has of a Space.
func give(b *testing.B, from, to *capstore.Store, space tinycloud.SpaceID) {
	b.Helper()
	for {
		have, err := to.Tips(b.Context(), space)
		if err != nil {
			b.Fatal(err)
		}
		var bundles []hostlog.Bundle
		if err := from.Missing(b.Context(), space, have, 512, func(x hostlog.Bundle) error { bundles = append(bundles, x); return nil }); err != nil {
			b.Fatal(err)
		}
		if len(bundles) == 0 {
			return
		}
		for some := range slices.Chunk(bundles, 512) {
			if a, err := to.Apply(b.Context(), space, some); err != nil || a.New == 0 {
				b.Fatal(a, err)
			}
		}
	}
}
