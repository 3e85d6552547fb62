package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Record is the current value of a key.
type Record struct {
	Value    tinycloud.Hash
	Size     int64 // -1 while the value is still to be fetched from another host
	Metadata map[string]string

	small []byte // the content if the database has it, not nil then
}

// Get returns the current value of a key; the error is of class [tinycloud.ErrNotFound] when there is
// none.
func (k *Keys) Get(ctx context.Context, space tinycloud.SpaceID, key string) (Record, error) {
	rows, err := k.store.Reader(ctx, space)
	if err != nil {
		return Record{}, err
	}
	indexed, _ := rows.Dialect().Key(key)
	var value, meta, small []byte
	var size *int64
	var live, pending bool
	once := context.WithoutCancel(ctx) // it is over before anything could end it
	ok, err := rows.Row(once, []any{&live, &pending, &value, &meta, &size, &small}, `SELECT k.live, k.pending, k.value, k.meta, v.size, v.inline FROM kv k LEFT JOIN vals v ON v.sid = k.sid AND v.hash = k.value
		WHERE k.sid = ? AND k.key = ?`, rows.Sid(), indexed)
	switch {
	case err != nil:
		return Record{}, err
	case pending:
		return Record{}, service.Upgrade()
	case !ok || !live:
		return Record{}, fmt.Errorf("key %q: %w", key, tinycloud.ErrNotFound)
	}
	r := Record{Value: tinycloud.Hash(value), Size: -1, small: small}
	if size != nil {
		r.Size = *size
	}
	if r.Size == 0 && small == nil {
		r.small = []byte{}
	}
	if err := json.Unmarshal(meta, &r.Metadata); err != nil {
		return Record{}, fmt.Errorf("metadata of %q: %w", key, err)
	}
	return r, nil
}

type inlineValue struct{ *bytes.Reader }

func (inlineValue) Close() error { return nil }

// Open opens the value of a record; errors are those of [service.Store.Value].
func (k *Keys) Open(ctx context.Context, space tinycloud.SpaceID, r Record) (io.ReadSeekCloser, error) {
	switch {
	case r.small != nil:
		return inlineValue{bytes.NewReader(r.small)}, nil
	case r.Size >= 0:
		return k.store.HeldValue(ctx, space, r.Value)
	}
	return k.store.Value(ctx, space, r.Value)
}
