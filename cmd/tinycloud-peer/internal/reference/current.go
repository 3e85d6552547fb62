package reference

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Key is what a key holds by the rules of version 1.16.0: the newest write, unless a delete names it. 1.0.0 showed an
// older write again when the newest had been deleted (docs/conformance.md, "Data of the reference").
type Key struct {
	Key   string
	Value tinycloud.Hash
	Live  bool
}

// Current calls yield for every key of a Space that was ever written, in the database's order.
func (d *DB) Current(ctx context.Context, space Space, odd func(Oddity), yield func(Key) error) error {
	if !d.current {
		return d.latest(ctx, space, odd, yield)
	}
	rows, err := d.query(ctx, "SELECT key, value, deleted FROM current_kv WHERE space = ? ORDER BY key", space.Text)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k Key
		var value []byte
		var deleted bool
		if err := rows.Scan(&k.Key, &value, &deleted); err != nil {
			return err
		}
		var ok bool
		if k.Value, ok = digest(value); !ok {
			odd(Oddity{space.Text, "current value whose hash is none", k.Key})
			continue
		}
		k.Live = !deleted
		if err := yield(k); err != nil {
			return err
		}
	}
	return rows.Err()
}

// latest finds the newest writes of 1.0.0.
func (d *DB) latest(ctx context.Context, space Space, odd func(Oddity), yield func(Key) error) error {
	deleted, err := d.deleted(ctx, space)
	if err != nil {
		return err
	}
	rows, err := d.query(ctx, "SELECT key, invocation, value FROM kv_write WHERE space = ? ORDER BY key, seq DESC, epoch DESC, epoch_seq DESC", space.Text)
	if err != nil {
		return err
	}
	defer rows.Close()
	last, first := "", true
	for rows.Next() {
		var key string
		var invocation, value []byte
		if err := rows.Scan(&key, &invocation, &value); err != nil {
			return err
		}
		if !first && key == last {
			continue
		}
		last, first = key, false
		h, ok := digest(value)
		if !ok {
			odd(Oddity{space.Text, "current value whose hash is none", key})
			continue
		}
		if err := yield(Key{key, h, !deleted[string(invocation)+key]}); err != nil {
			return err
		}
	}
	return rows.Err()
}

// deleted returns the writes that deletes name: the invocation's id and the key.
func (d *DB) deleted(ctx context.Context, space Space) (map[string]bool, error) {
	rows, err := d.query(ctx, "SELECT deleted_invocation_id, key FROM kv_delete WHERE space = ?", space.Text)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]bool{}
	for rows.Next() {
		var id []byte
		var key string
		if err := rows.Scan(&id, &key); err != nil {
			return nil, errors.Join(err, fmt.Errorf("kv_delete of %s", space.Text))
		}
		out[string(id)+key] = true
	}
	return out, rows.Err()
}
