package blockstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// PutValue stores a received value of at most [ChunkSize] bytes, durable when it returns nil. The error is
// of class [tinycloud.ErrForged] if the bytes are not the value's, [tinycloud.ErrTooLarge], or
// [tinycloud.ErrUnavailable].
func (s *Store) PutValue(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, b []byte) error {
	if len(b) > ChunkSize {
		return fmt.Errorf("value %s: block of %d bytes: %w", hash, len(b), tinycloud.ErrTooLarge)
	}
	if tinycloud.Sum(b) != hash {
		return fmt.Errorf("value %s: other bytes: %w", hash, tinycloud.ErrForged)
	}
	if err := s.o.Room(); err != nil {
		return err
	}
	st := &Stage{s: s, hash: hash, manifest: Manifest{Size: int64(len(b))}, mem: inMemory{whole: b}}
	return st.Commit(ctx, space)
}

// present reports whether a value is in place, whole and durable. A file of another size, or with other
// bytes, is what a crash or another program left: the new one replaces it. The caller holds the lock.
func (s *Store) present(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, size int64) (bool, error) {
	have, err := s.Size(ctx, space, hash)
	if errors.Is(err, tinycloud.ErrNotFound) || err == nil && have != size {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if size > ChunkSize {
		// Indexed means its bytes were hashed when they came; hashing them again would cost as much as
		// writing them.
		if m, err := s.index.value(ctx, space, hash); err != nil || m.Links == nil {
			return false, err
		}
	} else if _, err := s.scan(ctx, space, hash); err != nil {
		return false, nil
	}
	if err := s.values.confirm(space, hash); err != nil {
		return false, err
	}
	return true, nil
}

// place makes a body the value. The caller holds the lock.
func (s *Store) place(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, m Manifest, b body) error {
	// Entries without a value do no harm, a value without entries would be out of the peers' reach.
	if m.Links != nil {
		if err := s.index.put(ctx, space, hash, m); err != nil {
			return err
		}
	}
	if err := s.values.put(ctx, space, hash, b); err != nil {
		return errors.Join(err, s.index.drop(context.WithoutCancel(ctx), space, hash))
	}
	return nil
}

// scan reads a value and returns its manifest. The error is of class [tinycloud.ErrForged] if the digest
// is another.
func (s *Store) scan(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (Manifest, error) {
	v, _, err := s.Open(ctx, space, hash)
	if err != nil {
		return Manifest{}, err
	}
	defer v.Close()
	got, m, err := BuildManifest(untilDone(ctx, v))
	if err != nil {
		return Manifest{}, s.values.fault(err)
	}
	if got != hash {
		return Manifest{Size: m.Size}, fmt.Errorf("value %s: stored bytes have digest %s: %w", hash, got, tinycloud.ErrForged)
	}
	return m, nil
}

// untilDone reads from r until ctx ends.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
