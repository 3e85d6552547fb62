package capstore

import (
	"context"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// A release that knows no services takes an operation of one for a forgery, and its sender for a liar. Such a host is
// given each log up to the last entry before which there is none. Source: docs/replication.md, "Services".

// OlderTips are the tips of a Space as far as a host may be given its logs that knows no services.
func (s *Store) OlderTips(ctx context.Context, id tinycloud.SpaceID) (tips []hostlog.Tip, err error) {
	if tips, err = s.Tips(ctx, id); err != nil {
		return nil, err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	err = s.db.Read.Snapshot(ctx, func(snap *db.Snapshot) error {
		f := &foreign{q: snap, sid: sid, first: judge.Clock{}}
		if err := f.find(ctx); err != nil || len(f.first) == 0 {
			return err
		}
		tips, err = f.tips(ctx)
		return err
	})
	return tips, err
}

// foreign looks for operations that older releases refuse.
type foreign struct {
	q     querier
	sid   int64
	first judge.Clock // by branch: the number of the first entry with one
}

func (f *foreign) find(ctx context.Context) error {
	return f.q.Each(ctx, func(scan db.Scan) error {
		var spot judge.Spot
		err := scan(&spot.Branch, &spot.N)
		f.first[spot.Branch] = spot.N
		return err
	}, `SELECT e.branch, min(e.n) FROM ops o JOIN entries e ON e.eid = o.eid WHERE o.sid = ?
		AND (o.service <> ? OR EXISTS (SELECT 1 FROM pending y WHERE y.eid = o.eid AND y.idx = o.idx AND y.n = o.n)) GROUP BY e.branch`, f.sid, dag.KV)
}

// tips are those of all branches, each at its last entry that is not, and builds on none that is, foreign.
func (f *foreign) tips(ctx context.Context) (tips []hostlog.Tip, err error) {
	type branch struct {
		index    uint32
		host     hostlog.Key
		from, to uint64
	}
	var branches []branch
	err = f.q.Each(ctx, func(scan db.Scan) error {
		var b branch
		var host []byte
		var base *int64
		if err := scan(&b.index, &host, &base, &b.to); err != nil {
			return err
		}
		if b.host = hostlog.Key(host); base != nil {
			b.from = uint64(*base) + 1
		}
		branches = append(branches, b)
		return nil
	}, "SELECT branch, host, base_n, n FROM logs WHERE sid = ?", f.sid)
	if err != nil {
		return nil, err
	}
	for _, b := range branches {
		var last *hostlog.Tip
		for from, to := b.from, b.to+1; from < to; { // the past of a log's entries only grows
			n := from + (to-from)/2
			tip, plain, err := f.plain(ctx, judge.Spot{Branch: b.index, N: n})
			if err != nil {
				return nil, err
			}
			if !plain {
				to = n
				continue
			}
			tip.Host, tip.N = b.host, n
			last, from = &tip, n+1
		}
		if last != nil {
			tips = append(tips, *last)
		}
	}
	sortTips(tips)
	return tips, nil
}

// plain reports whether an entry neither is nor builds on a foreign one.
func (f *foreign) plain(ctx context.Context, at judge.Spot) (tip hostlog.Tip, plain bool, err error) {
	var digest, clock []byte
	ok, err := f.q.One(ctx, []any{&digest, &clock}, "SELECT e.digest, p.clock FROM entries e LEFT JOIN epochs p ON p.eid = e.eid WHERE e.sid = ? AND e.branch = ? AND e.n = ?",
		f.sid, int64(at.Branch), int64(at.N))
	if err != nil || !ok {
		return tip, false, err
	}
	tip.Digest = tinycloud.Hash(digest)
	past := decodeClock(clock)
	for branch, n := range f.first {
		if branch == at.Branch && at.N >= n || past.Has(judge.Spot{Branch: branch, N: n}) {
			return tip, false, nil
		}
	}
	return tip, true, nil
}
