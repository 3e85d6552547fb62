package blockstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Manifest returns the manifest of a value, for the one who tells a peer where to find it; without Links
// if the value is its own block. A value whose index entry is missing is indexed first, which reads it.
// The error is of class [tinycloud.ErrNotFound] also for a file whose bytes are not the value's: no peer
// can be given it.
func (s *Store) Manifest(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (Manifest, error) {
	size, err := s.Size(ctx, space, hash)
	if err != nil || size <= ChunkSize {
		return Manifest{Size: size}, err
	}
	m, err := s.index.value(ctx, space, hash)
	if err != nil || m.Size != size {
		unlock := s.lock(hash)
		m, err = s.ensure(ctx, space, hash, size)
		unlock()
	}
	if err == nil && m.Links == nil {
		err = fmt.Errorf("value %s: what is stored has other bytes: %w", hash, tinycloud.ErrNotFound)
	}
	return m, err
}

// ensure indexes a value longer than a chunk if it isn't. The caller holds the lock.
func (s *Store) ensure(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64) (Manifest, error) {
	m, err := s.index.value(ctx, space, hash)
	if err == nil && m.Size == size || err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
		return m, err
	}
	m, err = s.scan(ctx, space, hash)
	if errors.Is(err, tinycloud.ErrForged) {
		s.log.WarnContext(ctx, "stored value has other bytes than its name says: peers don't get it", "space", space, "error", err)
		m.Links = nil
	} else if err != nil {
		return Manifest{}, err
	}
	return m, s.index.put(ctx, space, hash, m)
}

// Repair makes the chunk index agree with the values, when the last process was not closed or the index was
// missing or broken; else it does nothing. It reads the values longer than 1 MiB that are not indexed. The
// store may be used meanwhile: chunks not indexed yet are not found by peers, unless [Store.Manifest] is
// asked for their value first. The error is ctx's or of class [tinycloud.ErrUnavailable]; call it again.
func (s *Store) Repair(ctx context.Context) error {
	if s.index.whole.Load() {
		return nil
	}
	gone := 0
	err := s.index.values(ctx, func(space tinycloud.SpaceID, hash tinycloud.Hash, m Manifest) error {
		size, err := s.Size(ctx, space, hash)
		if err == nil && size == m.Size || err != nil && !errors.Is(err, tinycloud.ErrNotFound) {
			return err
		}
		gone++
		return s.forget(ctx, space, hash, m.Size)
	})
	if err != nil {
		return err
	}
	added, failed := 0, 0
	err = s.Spaces(ctx, func(space tinycloud.SpaceID) error {
		return s.Walk(ctx, space, func(hash tinycloud.Hash, size int64) error {
			if size <= ChunkSize {
				return nil
			}
			if m, err := s.index.value(ctx, space, hash); err == nil && m.Size == size {
				return nil
			}
			err := s.reindex(ctx, space, hash, size)
			switch {
			case err == nil:
				added++
			case ctx.Err() != nil:
				return err
			case !errors.Is(err, tinycloud.ErrNotFound): // deleted since
				failed++
				s.log.WarnContext(ctx, "value not indexed: peers don't get it", "space", space, "error", err)
			}
			return nil
		})
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d values could not be indexed: %w", failed, tinycloud.ErrUnavailable)
	}
	if err != nil {
		return err
	}
	s.index.whole.Store(true)
	s.log.InfoContext(ctx, "chunk index repaired", "added", added, "removed", gone)
	return nil
}

func (s *Store) reindex(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64) error {
	defer s.lock(hash)()
	if err := s.index.room(indexReserve); err != nil {
		return err // before reading the value for nothing
	}
	_, err := s.ensure(ctx, space, hash, size)
	return err
}

// forget drops the entries of a value whose file is not there, unless it came meanwhile.
func (s *Store) forget(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, indexed int64) error {
	defer s.lock(hash)()
	if size, err := s.Size(ctx, space, hash); err == nil && size == indexed {
		return nil
	}
	return s.index.drop(ctx, space, hash)
}

const (
	catchUpEvery = 5 * time.Second  // and Space, at most
	catchUpShare = 20               // and at most a twentieth of the time, when a Space has many values
	catchUpTime  = 30 * time.Second // of one time; what it did stays done
)

// catchUp indexes values of a Space that other processes put into the bucket, and reports whether there were any.
// Peers ask for chunks by digest alone, so it can't know whose they are without looking.
func (s *Store) catchUp(ctx context.Context, space tinycloud.SpaceID) (found bool) {
	begin := time.Now()
	s.mu.Lock()
	next, _ := s.catchUpDue.Get(space)
	due := !begin.Before(next)
	if due {
		s.catchUpDue.Add(space, begin.Add(catchUpTime)) // one at a time
	}
	s.mu.Unlock()
	if !due {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	err := s.Walk(ctx, space, func(hash tinycloud.Hash, size int64) error {
		if size <= ChunkSize {
			return nil
		}
		if m, err := s.index.value(ctx, space, hash); err == nil && m.Size == size {
			return nil
		}
		err := s.reindex(ctx, space, hash, size)
		if errors.Is(err, tinycloud.ErrNotFound) {
			return nil // deleted since
		}
		found = found || err == nil
		return err
	})
	s.catchUpDue.Add(space, time.Now().Add(max(catchUpEvery, catchUpShare*time.Since(begin))))
	if err != nil {
		s.log.WarnContext(ctx, "not all values of other processes are indexed: asked again, on", "space", space, "error", err)
	}
	return found
}
