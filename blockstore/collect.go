package blockstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Collect deletes the values of a Space that were last put before an instant and that held does not know,
// and returns what they took. A value that is being put again meanwhile is kept, as long as its row follows
// within the time that before leaves. The error is of class [tinycloud.ErrUnsupported] for a bucket, where
// other processes may be putting values.
func (s *Store) Collect(ctx context.Context, space tinycloud.SpaceID, before time.Time, held func(tinycloud.Hash) (bool, error)) (freed Usage, err error) {
	f, ok := s.values.(*files)
	if !ok {
		return freed, fmt.Errorf("values in a bucket are not collected: %w", tinycloud.ErrUnsupported)
	}
	err = s.Walk(ctx, space, func(hash tinycloud.Hash, size int64) error {
		gone, err := s.collect(ctx, f, space, hash, before, held)
		if gone {
			freed.Values, freed.Bytes = freed.Values+1, freed.Bytes+size
		}
		return err
	})
	return freed, err
}

func (s *Store) collect(ctx context.Context, f *files, space tinycloud.SpaceID, hash tinycloud.Hash, before time.Time, held func(tinycloud.Hash) (bool, error)) (bool, error) {
	path, err := f.path(space, hash)
	if err != nil {
		return false, err
	}
	defer s.lock(hash)()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, f.fault(err)
	}
	if !info.ModTime().Before(before) {
		return false, nil
	}
	if ok, err := held(hash); ok || err != nil {
		return false, err
	}
	if err := f.remove(ctx, space, hash); err != nil {
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
