package capstore

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
)

// The epochs of a branch follow each other, so that each branch is in the order in which entries are sent: by seq, of which
// parents have the lesser. Merging branches needs no more of each than what comes next. A query that sorts has read the
// whole history before it answers.

const (
	placesAtOnce = 256     // of one branch
	placesLeast  = 8       // of each of many
	placesOfAll  = 2048    // about
	briefEpoch   = 1 << 10 // bytes of an epoch that is read with its place
)

// run is a branch that is being read.
type run struct {
	branch     int
	next, last uint64  // numbers that are still to be read
	places     []place // that were read and not yielded
	over       bool    // no more is to be read
}

// runs is a heap of runs by the places that come next.
type runs []*run

func (h runs) Len() int           { return len(h) }
func (h runs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runs) Push(x any)        { *h = append(*h, x.(*run)) }
func (h runs) Less(i, j int) bool { return h[i].places[0].compare(h[j].places[0]) < 0 }

func (h *runs) Pop() any {
	all := *h
	last := all[len(all)-1]
	*h = all[:len(all)-1]
	return last
}

// compare is the order in which entries are sent.
func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.seq, q.seq), bytes.Compare(p.epoch, q.epoch), cmp.Compare(p.branch, q.branch))
}

// merged yields the entries of branches from the given numbers to their tips, parents first. It holds no connection while
// it yields, which may take as long as the peer likes.
func (r *reader) merged(ctx context.Context, yield func(hostlog.Bundle) error, rows []logRow, from map[int]uint64) error {
	r.last = map[int]passed{}
	atOnce := min(max(placesOfAll/len(from), placesLeast), placesAtOnce)
	var h runs
	for branch, n := range from {
		x := &run{branch: branch, next: n, last: rows[branch].n}
		if err := r.more(ctx, x, maxPage); err != nil { // the first are soon under way
			return err
		}
		if len(x.places) > 0 {
			h = append(h, x)
		}
	}
	heap.Init(&h)
	var places []place
	for len(h) > 0 {
		x := h[0]
		places, x.places = append(places, x.places[0]), x.places[1:]
		if len(places) == maxPage {
			if err := r.pages(ctx, places, yield); err != nil {
				return err
			}
			places = places[:0]
		}
		if len(x.places) == 0 && !x.over {
			if err := r.more(ctx, x, atOnce); err != nil {
				return err
			}
		}
		if len(x.places) == 0 {
			heap.Pop(&h)
		} else {
			heap.Fix(&h, 0)
		}
	}
	return r.pages(ctx, places, yield)
}

// more reads what comes next of a branch.
func (r *reader) more(ctx context.Context, x *run, limit int) error {
	if !r.s.db.Shared { // as for a page
		ctx = context.WithoutCancel(ctx)
	}
	err := r.s.db.Read.Each(ctx, func(scan db.Scan) error {
		p, e := place{branch: x.branch}, &readEntry{}
		if err := scan(&p.n, &p.seq, &p.epoch, &p.eid, &e.at, &e.digest, &e.sig, &e.bytes); err != nil {
			return err
		}
		if e.bytes != nil {
			p.read = e
		}
		x.places = append(x.places, p)
		return nil
	}, `SELECT e.n, p.seq, p.id, p.eid, e.at, e.digest, e.sig, CASE WHEN length(p.bytes) <= ? THEN p.bytes END FROM entries e JOIN epochs p ON p.eid = e.eid
		WHERE e.sid = ? AND e.branch = ? AND e.n >= ? AND e.n <= ? ORDER BY e.n LIMIT ?`, briefEpoch, r.sid, x.branch, int64(x.next), int64(x.last), limit)
	if n := len(x.places); n > 0 {
		x.next = x.places[n-1].n + 1
	}
	x.over = err == nil && (len(x.places) < limit || x.next > x.last)
	return err
}
