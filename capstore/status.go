package capstore

import (
	"context"
	"encoding/hex"
	"io"
	"time"

	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// Status is what a node knows of a Space.
type Status struct {
	Host     hostlog.Key // this node
	State    string
	Standing Standing
	Opens    time.Time // when joining ends if nothing of another host is here by then; zero: not by time
	Heads    []tinycloud.Hash
	Epochs   int64
	Void     int64 // epochs that count for nothing
	Parked   int64 // entries of the future, and what follows them
	Events   int64
	Keys     int64 // subjects that hold a value
	Wants    int64 // values that are to be fetched, without those that are only held as past
	Bytes    int64 // of values, and of what other services than key-value take
	// Pending counts operations that a newer release can read.
	Pending int64
	// Written is when the newest of its writes was made, zero for none.
	Written time.Time
	// StateHash is equal on two hosts iff what their services keep is.
	StateHash string
	// Expires is when this node's host delegation ends, zero for never or when there is none.
	Expires time.Time
}

// Status returns the state of a Space.
func (s *Store) Status(ctx context.Context, id tinycloud.SpaceID) (Status, error) {
	st, err := s.Glance(ctx, id)
	if err != nil {
		return st, err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return st, err
	}
	st.Keys, st.StateHash, err = s.stateHash(ctx, sid)
	return st, err
}

// Glance is Status without the hash, which takes as long as there are keys.
func (s *Store) Glance(ctx context.Context, id tinycloud.SpaceID) (Status, error) {
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
		st.Opens, st.Standing = s.opensAt(sp), t.standing(sp)
		for _, h := range sp.heads {
			st.Heads = append(st.Heads, h.id)
		}
		return nil
	})
	if err != nil {
		return Status{}, err
	}
	var written int64
	_, err = s.db.Read.One(ctx, []any{&st.Void, &st.Wants, &st.Bytes, &st.Keys, &written}, `SELECT (SELECT count(*) FROM epochs WHERE sid = ? AND valid = 0),
		(SELECT count(*) FROM wants w`+lacking+" AND "+s.missed()+`), x.bytes + x.ops + x.sizes, `+s.held.countCurrent("x.sid")+`,
		COALESCE((SELECT max(e.written) FROM epochs e WHERE e.sid = x.sid), 0) FROM spaces x WHERE x.sid = ?`, sp.sid, sp.sid, int64(neverDue), sp.sid)
	if err != nil {
		return Status{}, err
	}
	if d, err := s.hostDelegation(ctx, id, sp.host, lastsLonger); err != nil {
		return Status{}, err
	} else if d != nil {
		st.Expires, st.Standing = d.Expires, StandsHost // it may not be in the history yet
	}
	if written > 0 {
		st.Written = time.UnixMilli(written)
	}
	return st, nil
}

// stateHash hashes what services digest of their tables, in the order of their names, then the DAG-CBOR of what they
// keep else: [service, hash of the subject, state], in the order of the first two.
func (s *Store) stateHash(ctx context.Context, sid int64) (subjects int64, hash string, err error) {
	h := blake3.New()
	err = s.db.Read.Snapshot(ctx, func(snap *db.Snapshot) error {
		if _, err := snap.One(ctx, []any{&subjects}, "SELECT "+s.held.countCurrent("x.sid")+" FROM spaces x WHERE x.sid = ?", sid); err != nil {
			return err
		}
		for _, k := range s.keepers {
			if err := k.Digest(ctx, rows{snap, s, sid}, h); err != nil {
				return err
			}
		}
		return hashStates(ctx, snap, sid, h)
	})
	return subjects, hex.EncodeToString(h.Sum(nil)), err
}

// hashStates adds what services keep beside tables of their own: nothing where there is none.
func hashStates(ctx context.Context, snap *db.Snapshot, sid int64, h io.Writer) error {
	return snap.Each(ctx, func(scan db.Scan) error {
		var name string
		var id, state []byte
		if err := scan(&name, &id, &state); err != nil {
			return err
		}
		b := cbor.AppendText(cbor.AppendHead(nil, cbor.Array, 3), name)
		for _, x := range [][]byte{id, state} {
			b = cbor.AppendBytes(b, x)
		}
		_, err := h.Write(b)
		return err
	}, "SELECT service, id, state FROM states WHERE sid = ? ORDER BY service, id", sid)
}
