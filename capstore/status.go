package capstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// Status is what a node knows of a Space.
type Status struct {
	Host   hostlog.Key // this node
	State  string
	Opens  time.Time // when joining ends if nothing of another host is here by then; zero: not by time
	Heads  []tinycloud.Hash
	Epochs int64
	Void   int64 // epochs that count for nothing
	Parked int64 // entries of the future, and what follows them
	Events int64
	Keys   int64
	Wants  int64 // values that are to be fetched, without those that only conflicts name
	Bytes  int64
	// Conflicts counts the writes that lost against others which did not know of them, see [Store.Conflicts].
	Conflicts int64
	// Pending counts operations that a newer release can read.
	Pending int64
	// StateHash is equal on two hosts iff their KV maps are, and what other services keep.
	StateHash string
	// Expires is when this node's host delegation ends, zero for never or when there is none.
	Expires time.Time
}

// Status returns the state of a Space.
func (s *Store) Status(ctx context.Context, id tinycloud.SpaceID) (Status, error) {
	if _, err := s.sid(ctx, id); err != nil {
		return Status{}, err
	}
	var sp *space
	var st Status
	// What the writer sees between transactions is durable and known to all.
	err := s.do(ctx, func(t *tx) (err error) {
		if sp, err = t.space(id); err != nil {
			return err
		}
		st = Status{Host: sp.host, State: sp.state, Epochs: sp.epochs, Events: sp.events, Parked: sp.parked.entries + sp.parked.noted, Pending: sp.pending}
		if sp.waits() {
			st.State = StateJoining
		}
		st.Opens = s.opensAt(sp)
		for _, h := range sp.heads {
			st.Heads = append(st.Heads, h.id)
		}
		return nil
	})
	if err != nil {
		return Status{}, err
	}
	_, err = s.db.Read.One(ctx, []any{&st.Void, &st.Wants, &st.Bytes}, `SELECT (SELECT count(*) FROM epochs WHERE sid = ? AND valid = 0),
		(SELECT count(*) FROM wants w`+lacking+" AND"+missed+`), (SELECT bytes FROM spaces WHERE sid = ?)`, sp.sid, sp.sid, int64(neverDue), sp.sid)
	if err != nil {
		return Status{}, err
	}
	if st.Conflicts, err = s.conflictCount(ctx, sp.sid); err != nil {
		return Status{}, err
	}
	if d, err := s.hostDelegation(ctx, id, sp.host, lastsLonger); err != nil {
		return Status{}, err
	} else if d != nil {
		st.Expires = d.Expires
	}
	st.Keys, st.StateHash, err = s.stateHash(ctx, sp.sid)
	return st, err
}

// stateHash hashes the DAG-CBOR of [[key, multihash, metadata]…] over the current keys in byte order, then those of what
// other services keep: [service, hash of the subject, state], in the order of the first two.
func (s *Store) stateHash(ctx context.Context, sid int64) (keys int64, hash string, err error) {
	h := blake3.New()
	err = s.db.Read.Snapshot(ctx, func(snap *db.Snapshot) error {
		if _, err := snap.One(ctx, []any{&keys}, "SELECT count(*) FROM kv WHERE sid = ? AND live = 1", sid); err != nil {
			return err
		}
		_, _ = h.Write(dag.AppendHead(nil, 4<<5, uint64(keys)))
		err := s.eachKey(ctx, snap, sid, keyRange{full: true}, func(k keyed) error {
			m := map[string]string{}
			if err := json.Unmarshal(k.meta, &m); err != nil {
				return fmt.Errorf("metadata of %q: %w", k.key, err)
			}
			b := dag.AppendText(dag.AppendHead(nil, 4<<5, 3), k.key)
			value := tinycloud.Hash(k.value).Multihash()
			b = append(dag.AppendHead(b, 2<<5, uint64(len(value))), value...)
			_, err := h.Write(dag.AppendMap(b, m))
			return err
		})
		if err != nil {
			return err
		}
		return hashStates(ctx, snap, sid, h)
	})
	return keys, hex.EncodeToString(h.Sum(nil)), err
}

// hashStates adds what services beside key-value keep: nothing where there are none.
func hashStates(ctx context.Context, snap *db.Snapshot, sid int64, h io.Writer) error {
	return snap.Each(ctx, func(scan db.Scan) error {
		var name string
		var id, state []byte
		if err := scan(&name, &id, &state); err != nil {
			return err
		}
		b := dag.AppendText(dag.AppendHead(nil, 4<<5, 3), name)
		for _, x := range [][]byte{id, state} {
			b = append(dag.AppendHead(b, 2<<5, uint64(len(x))), x...)
		}
		_, err := h.Write(b)
		return err
	}, "SELECT service, id, state FROM states WHERE sid = ? ORDER BY service, id", sid)
}
