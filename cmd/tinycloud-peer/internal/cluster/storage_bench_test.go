package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/cluster"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// backend is a choice of storage and a way to see how much of a disk it takes.
type backend struct {
	env  []string
	size func(b *testing.B, p *cluster.Peer) int64 // bytes
}

// database is the bytes that a server says a database takes.
func database(d *testservers.Database, query string) func(*testing.B, *cluster.Peer) int64 {
	return func(b *testing.B, _ *cluster.Peer) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(d.Exec(query)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
}

func postgres(b *testing.B) backend {
	d := testservers.Postgres(b)
	return backend{[]string{"TINYCLOUD_STORAGE_DATABASE=" + d.DSN}, database(d, "SELECT pg_database_size(current_database())")}
}

var backends = map[string]func(*testing.B) backend{
	"sqlite,files": func(*testing.B) backend {
		return backend{nil, func(b *testing.B, p *cluster.Peer) int64 {
			if err := p.Stop(); err != nil { // so that the log of the database is in the database
				b.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(p.Dir, "data", "caps.db"))
			if err != nil {
				b.Fatal(err)
			}
			if err := p.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			return info.Size()
		}}
	},
	"postgres,files": postgres,
	"mariadb,files": func(b *testing.B) backend {
		d := testservers.MariaDB(b)
		return backend{[]string{"TINYCLOUD_STORAGE_DATABASE=" + d.DSN}, database(d,
			"SELECT sum(file_size) FROM information_schema.innodb_sys_tablespaces WHERE name LIKE concat(database(), '/%')")}
	},
	"postgres,s3": func(b *testing.B) backend {
		p, s := postgres(b), testservers.S3(b)
		p.env = append(p.env, "TINYCLOUD_STORAGE_BLOCKS_TYPE=S3", "TINYCLOUD_STORAGE_BLOCKS_BUCKET="+s.Name,
			"TINYCLOUD_STORAGE_BLOCKS_ENDPOINT="+s.Endpoint, "AWS_ACCESS_KEY_ID="+s.AccessKey,
			"AWS_SECRET_ACCESS_KEY="+s.SecretKey, "AWS_DEFAULT_REGION="+s.Region)
		return p
	},
}

// BenchmarkStorage measures puts and gets of 1 KiB, and of 256 KiB, which are in the block store, on every storage.
func BenchmarkStorage(b *testing.B) {
	for name, open := range backends {
		b.Run(name, func(b *testing.B) {
			s := open(b)
			c, o := hosts(b, 1, false, s.env...)
			p := c.Peers()[0]
			if err := o.Put(b.Context(), p, "read", value(0)); err != nil {
				b.Fatal(err)
			}
			before, puts := s.size(b, p), 0
			for _, clients := range []int{1, 16} {
				for _, op := range []string{"put", "get"} {
					b.Run(fmt.Sprintf("%s/clients=%d", op, clients), func(b *testing.B) {
						first := puts
						took := drive(b, clients, b.N, func(ctx context.Context, i int) error {
							if op == "get" {
								_, err := o.Get(ctx, p, "read")
								return err
							}
							return o.Put(ctx, p, fmt.Sprint("k/", first+i), value(first+i))
						})
						if op == "put" {
							puts += b.N
						}
						b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
						percentiles(b, took)
					})
				}
			}
			b.Run("disk", func(b *testing.B) {
				b.ReportMetric(float64(s.size(b, p)-before)/float64(max(puts, 1))*1000/1e6, "MB/1000-puts")
			})
			large := []byte(strings.Repeat("x", 256<<10))
			b.Run("put256k/clients=4", func(b *testing.B) {
				took := drive(b, 4, b.N, func(ctx context.Context, i int) error {
					return o.Put(ctx, p, fmt.Sprint("large/", i), append([]byte(fmt.Sprint(b.N, i)), large...))
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
				percentiles(b, took)
			})
		})
	}
}
