package capstore

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Bounds of what is told of a subject.
const (
	maxDoubled = 16 // events that were put again
	maxDoubles = 16 // places of one
)

// Subjects lists what a service has operations on in a Space, at most limit: that it keeps a state of, in the order of the
// hashes of their names, and what it cannot read.
func (s *Store) Subjects(ctx context.Context, id tinycloud.SpaceID, name string, limit int) (list []service.Subject, err error) {
	if err := s.fresh(ctx); err != nil {
		return nil, err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	err = s.db.Read.Snapshot(ctx, func(q *db.Snapshot) error {
		names, err := subjectNames(ctx, q, sid, name, limit)
		if err != nil {
			return err
		}
		list = make([]service.Subject, len(names))
		for i, n := range names {
			list[i].Name = n
			if err := s.subject(ctx, q, sid, subject{name, n}, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

func subjectNames(ctx context.Context, q *db.Snapshot, sid int64, service string, limit int) (names []string, err error) {
	known := map[string]bool{}
	add := func(n string) error {
		if !known[n] {
			known[n], names = true, append(names, n)
		}
		if len(names) >= limit {
			return errEnough
		}
		return nil
	}
	err = q.Each(ctx, func(scan db.Scan) error {
		var n []byte
		if err := scan(&n); err != nil {
			return err
		}
		return add(string(n))
	}, "SELECT subject FROM states WHERE sid = ? AND service = ? ORDER BY id", sid, service)
	if err == nil {
		err = q.Each(ctx, func(scan db.Scan) error {
			var b []byte
			if err := scan(&b); err != nil {
				return err
			}
			o, ok, err := dag.ReadOperation(b)
			if err != nil || !ok {
				return err
			}
			return add(o.Subject)
		}, "SELECT o.bytes FROM pending y JOIN ops o ON o.eid = y.eid AND o.idx = y.idx AND o.n = y.n WHERE y.sid = ? AND o.service = ?", sid, service)
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return names, err
}

// subject reads what is told of a subject.
func (s *Store) subject(ctx context.Context, q *db.Snapshot, sid int64, about subject, out *service.Subject) error {
	const on = " FROM ops o WHERE o.sid = ? AND o.key = ? AND o.service = ?"
	key := s.key(about.name)
	var several int
	_, err := q.One(ctx, []any{&out.Events, &out.Bytes, &several}, `SELECT (SELECT count(*) FROM (SELECT DISTINCT o.eid, o.idx`+on+` AND o.valid = 1) v),
		(SELECT coalesce(sum(length(o.bytes)), 0)`+on+`), (SELECT count(*) FROM (SELECT DISTINCT o.eid, o.idx`+on+`) a)`,
		sid, key, about.service, sid, key, about.service, sid, key, about.service)
	if err != nil {
		return err
	}
	id := tinycloud.Sum([]byte(about.name))
	if _, err := q.One(ctx, []any{&out.Size}, "SELECT size FROM sizes WHERE sid = ? AND service = ? AND id = ?", sid, about.service, id[:]); err != nil {
		return err
	}
	_, err = q.One(ctx, []any{&out.Pending}, "SELECT count(*)"+on+" AND EXISTS (SELECT 1 FROM pending y WHERE y.eid = o.eid AND y.idx = o.idx AND y.n = o.n)", sid, key, about.service)
	if err != nil || int64(several) == out.Events {
		return err // each event stands in one place
	}
	out.Doubled, err = s.doubled(ctx, q, sid, about)
	return err
}

// doubled are the events that stand in several places with other operations on a subject.
func (s *Store) doubled(ctx context.Context, q *db.Snapshot, sid int64, about subject) (out []service.Doubled, err error) {
	ids, err := hashes(ctx, q, `SELECT e.id FROM ops o JOIN events e ON e.eid = o.eid AND e.idx = o.idx WHERE o.sid = ? AND o.key = ? AND o.service = ?
		GROUP BY e.id HAVING count(DISTINCT e.eid) > 1 ORDER BY e.id LIMIT 256`, sid, s.key(about.name), about.service)
	for _, id := range ids {
		if err != nil || len(out) == maxDoubled {
			break
		}
		var d service.Doubled
		if d, err = s.places(ctx, q, sid, about, id); err == nil && d.Places != nil {
			out = append(out, d)
		}
	}
	return out, err
}

// places are those of an event, none if its operations are the same in all.
func (s *Store) places(ctx context.Context, q *db.Snapshot, sid int64, about subject, event tinycloud.Hash) (d service.Doubled, err error) {
	d.Event = event
	type at struct{ eid, idx int64 }
	var last at
	var rows []int64
	kinds, sum := map[tinycloud.Hash]bool{}, tinycloud.Hash{}
	err = q.Each(ctx, func(scan db.Scan) error {
		var a at
		var epoch, op []byte
		var counts bool
		if err := scan(&a.eid, &a.idx, &epoch, &counts, &op); err != nil {
			return err
		}
		if a != last || len(rows) == 0 {
			if len(rows) > 0 {
				kinds[sum] = true
			}
			if len(rows) == maxDoubles {
				return errEnough
			}
			last, sum, rows = a, tinycloud.Hash{}, append(rows, a.eid)
			d.Places = append(d.Places, service.Double{Epoch: tinycloud.Hash(epoch), Counts: counts})
		}
		h := tinycloud.Sum(op)
		sum = tinycloud.Sum(append(sum[:], h[:]...))
		return nil
	}, `SELECT o.eid, o.idx, p.id, o.valid, o.bytes FROM events e JOIN ops o ON o.eid = e.eid AND o.idx = e.idx JOIN epochs p ON p.eid = e.eid
		WHERE e.sid = ? AND e.id = ? AND o.key = ? AND o.service = ? ORDER BY p.written, p.seq, p.id, o.idx, o.n`, sid, event[:], s.key(about.name), about.service)
	if err != nil && !errors.Is(err, errEnough) {
		return d, err
	}
	if kinds[sum] = true; len(kinds) == 1 {
		d.Places = nil
		return d, nil
	}
	for i, eid := range rows {
		err := q.Each(ctx, func(scan db.Scan) error {
			var host []byte
			if err := scan(&host); err != nil {
				return err
			}
			if len(host) != len(hostlog.Key{}) {
				return fmt.Errorf("host of a log: damaged row")
			}
			d.Places[i].Hosts = append(d.Places[i].Hosts, hostlog.Key(host).String())
			return nil
		}, "SELECT DISTINCT g.host FROM entries l JOIN logs g ON g.sid = l.sid AND g.branch = l.branch WHERE l.eid = ? ORDER BY g.host LIMIT 16", eid)
		if err != nil {
			return d, err
		}
	}
	return d, nil
}
