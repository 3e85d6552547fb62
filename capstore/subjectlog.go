package capstore

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Log calls f with the valid operations of a service on a subject, as they are at one moment. The error is of class
// [tinycloud.ErrUnavailable] while operations on it are pending.
func (s *Store) Log(ctx context.Context, id tinycloud.SpaceID, name, about string, f func(service.Log) error) error {
	if err := s.fresh(ctx); err != nil {
		return err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return err
	}
	return s.db.Read.Snapshot(ctx, func(q *db.Snapshot) error {
		var one int
		if some, err := q.One(ctx, []any{&one}, "SELECT 1 FROM pending WHERE sid = ? LIMIT 1", sid); err != nil {
			return err
		} else if some {
			if err := s.readable(ctx, q, sid, subject{name, about}); err != nil {
				return err
			}
		}
		return f(&subjectLog{q, s, sid, subject{name, about}})
	})
}

// subjectLog reads the operations on a subject in a snapshot.
type subjectLog struct {
	q     *db.Snapshot
	s     *Store
	sid   int64
	about subject
}

func (l *subjectLog) State(ctx context.Context) (state []byte, err error) {
	id := tinycloud.Sum([]byte(l.about.name))
	_, err = l.q.One(ctx, []any{&state}, "SELECT state FROM states WHERE sid = ? AND service = ? AND id = ?", l.sid, l.about.service, id[:])
	return state, err
}

func (l *subjectLog) Spots(ctx context.Context, after *service.Spot, f func(service.Spot) error) error {
	from := int64(math.MinInt64)
	if after != nil {
		from = after.Written
	}
	return l.q.Each(ctx, func(scan db.Scan) error {
		var s service.Spot
		var epoch []byte
		var idx int64
		if err := scan(&s.Written, &s.At.Seq, &epoch, &idx, &s.N, &s.Row); err != nil {
			return err
		}
		s.At.Epoch, s.At.Index = tinycloud.Hash(epoch), uint64(idx)
		if after != nil && s.Compare(*after) <= 0 {
			return nil
		}
		return f(s)
	}, spotsFrom(after), l.sid, from, l.s.key(l.about.name), l.about.service)
}

// spotsFrom reads few spots by the times of epochs, and all by their subject: CROSS JOIN keeps SQLite to that.
func spotsFrom(after *service.Spot) string {
	join := "ops o CROSS JOIN epochs p"
	if after != nil {
		join = "epochs p CROSS JOIN ops o"
	}
	return "SELECT p.written, p.seq, p.id, o.idx, o.n, o.eid FROM " + join + ` WHERE p.sid = ? AND p.written >= ? AND o.eid = p.eid
		AND o.sid = p.sid AND o.key = ? AND o.service = ? AND o.valid = 1 ORDER BY p.written, p.seq, p.id, o.idx, o.n`
}

func (l *subjectLog) Event(ctx context.Context, at service.Spot) (e service.Event, err error) {
	all, err := l.Events(ctx, []service.Spot{at})
	if err != nil {
		return e, err
	}
	return all[0], nil
}

// eventsAtOnce is of how many events the operations are read by one query. Each has as many operations as a bundle may hold.
const eventsAtOnce = 16

func (l *subjectLog) Events(ctx context.Context, at []service.Spot) (all []service.Event, err error) {
	for some := range slices.Chunk(at, eventsAtOnce) {
		found := map[eventPlace]*service.Event{}
		if err := l.read(ctx, some, found); err != nil {
			return nil, err
		}
		for _, s := range some {
			e := found[eventPlace{s.Row, int64(s.At.Index)}]
			if e == nil {
				return nil, fmt.Errorf("event of epoch %s is lost: %w", s.At.Epoch, tinycloud.ErrUnavailable)
			}
			all = append(all, *e)
		}
	}
	return all, nil
}

// eventPlace is an event by the row of its epoch.
type eventPlace struct{ eid, idx int64 }

// read reads events into found. The text of the query is one of two, so that it is prepared once.
func (l *subjectLog) read(ctx context.Context, at []service.Spot, found map[eventPlace]*service.Event) error {
	args := []any{l.s.key(l.about.name), l.about.service}
	n := 1
	if len(at) > 1 {
		n = eventsAtOnce
	}
	for i := range n {
		args = append(args, at[min(i, len(at)-1)].Row)
	}
	for _, s := range at {
		found[eventPlace{s.Row, int64(s.At.Index)}] = nil
	}
	return l.q.Each(ctx, func(scan db.Scan) error {
		var p eventPlace
		var id, b, op []byte
		if err := scan(&p.eid, &p.idx, &id, &b, &op); err != nil {
			return err
		}
		e, asked := found[p]
		if !asked {
			return nil
		}
		if e == nil {
			tok, err := token.Decode(b, true)
			if err != nil {
				return fmt.Errorf("stored event: %w", err)
			}
			e = &service.Event{ID: tinycloud.Hash(id), Token: tok}
			found[p] = e
		}
		if op == nil {
			e.Others++
			return nil
		}
		e.Ops = append(e.Ops, op)
		return nil
	}, `SELECT e.eid, e.idx, e.id, e.bytes, CASE WHEN o.key = ? AND o.service = ? AND o.valid = 1 THEN o.bytes END
		FROM events e JOIN ops o ON o.eid = e.eid AND o.idx = e.idx WHERE e.eid IN (?`+strings.Repeat(", ?", n-1)+`) ORDER BY e.eid, e.idx, o.n`, args...)
}

// Holders is how many hosts a Space has now, and how many of these are known to have an epoch: by what their own entries
// build on.
func (s *Store) Holders(ctx context.Context, id tinycloud.SpaceID, epoch tinycloud.Hash) (holders, hosts int, err error) {
	err = s.do(ctx, func(t *tx) error {
		sp, err := t.space(id)
		if err != nil {
			return err
		}
		n, err := t.node(sp, epoch)
		if err != nil || n == nil {
			return err
		}
		has := map[hostlog.Key]bool{sp.host: true}
		for _, b := range sp.branches {
			has[b.host] = has[b.host] || b.tip != nil && (b.tip == n || b.tip.id == n.id || n.before(b.tip.past))
		}
		seen := map[hostlog.Key]bool{}
		sp.facts.Hosts(func(h hostlog.Key, tok *Token) bool {
			if !seen[h] && !t.isRevoked(tok.ID) && tok.ValidAt(t.now, 0) {
				seen[h] = true
				hosts++
				if has[h] {
					holders++
				}
			}
			return true
		})
		return nil
	})
	return holders, hosts, err
}
