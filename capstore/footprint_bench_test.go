package capstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/servicetest"
)

// BenchmarkFootprint tells how much room Spaces take: 1,000 Spaces of one put of 1 KiB each in the database and in memory,
// while they are loaded and after a start, and then 2,000 puts in one of them. For docs/scale.md.
func BenchmarkFootprint(b *testing.B) {
	for _, kind := range []string{onSQLite, onPostgres, onMySQL} {
		b.Run(kind, func(b *testing.B) {
			const spaces, puts = 1000, 2000
			dsn, disk := measured(b)
			open := func() (*capstore.Store, func()) {
				return runStore(b, capstore.Options{Services: servicetest.Services(), Database: dsn, Keys: keys("footprint")})
			}
			s, stop := open()
			write := func(o *owner, first int, toks []*capstore.Token) {
				for i, tok := range toks {
					if err := s.Admit(b.Context(), tok); err != nil {
						b.Fatal(err)
					}
					if _, err := kv.Of(s).Write(b.Context(), tok, []kv.Op{benchValue(o.space, first+i)}, nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			o, toks := benchOwner(b, s, "footprint", "first", 1+puts)
			write(o, 0, toks[:1])
			room, heap := disk(), live()
			for i := range spaces {
				other, one := benchOwner(b, s, "footprint", fmt.Sprint("user ", i), 1)
				write(other, 0, one)
			}
			b.ReportMetric(float64(disk()-room)/spaces, "disk-B/space")
			b.ReportMetric(float64(live()-heap)/spaces, "heap-B/loaded-space")
			stop()
			s = nil
			before := live()
			s, stop = open()
			b.ReportMetric(float64(live()-before)/spaces, "heap-B/space-after-start")
			room, heap = disk(), live()
			write(o, 1, toks[1:])
			b.ReportMetric(float64(disk()-room)/puts, "disk-B/put")
			b.ReportMetric(float64(live()-heap)/puts, "heap-B/put")
			stop()
			runtime.KeepAlive(toks)
		})
	}
}

// measured returns a new database, and how many bytes it takes on its disk.
func measured(b *testing.B) (dsn string, disk func() int64) {
	b.Helper()
	if kind(b) == onSQLite {
		dsn = newDatabase(b)
		return dsn, func() (n int64) {
			db, err := sql.Open("sqlite", "file:"+dsn+"?_pragma=query_only(1)")
			if err == nil {
				err = db.QueryRow("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").Scan(&n)
			}
			if err = errors.Join(err, db.Close()); err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	d, query := newServerDatabase(b), "SELECT pg_database_size(current_database())"
	if kind(b) == onMySQL {
		query = "SELECT sum(file_size) FROM information_schema.innodb_sys_tablespaces WHERE name LIKE concat(database(), '/%')"
	}
	return d.DSN, func() int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(d.Exec(query)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
}

// live returns the bytes of the heap that are in use.
func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkKnownSpaces tells what it takes to start with a million Spaces in SQLite, of which one is real and the others
// are rows with all that the start reads of them.
func BenchmarkKnownSpaces(b *testing.B) {
	const spaces = 1_000_000
	dsn, disk := measured(b)
	open := func() (*capstore.Store, func()) {
		return runStore(b, capstore.Options{Services: servicetest.Services(), Database: dsn, Keys: keys("known")})
	}
	s, stop := open()
	o, _ := benchOwner(b, s, "known", "first", 0)
	stop()
	s = nil
	db, err := sql.Open("sqlite", "file:"+dsn)
	if err == nil {
		_, err = db.ExecContext(b.Context(), `WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?)
			INSERT INTO spaces (space, host, state, created, rules, removed)
			SELECT replace(s.space, ':default', ':s' || n), randomblob(32), s.state, s.created, s.rules, s.removed FROM i, spaces s WHERE s.sid = 1`, spaces)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		b.Fatal(err)
	}
	before, began, cpu := live(), time.Now(), cpuTime(b)
	s, stop = open()
	took, used := time.Since(began), cpuTime(b)-cpu
	b.ReportMetric(float64(live()-before)/spaces, "heap-B/space")
	b.ReportMetric(took.Seconds(), "s-to-open")
	b.ReportMetric(used.Seconds(), "cpu-s-to-open")
	b.ReportMetric(float64(disk())/spaces, "disk-B/space")
	if last, err := tinycloud.ParseSpaceID(strings.Replace(o.space.String(), ":default", fmt.Sprint(":s", spaces), 1)); err != nil || !s.Hosted(last) {
		b.Fatal("the last Space is not known", err)
	}
	stop()
}
