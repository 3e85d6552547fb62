package blockstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// servers is the S3 service of the tests that don't hurt it.
var servers testservers.Shared

func TestMain(m *testing.M) {
	// Two goroutines of the index's database outlive its failing to open. One left open by us has others.
	goleak.VerifyTestMain(servers.Main(m),
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

func TestLocal(t *testing.T) {
	blockstoretest.Run(t, func(t *testing.T) blockstoretest.Place {
		dir := t.TempDir()
		return func(o blockstore.Options) (*blockstore.Store, error) {
			o.Dir = dir
			return blockstore.Open(t.Context(), o)
		}
	})
}

func TestS3(t *testing.T) {
	blockstoretest.Run(t, func(t *testing.T) blockstoretest.Place {
		bucket, dir := servers.S3(t), t.TempDir()
		return func(o blockstore.Options) (*blockstore.Store, error) {
			o.Dir, o.S3 = dir, settings(bucket)
			return blockstore.Open(t.Context(), o)
		}
	})
}
