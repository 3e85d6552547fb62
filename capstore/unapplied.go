package capstore

import (
	"context"
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// verdictColumns are of an operation o, its event e and its epoch p: whether these are valid, and why not.
const verdictColumns = "p.valid, p.reason, e.valid, e.reason, o.valid"

// verdictRow is what is stored of the verdicts on an operation.
type verdictRow struct {
	epoch, event, op      bool
	epochReason, eventWhy string
}

func (v *verdictRow) dest() []any {
	return []any{&v.epoch, &v.epochReason, &v.event, &v.eventWhy, &v.op}
}

// why says why the operation does not count, "" if it does.
func (v *verdictRow) why() string {
	switch {
	case !v.epoch:
		return "its epoch is void: " + v.epochReason
	case !v.event:
		return "its event is void: " + v.eventWhy
	case !v.op:
		return "its token stands in another place, which counts"
	}
	return ""
}

// Unapplied says why the operations of an epoch on a subject of a service do not count; found is false if it has none, or
// they do.
func (s *Store) Unapplied(ctx context.Context, id tinycloud.SpaceID, name, about string, epoch tinycloud.Hash) (d service.Dropped, found bool, err error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return d, false, err
	}
	list, err := s.dropped(ctx, sid, subject{name, about}, 1, "p.id = ?", epoch[:])
	if len(list) == 0 || err != nil {
		return d, false, err
	}
	return list[0], true, nil
}

// ownEntry is the condition that this host has an entry of the epoch o.eid in its log.
const ownEntry = "EXISTS (SELECT 1 FROM entries l JOIN logs g ON g.sid = l.sid AND g.branch = l.branch WHERE l.eid = o.eid AND g.host = ?)"

// Dropped are the events of this host's own epochs with operations on a subject that do not count, the newest first.
func (s *Store) Dropped(ctx context.Context, id tinycloud.SpaceID, name, about string, limit int) ([]service.Dropped, error) {
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	host, err := ownHost(ctx, s.db.Read, sid)
	if err != nil {
		return nil, err
	}
	return s.dropped(ctx, sid, subject{name, about}, limit, ownEntry, host)
}

// dropped are the events with operations on a subject that do not count, of the epochs that meet a condition.
func (s *Store) dropped(ctx context.Context, sid int64, about subject, limit int, which string, args ...any) (out []service.Dropped, err error) {
	type at struct{ eid, idx int64 }
	var places []at
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var v verdictRow
		var a at
		var epoch []byte
		var d service.Dropped
		if err := scan(append([]any{&a.eid, &a.idx, &epoch, &d.Written}, v.dest()...)...); err != nil {
			return err
		}
		if n := len(places); n > 0 && places[n-1] == a {
			return nil // another part
		}
		d.Epoch, d.Why = tinycloud.Hash(epoch), v.why()
		if places, out = append(places, a), append(out, d); len(out) == limit {
			return errEnough
		}
		return nil
	}, "SELECT o.eid, o.idx, p.id, p.written, "+verdictColumns+` FROM ops o JOIN epochs p ON p.eid = o.eid JOIN events e ON e.eid = o.eid AND e.idx = o.idx
		WHERE o.sid = ? AND o.key = ? AND o.service = ? AND o.valid = 0 AND NOT EXISTS (SELECT 1 FROM pending y WHERE y.eid = o.eid AND y.idx = o.idx AND y.n = o.n)
		AND `+which+" ORDER BY o.eid DESC, o.idx, o.n", append([]any{sid, s.key(about.name), about.service}, args...)...)
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	for i, a := range places {
		if out[i].Ops, err = s.operationsOf(ctx, a.eid, a.idx, about); err != nil {
			return nil, err
		}
		if out[i].Instead, err = s.countsAt(ctx, a.eid, a.idx, about); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Store) operationsOf(ctx context.Context, eid, idx int64, about subject) (ops [][]byte, err error) {
	err = s.db.Read.Each(ctx, func(scan db.Scan) error {
		var b []byte
		err := scan(&b)
		ops = append(ops, b)
		return err
	}, "SELECT bytes FROM ops o WHERE o.eid = ? AND o.idx = ? AND o.key = ? AND o.service = ? ORDER BY o.n", eid, idx, s.key(about.name), about.service)
	return ops, err
}

// countsAt is the place of an event that counts, nil for none.
func (s *Store) countsAt(ctx context.Context, eid, idx int64, about subject) (*service.Dropped, error) {
	var there, at int64
	var epoch []byte
	d := &service.Dropped{}
	ok, err := s.db.Read.One(ctx, []any{&there, &at, &epoch, &d.Written}, `SELECT o.eid, o.idx, p.id, p.written FROM events e JOIN events x ON x.sid = e.sid AND x.id = e.id
		JOIN ops o ON o.eid = x.eid AND o.idx = x.idx JOIN epochs p ON p.eid = x.eid
		WHERE e.eid = ? AND e.idx = ? AND o.key = ? AND o.service = ? AND o.valid = 1 ORDER BY o.n LIMIT 1`, eid, idx, s.key(about.name), about.service)
	if err != nil || !ok {
		return nil, err
	}
	d.Epoch = tinycloud.Hash(epoch)
	d.Ops, err = s.operationsOf(ctx, there, at, about)
	return d, err
}

// ownHost is this node's key in a Space.
func ownHost(ctx context.Context, q querier, sid int64) (host []byte, err error) {
	_, err = q.One(ctx, []any{&host}, "SELECT host FROM spaces WHERE sid = ?", sid)
	return host, err
}

func (l *subjectLog) Own(ctx context.Context, at service.Spot) (own bool, err error) {
	host, err := ownHost(ctx, l.q, l.sid)
	if err != nil {
		return false, err
	}
	var one int
	return l.q.One(ctx, []any{&one}, "SELECT 1 FROM epochs o WHERE o.eid = ? AND "+ownEntry, at.Row, host)
}
