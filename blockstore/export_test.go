package blockstore

import (
	"context"
	"testing"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// FileName is the name of a value's file.
func FileName(hash tinycloud.Hash) string { return fileName(hash) }

// IndexRoundTrip puts a manifest into the index and reads it back.
func (s *Store) IndexRoundTrip(ctx context.Context, space tinycloud.SpaceID, value tinycloud.Hash, m Manifest) (Manifest, error) {
	if err := s.index.put(ctx, space, value, m); err != nil {
		return Manifest{}, err
	}
	return s.index.value(ctx, space, value)
}

// SyncEvery has assemblies sync after so many chunks until the test ends.
func SyncEvery(t *testing.T, chunks int) {
	before := syncEvery
	syncEvery = chunks
	t.Cleanup(func() { syncEvery = before })
}

// ReadAhead has all long values be read ahead.
func (s *S3) ReadAhead() { s.eager = true }

// Slow is [slow].
func Slow(waited, took time.Duration, n int64) bool { return slow(waited, took, n) }
