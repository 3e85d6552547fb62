package blockstore_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// BenchmarkDurablePut compares the two places a value can be in: a file of this package, and a row in the
// transaction of the database that has to be written anyway (WAL, synchronous=FULL, one writer that commits
// what is queued). "both" is a file and then the row that names it, which is what a put above the inline
// limit costs; "row" is what one below it costs.
func BenchmarkDurablePut(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, writers := range []int{1, 16} {
			for _, where := range []string{"row", "file", "both"} {
				b.Run(fmt.Sprintf("%dKiB/%dw/%s", size>>10, writers, where), func(b *testing.B) { benchPut(b, size, writers, where) })
			}
		}
	}
}

func benchPut(b *testing.B, size, writers int, where string) {
	ctx, dir := b.Context(), b.TempDir()
	space := blockstoretest.Space(b, "default")
	s, err := blockstore.Open(ctx, blockstore.Options{Dir: filepath.Join(dir, "blocks"), InlineLimit: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	db := openRows(b, filepath.Join(dir, "caps.db"))
	defer db.close()
	model := blockstoretest.Body(1, size)
	var next, failed atomic.Int64
	latencies := make([][]time.Duration, writers)
	b.SetBytes(int64(size))
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			body := slices.Clone(model)
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				binary.BigEndian.PutUint64(body, uint64(n))
				begin := time.Now()
				if err := put(ctx, s, db, space, body, where); err != nil {
					failed.Add(1)
				}
				latencies[w] = append(latencies[w], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	if n := failed.Load(); n > 0 {
		b.Fatalf("%d puts failed", n)
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}

func put(ctx context.Context, s *blockstore.Store, db *rows, space tinycloud.SpaceID, body []byte, where string) error {
	hash := tinycloud.Sum(body)
	switch where {
	case "file":
		return s.PutValue(ctx, space, hash, body)
	case "both":
		if err := s.PutValue(ctx, space, hash, body); err != nil {
			return err
		}
		return db.put(hash, nil)
	}
	return db.put(hash, body)
}

// rows is a table with one writer, which commits all that is queued in one transaction.
type rows struct {
	db    *sql.DB
	queue chan row
	done  chan struct{}
}

type row struct {
	hash tinycloud.Hash
	body []byte
	err  chan error
}

func openRows(b *testing.B, path string) *rows {
	b.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE value (hash BLOB PRIMARY KEY, body BLOB)"); err != nil {
		b.Fatal(err)
	}
	r := &rows{db: db, queue: make(chan row, 64), done: make(chan struct{})}
	go r.run()
	return r
}

func (r *rows) put(hash tinycloud.Hash, body []byte) error {
	err := make(chan error, 1)
	r.queue <- row{hash, body, err}
	return <-err
}

func (r *rows) run() {
	defer close(r.done)
	for first := range r.queue {
		group := []row{first}
		for more := true; more; {
			select {
			case next, open := <-r.queue:
				if more = open; open {
					group = append(group, next)
				}
			default:
				more = false
			}
		}
		err := r.commit(group)
		for _, w := range group {
			w.err <- err
		}
	}
}

func (r *rows) commit(group []row) error {
	tx, err := r.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, w := range group {
		if _, err := tx.Exec("INSERT INTO value VALUES (?, ?)", w.hash[:], w.body); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (r *rows) close() {
	close(r.queue)
	<-r.done
	r.db.Close()
}
