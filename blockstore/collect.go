package blockstore

import (
	"context"
	"errors"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Collect deletes the values of a Space that were last put before an instant and that held does not know,
// and returns what they took. A value that is being put again meanwhile is kept, as long as its row follows
// within the time that before leaves. That a value is put again is not seen in a bucket: there nobody may put
// values meanwhile.
func (s *Store) Collect(ctx context.Context, space tinycloud.SpaceID, before time.Time, held func(tinycloud.Hash) (bool, error)) (freed Usage, err error) {
	err = s.Walk(ctx, space, func(hash tinycloud.Hash, size int64) error {
		gone, err := s.collect(ctx, space, hash, before, held)
		if gone {
			freed.Values, freed.Bytes = freed.Values+1, freed.Bytes+size
		}
		return err
	})
	return freed, err
}

func (s *Store) collect(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, before time.Time, held func(tinycloud.Hash) (bool, error)) (bool, error) {
	defer s.lock(hash)()
	if ok, err := held(hash); ok || err != nil {
		return false, err
	}
	put, err := s.values.modified(ctx, space, hash)
	if errors.Is(err, tinycloud.ErrNotFound) {
		return false, nil
	}
	if err != nil || !put.Before(before) {
		return false, err
	}
	if err := s.values.remove(ctx, space, hash); err != nil {
		return false, err
	}
	return true, s.index.drop(ctx, space, hash)
}

// Compact gives the space of what was deleted from the chunk index back to the file system.
func (s *Store) Compact(ctx context.Context) error {
	if err := s.index.ds.CollectGarbage(ctx); err != nil {
		return s.values.fault(err)
	}
	return nil
}
