package capstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql"
)

// resident is how much memory the process has, in bytes, of what no file is behind.
func resident(b *testing.B) (n float64) {
	b.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("RssAnon:"))
	if _, err := fmt.Sscan(string(rest), &n); err != nil {
		b.Fatal(err)
	}
	return n * 1024
}

// BenchmarkSQLMemory measures what 1,000 databases take in memory that were written and read a while ago, of which as many are open
// as are by default, and what one takes that is open: with a table of a hundred rows, for one that writes and one that reads.
func BenchmarkSQLMemory(b *testing.B) {
	const databases, open = 1000, 200
	x := newBenchSQL(b, "bench")
	x.sql = sql.New(sql.Options{Dir: b.TempDir(), Idle: time.Second})
	db := func(i int) string { return fmt.Sprint("db", i) }
	tokens := x.tokens(2*databases+2*open, "write", func(i int) string {
		if i >= 2*databases {
			return db((i - 2*databases) % open)
		}
		return db(i % databases)
	})
	use := func(i int, body string) {
		if _, err := x.invoke(tokens[i], body); err != nil {
			b.Fatal(err)
		}
	}
	before := resident(b)
	for i := range databases {
		use(i, benchTable)
		use(databases+i, fmt.Sprintf(benchInsert, i, i))
	}
	b.ReportMetric((resident(b)-before)/(1<<20), "written-MiB") // with what the history remembers of 2,000 writes
	x.idle()
	b.ReportMetric((resident(b)-before)/(1<<20), "idle-MiB")
	if err := x.sql.Close(); err != nil {
		b.Fatal(err)
	}
	before = resident(b)
	x.sql = sql.New(sql.Options{Dir: b.TempDir(), Open: open})
	b.Cleanup(func() { _ = x.sql.Close() })
	for i := range open {
		use(2*databases+i, fmt.Sprintf(benchInsert, i, i))
		use(2*databases+i+open, `{"action":"query","sql":"SELECT count(*) FROM t"}`)
	}
	b.ReportMetric((resident(b)-before)/open/(1<<10), "KiB/open")
}

// idle has databases be closed that nobody uses.
func (x *benchSQL) idle() {
	ctx, cancel := context.WithTimeout(x.b.Context(), 3*time.Second)
	defer cancel()
	x.sql.Follow(ctx, x.s)
}
