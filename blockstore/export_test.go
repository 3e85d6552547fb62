package blockstore

import (
	"context"

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
