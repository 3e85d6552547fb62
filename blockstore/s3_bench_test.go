package blockstore_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// BenchmarkPlaces measures puts and gets of values in files and in a bucket, which is near or at the end of a way that delays
// each way, and on which a connection carries so many MB/s, if it is bounded. A long value is got as the store reads it, and in
// ranges of 8 MiB from its beginning, four at once.
func BenchmarkPlaces(b *testing.B) {
	b.Run("files", func(b *testing.B) { benchPlace(b, nil) })
	for _, way := range []struct {
		delay time.Duration
		rate  int
	}{{0, 0}, {5 * time.Millisecond, 0}, {5 * time.Millisecond, 85}, {25 * time.Millisecond, 85}} {
		b.Run(fmt.Sprintf("S3/delay=%s/rate=%d", way.delay, way.rate), func(b *testing.B) {
			s3 := settings(servers.S3(b))
			if way.delay > 0 {
				s3.Endpoint = testservers.Distant(b, s3.Endpoint, way.delay, way.rate*1_000_000)
			}
			benchPlace(b, s3)
		})
	}
}

func benchPlace(b *testing.B, s3 *blockstore.S3) {
	s, err := blockstore.Open(b.Context(), blockstore.Options{Dir: b.TempDir(), S3: s3})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	space := blockstoretest.Space(b, "default")
	for _, size := range []int{256 << 10, 64 << 20} {
		callers := 16
		if size > 1<<20 {
			callers = 1
		}
		model, count := blockstoretest.Body(1, size), atomic.Uint64{}
		put := func() (tinycloud.Hash, error) {
			body := slices.Clone(model)
			binary.BigEndian.PutUint64(body, count.Add(1))
			return tinycloud.Sum(body), store(b.Context(), s, space, body)
		}
		hash, err := put()
		if err != nil {
			b.Fatal(err)
		}
		run := func(what string, f func() error) {
			b.Run(fmt.Sprintf("%s/%dKiB/%dc", what, size>>10, callers), func(b *testing.B) {
				b.SetBytes(int64(size))
				var all errgroup.Group
				all.SetLimit(callers)
				for range b.N {
					all.Go(f)
				}
				if err := all.Wait(); err != nil {
					b.Fatal(err)
				}
			})
		}
		run("put", func() error { _, err := put(); return err })
		read := func(f func(v *blockstore.Value) error) func() error {
			return func() error {
				v, n, err := s.Open(b.Context(), space, hash)
				if err != nil || n != int64(size) {
					return errors.Join(fmt.Errorf("a value of %d bytes", n), err)
				}
				return errors.Join(f(v), v.Close())
			}
		}
		run("get", read(func(v *blockstore.Value) error {
			_, err := io.Copy(io.Discard, v)
			return err
		}))
		if callers > 1 {
			continue
		}
		run("get in ranges", read(func(v *blockstore.Value) error {
			const part = 8 << 20
			var parts errgroup.Group
			parts.SetLimit(4)
			for at := int64(0); at < int64(size); at += part {
				parts.Go(func() error {
					_, err := v.ReadAt(make([]byte, part), at)
					return err
				})
			}
			return parts.Wait()
		}))
	}
}
