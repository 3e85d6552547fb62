package capstore

import (
	"context"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// reader makes bundles of stored entries.
type reader struct {
	s        *Store
	space    tinycloud.SpaceID
	sid      int64
	hosts    []hostlog.Key
	maxValue int
}

// entriesAtOnce bounds the places of entries that are kept in memory.
const entriesAtOnce = 1 << 16

// merged yields the entries that meet a condition and are wanted, parents first. It holds no connection while it yields,
// which may take as long as the peer likes.
func (r *reader) merged(ctx context.Context, yield func(hostlog.Bundle) error, cond string, args []any, wanted func(branch int, n uint64) bool) error {
	type place struct {
		branch int
		n      uint64
		seq    int64
		epoch  []byte
	}
	const query = "SELECT e.branch, e.n, p.seq, p.id FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND ("
	const behind = ") AND (p.seq > ? OR (p.seq = ? AND (p.id > ? OR (p.id = ? AND e.branch > ?))))"
	const order = " ORDER BY p.seq, p.id, e.branch LIMIT ?"
	last := place{seq: -1, epoch: []byte{}}
	for {
		var places []place
		err := r.s.db.Read.Each(ctx, func(scan db.Scan) error {
			var p place
			err := scan(&p.branch, &p.n, &p.seq, &p.epoch)
			places = append(places, p)
			return err
		}, query+cond+behind+order, append(slices.Clone(args), last.seq, last.seq, last.epoch, last.epoch, last.branch, entriesAtOnce)...)
		if err != nil {
			return err
		}
		for _, p := range places {
			if !wanted(p.branch, p.n) {
				continue
			}
			b, err := r.bundle(ctx, p.branch, p.n)
			if err != nil {
				return err
			}
			if err := yield(b); err != nil {
				return err
			}
		}
		if len(places) < entriesAtOnce {
			return nil
		}
		last = places[len(places)-1]
	}
}

// bundle reads one entry with all it names.
func (r *reader) bundle(ctx context.Context, branch int, n uint64) (b hostlog.Bundle, err error) {
	var eid int64
	var sig, id []byte
	ok, err := r.s.db.Read.One(ctx, []any{&b.Entry.At, &sig, &eid, &id, &b.Epoch}, `SELECT e.at, e.sig, p.eid, p.id, p.bytes
		FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch = ? AND e.n = ?`, r.sid, branch, int64(n))
	if err != nil {
		return b, err
	}
	if !ok {
		return b, fmt.Errorf("entry %d of branch %d is lost: %w", n, branch, tinycloud.ErrUnavailable)
	}
	b.Entry.Space, b.Entry.Host, b.Entry.N = r.space, r.hosts[branch], n
	b.Entry.Epoch, b.Sig = tinycloud.Hash(id), hostlog.Signature(sig)
	if n > 0 {
		if b.Entry.Prev, err = r.prev(ctx, branch, n); err != nil {
			return b, err
		}
	}
	return b, r.fill(ctx, &b, eid)
}

// prev returns the digest of the entry before one, following a fork to its base.
func (r *reader) prev(ctx context.Context, branch int, n uint64) (tinycloud.Hash, error) {
	for range 64 {
		digest, ok, err := r.s.digest(ctx, r.sid, branch, n-1)
		if ok || err != nil {
			return digest, err
		}
		var base *int64
		if _, err := r.s.db.Read.One(ctx, []any{&base}, "SELECT base FROM logs WHERE sid = ? AND branch = ?", r.sid, branch); err != nil {
			return tinycloud.Hash{}, err
		}
		if base == nil {
			break
		}
		branch = int(*base)
	}
	return tinycloud.Hash{}, fmt.Errorf("entry %d of branch %d is lost: %w", n-1, branch, tinycloud.ErrUnavailable)
}

// fill adds events, operations and small current values.
func (r *reader) fill(ctx context.Context, b *hostlog.Bundle, eid int64) error {
	err := r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var e []byte
		err := scan(&e)
		b.Events = append(b.Events, e)
		return err
	}, "SELECT bytes FROM events WHERE eid = ? ORDER BY idx", eid)
	if err != nil {
		return err
	}
	err = r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var op []byte
		err := scan(&op)
		b.Ops = append(b.Ops, op)
		return err
	}, "SELECT bytes FROM ops WHERE eid = ? ORDER BY idx, n", eid)
	if err != nil || len(b.Ops) == 0 {
		return err
	}
	for _, x := range r.s.held.holding(true) {
		if err := r.values(ctx, b, eid, x); err != nil {
			return err
		}
	}
	return nil
}

// values adds the values that rows of a table hold by operations of an epoch.
func (r *reader) values(ctx context.Context, b *hostlog.Bundle, eid int64, x heldTable) error {
	return r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		var v hostlog.Value
		var hash []byte
		var size int64
		if err := scan(&hash, &v.Bytes, &size); err != nil {
			return err
		}
		v.Hash = tinycloud.Hash(hash)
		if v.Bytes != nil || size == 0 {
			b.Values = append(b.Values, v)
		} else {
			b.Large = append(b.Large, hostlog.Large{Hash: v.Hash, Size: size})
		}
		return nil
	}, "SELECT v.hash, CASE WHEN v.size <= ? THEN v.inline END, v.size FROM ops o JOIN "+x.Name+" h ON h.sid = o.sid AND h."+x.Key+" = o.key AND o.service = ? AND "+x.Held+
		" JOIN epochs p ON p.eid = o.eid AND p.id = h."+x.Epoch+" JOIN vals v ON v.sid = h.sid AND v.hash = h."+x.Value+" WHERE o.eid = ? AND o.removes = 0", r.maxValue, x.service, eid)
}
