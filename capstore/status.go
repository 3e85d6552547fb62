package capstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// Status is what a node knows of a Space.
type Status struct {
	Host   HostKey // this node
	State  string
	Heads  []tinycloud.Hash
	Epochs int64
	Void   int64 // epochs that count for nothing
	Events int64
	Keys   int64
	Wants  int64
	Bytes  int64
	// StateHash is equal on two hosts iff their KV maps are.
	StateHash string
}

// Status returns the state of a Space.
func (s *Store) Status(ctx context.Context, id tinycloud.SpaceID) (Status, error) {
	if _, err := s.sid(id); err != nil {
		return Status{}, err
	}
	var sp *space
	var st Status
	// What the writer sees between transactions is durable and known to all.
	err := s.do(ctx, func(t *tx) (err error) {
		if sp, err = t.space(id); err != nil {
			return err
		}
		st = Status{Host: sp.host, State: sp.state, Epochs: sp.epochs, Events: sp.events}
		if sp.waits() {
			st.State = StateJoining
		}
		for _, h := range sp.heads {
			st.Heads = append(st.Heads, h.id)
		}
		return nil
	})
	if err != nil {
		return Status{}, err
	}
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM epochs WHERE sid = ?1 AND valid = 0), (SELECT count(*) FROM wants WHERE sid = ?1 AND due < 4611686018427387904),
		(SELECT bytes FROM spaces WHERE sid = ?1)`, sp.sid).Scan(&st.Void, &st.Wants, &st.Bytes)
	if err != nil {
		return Status{}, dbErr(err)
	}
	st.Keys, st.StateHash, err = s.stateHash(ctx, sp.sid)
	return st, err
}

var stateEncoding = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// stateHash hashes the DAG-CBOR of [[key, multihash, metadata]…] over the current keys in byte order.
func (s *Store) stateHash(ctx context.Context, sid int64) (keys int64, hash string, err error) {
	tx, err := s.read.BeginTx(ctx, nil)
	if err != nil {
		return 0, "", dbErr(err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM kv WHERE sid = ? AND live = 1", sid).Scan(&keys); err != nil {
		return 0, "", dbErr(err)
	}
	h := blake3.New()
	_, _ = h.Write(dag.AppendHead(nil, 4<<5, uint64(keys)))
	err = eachRow(ctx, tx, func(scan func(...any) error) error {
		var key string
		var value, meta []byte
		if err := scan(&key, &value, &meta); err != nil {
			return err
		}
		m := map[string]string{}
		if err := json.Unmarshal(meta, &m); err != nil {
			return fmt.Errorf("metadata of %q: %w", key, err)
		}
		b, err := stateEncoding.Marshal([]any{key, []byte(tinycloud.Hash(value).Multihash()), m})
		if err != nil {
			return err
		}
		_, err = h.Write(b)
		return err
	}, "SELECT key, value, meta FROM kv WHERE sid = ? AND live = 1 ORDER BY key", sid)
	return keys, hex.EncodeToString(h.Sum(nil)), err
}
