package capstore

import (
	"context"
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
	last     map[int]passed // by branch: the entry before, of those that are read by pages
	atOnce   int            // entries of the next page; 0: as many as may be
}

// entriesAtOnce bounds the places of entries that are kept in memory.
const entriesAtOnce = 1 << 16

// sorted yields the entries of all branches that are wanted, parents first. It holds no connection while it yields, which
// may take as long as the peer likes.
func (r *reader) sorted(ctx context.Context, yield func(hostlog.Bundle) error, wanted func(branch int, n uint64) bool) error {
	const query = `SELECT e.branch, e.n, p.seq, p.id, p.eid FROM entries e JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch < ?
		AND (p.seq > ? OR (p.seq = ? AND (p.id > ? OR (p.id = ? AND e.branch > ?)))) ORDER BY p.seq, p.id, e.branch LIMIT ?`
	last := place{seq: -1, epoch: []byte{}}
	r.last = map[int]passed{}
	for {
		var places []place
		err := r.s.db.Read.Each(ctx, func(scan db.Scan) error {
			var p place
			err := scan(&p.branch, &p.n, &p.seq, &p.epoch, &p.eid)
			places = append(places, p)
			return err
		}, query, r.sid, chainBase, last.seq, last.seq, last.epoch, last.epoch, last.branch, entriesAtOnce)
		if err != nil {
			return err
		}
		count := len(places)
		if count > 0 {
			last = places[count-1]
		}
		places = slices.DeleteFunc(places, func(p place) bool { return !wanted(p.branch, p.n) })
		if err := r.pages(ctx, places, yield); err != nil {
			return err
		}
		if count < entriesAtOnce {
			return nil
		}
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
		return b, lost(branch, n)
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
	return tinycloud.Hash{}, lost(branch, n-1)
}

// fill adds events, operations and small current values.
func (r *reader) fill(ctx context.Context, b *hostlog.Bundle, eid int64) error {
	p := &page{r: r, bundles: []hostlog.Bundle{*b}, of: map[int64][]int{eid: {0}}}
	err := p.fill(ctx, []int64{eid})
	*b = p.bundles[0]
	return err
}

// valuesOf is what a query selects of the values that rows of a table hold, up to the condition that names the epochs.
// Its arguments are the size up to which values come along, and the service.
func valuesOf(x heldTable) string {
	return "v.hash, CASE WHEN v.size <= ? THEN v.inline END, v.size FROM ops o JOIN " + x.Name + " h ON h.sid = o.sid AND h." + x.Key + " = o.key AND o.service = ? AND " + x.Held +
		" JOIN epochs p ON p.eid = o.eid AND p.id = h." + x.Epoch + " JOIN vals v ON v.sid = h.sid AND v.hash = h." + x.Value + " WHERE o.removes = 0 AND "
}

// heldValue is a value, as far as it comes along.
type heldValue struct {
	hostlog.Value
	size int64
}

func scanValue(scan db.Scan) (v heldValue, err error) {
	var hash []byte
	if err := scan(&hash, &v.Bytes, &v.size); err != nil {
		return v, err
	}
	v.Hash = tinycloud.Hash(hash)
	return v, nil
}

func (v heldValue) addTo(b *hostlog.Bundle) {
	if v.Bytes != nil || v.size == 0 {
		b.Values = append(b.Values, v.Value)
	} else {
		b.Large = append(b.Large, hostlog.Large{Hash: v.Hash, Size: v.size})
	}
}
