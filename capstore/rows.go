package capstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// What a service asks of the store outside of transactions, as package service says.
var _ service.Store = (*Store)(nil)

// Now is the store's clock.
func (s *Store) Now() time.Time { return s.o.Now() }

// Reader reads the rows of a hosted Space as they are at each query.
func (s *Store) Reader(ctx context.Context, id tinycloud.SpaceID) (service.Reader, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	return rows{s.db.Read, s, sid}, nil
}

// rows are those of a Space.
type rows struct {
	querier
	s   *Store
	sid int64
}

func (r rows) Sid() int64          { return r.sid }
func (r rows) Dialect() db.Dialect { return r.s.db.Dialect }

func (r rows) Row(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error) {
	return r.s.row(ctx, dest, query, args)
}

func (r rows) Told(ctx context.Context, row int64, index uint64, n int) (told service.Told, err error) {
	var epoch, begin, event []byte
	var written int64
	ok, err := r.One(ctx, []any{&epoch, &written, &begin, &told.Bytes, &event}, `SELECT p.id, p.written, p.begin_of, o.bytes, e.bytes
		FROM epochs p JOIN ops o ON o.eid = p.eid JOIN events e ON e.eid = o.eid AND e.idx = o.idx WHERE p.eid = ? AND o.idx = ? AND o.n = ?`, row, int64(index), n)
	if err != nil {
		return told, err
	}
	if !ok {
		return told, fmt.Errorf("operation: %w", tinycloud.ErrNotFound)
	}
	tok, err := token.Decode(event, true)
	if err != nil {
		return told, fmt.Errorf("stored event: %w", err)
	}
	told.Epoch, told.Actor, told.Early = tinycloud.Hash(epoch), tok.Signer, len(begin) > 0
	if written > 0 {
		told.Time = at(written).UTC()
	}
	return told, nil
}

type inlineValue struct{ *bytes.Reader }

func (inlineValue) Close() error { return nil }

// Value opens a value of a Space. The error is of class [tinycloud.ErrUnavailable] while the value is
// still to be fetched from another host.
func (s *Store) Value(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error) {
	b, held, err := s.inline(ctx, space, hash)
	switch {
	case err != nil:
		return nil, err
	case b != nil:
		return inlineValue{bytes.NewReader(b)}, nil
	case !held || s.o.Blocks == nil:
		return nil, tinycloud.Refuse(tinycloud.ErrUnavailable, "The value has not arrived at this host yet")
	}
	return s.o.Blocks.Open(ctx, space, hash)
}

// HeldValue opens a value that was here a moment ago, and not small: its row may be gone since, its file is not for a
// while.
func (s *Store) HeldValue(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (io.ReadSeekCloser, error) {
	if s.o.Blocks == nil {
		return s.Value(ctx, space, hash)
	}
	return s.o.Blocks.Open(ctx, space, hash)
}

// Inline returns a value that is kept in the database, nil when it is in the block store or not held.
func (s *Store) Inline(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) ([]byte, error) {
	b, _, err := s.inline(ctx, space, hash)
	return b, err
}

func (s *Store) inline(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (b []byte, held bool, err error) {
	sid, err := s.sid(ctx, space)
	if err != nil {
		return nil, false, err
	}
	var size int64
	held, err = s.db.Read.One(ctx, []any{&b, &size}, "SELECT inline, size FROM vals WHERE sid = ? AND hash = ?", sid, hash[:])
	if held && size == 0 && b == nil {
		b = []byte{}
	}
	return b, held, err
}

// errEnough ends the reading of rows.
var errEnough = errors.New("enough")

// key returns the form of a subject that its column is searched by.
func (s *Store) key(subject string) any {
	indexed, _ := s.db.Key(subject)
	return indexed
}

// stored is a subject as its column gives it, in the form that the column is searched by.
func (s *Store) stored(column []byte) any {
	if s.db.Shared {
		return column
	}
	return string(column)
}
