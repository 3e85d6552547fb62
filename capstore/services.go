package capstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/db"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// The history keeps operations as (service, subject, bytes). What they mean is the services': package service. An
// operation of a service that is not here, or of a form that it doesn't know, is pending: it changes no state, is
// authorised by any capability on its subject, and its subject is not known here until a release judges it that can read
// it. Source: docs/replication.md, "Services".

// subject is what operations of a service are about.
type subject struct{ service, name string }

// operation is an operation of an event, as far as this release can read it.
type operation struct {
	dag.Operation
	service.Op
	by      service.Service // nil: this host doesn't have it
	pending bool
}

// names reports whether the operation names a value.
func (o operation) names() bool { return !o.Value.IsZero() }

func (s subject) compare(t subject) int {
	return cmp.Or(cmp.Compare(s.service, t.service), cmp.Compare(s.name, t.name))
}

func (o operation) subject() subject { return subject{o.Service, o.Subject} }

// register makes the services of a store.
func (s *Store) register(more []service.Service) error {
	s.services = map[string]service.Service{}
	for _, x := range more {
		if _, ok := s.services[x.Name()]; ok || !dag.ServiceName(x.Name()) {
			return fmt.Errorf("service %q: %w", x.Name(), tinycloud.ErrInvalid)
		}
		s.services[x.Name()] = x
		if k, ok := x.(service.Keeper); ok {
			s.keepers = append(s.keepers, k)
		}
	}
	slices.SortFunc(s.keepers, func(a, b service.Keeper) int { return cmp.Compare(a.Name(), b.Name()) })
	s.held = newHeld(s.keepers)
	return nil
}

// Hello is what this node tells of itself.
func (s *Store) Hello() hostlog.Hello {
	h := hostlog.Hello{Rules: Rules}
	for _, x := range s.o.Services {
		h.Services = append(h.Services, hostlog.Service{Name: x.Name(), Version: x.Version()})
	}
	slices.SortFunc(h.Services, func(a, b hostlog.Service) int { return cmp.Compare(a.Name, b.Name) })
	return h
}

// read reads an operation by its service.
func (s *Store) read(o dag.Operation) operation {
	out := operation{Operation: o, by: s.services[o.Service]}
	if out.pending = out.by == nil; out.pending {
		return out
	}
	var err error
	if out.Op, err = out.by.Read(o.Subject, o.Bytes); err != nil {
		out.Op, out.pending = service.Op{}, true
	}
	return out
}

func (s *Store) readAll(ops []dag.Operation) []operation {
	out := make([]operation, len(ops))
	for i, o := range ops {
		out[i] = s.read(o)
	}
	return out
}

// asked is what an operation needs its token to ask for.
func (o operation) asked() judge.Asked {
	return judge.Asked{Service: o.Service, Path: o.Subject, Ability: o.Ability, Whole: o.Whole, Root: o.Root}
}

// askedFor reports whether a token asks for the operation, which this host reads.
func (o operation) askedFor(space tinycloud.SpaceID, tok *Token) bool {
	return !o.pending && slices.ContainsFunc(tok.Caps, func(c Capability) bool { return o.asked().In(space, c) })
}

// asked is what operations need their token to ask for.
func asked(ops []operation) []judge.Asked {
	out := make([]judge.Asked, len(ops))
	for i, o := range ops {
		out[i] = o.asked()
	}
	return out
}

// addPending notes an operation of a new epoch that is pending, and has the subjects of its event wait with it.
func (t *tx) addPending(sp *space, n *node, p placedOp, valid bool) error {
	if err := t.setPending(sp, n.eid, p); err != nil || !valid {
		return err
	}
	if _, err := t.mark(sp, n, p, neverAnnounced); err != nil {
		return err
	}
	subjects := map[subject]struct{}{}
	if err := t.subjectsOfEvent(sp, p.event, subjects); err != nil {
		return err
	}
	return t.refoldAll(sp, subjects)
}

// setPending notes whether an operation is pending. Its bytes count in the quota while it is; those of other services than
// key-value do so anyway.
func (t *tx) setPending(sp *space, row int64, p placedOp) error {
	if sp.pending == 0 && !p.op.pending {
		return nil // as nearly always
	}
	var one int
	was, err := t.one([]any{&one}, "SELECT 1 FROM pending WHERE eid = ? AND idx = ? AND n = ?", row, int64(p.at.Index), p.n)
	if err != nil || was == p.op.pending {
		return err
	}
	size := int64(len(p.op.Bytes))
	if p.op.Service != dag.KV {
		size = 0
	}
	if was {
		sp.pending--
		if err := t.grow(sp, -size); err != nil {
			return err
		}
		return t.exec("DELETE FROM pending WHERE eid = ? AND idx = ? AND n = ?", row, int64(p.at.Index), p.n)
	}
	sp.pending++
	if err := t.grow(sp, size); err != nil {
		return err
	}
	return t.add(db.Insert{Into: "pending", Columns: "eid idx n sid size"}, row, int64(p.at.Index), p.n, sp.sid, size)
}

// pendingOn is the number of the valid operations on a subject of a service that are pending, or whose event has a pending
// one in another place: which of its places counts can't be told then.
const pendingOn = `SELECT count(*) FROM ops o JOIN events e ON e.eid = o.eid AND e.idx = o.idx WHERE o.sid = ? AND o.key = ? AND o.service = ? AND e.valid = 1
	AND EXISTS (SELECT 1 FROM events x JOIN pending y ON y.eid = x.eid AND y.idx = x.idx WHERE x.sid = o.sid AND x.id = e.id AND x.valid = 1)`

// pending reports whether operations on a subject are.
func (s *Store) pending(ctx context.Context, q querier, sid int64, about subject) (bool, error) {
	var n int
	_, err := q.One(ctx, []any{&n}, pendingOn, sid, s.key(about.name), about.service)
	return n > 0, err
}

// readable refuses what a subject is asked for while operations on it are pending.
func (s *Store) readable(ctx context.Context, q querier, sid int64, about subject) error {
	if pending, err := s.pending(ctx, q, sid, about); err != nil || !pending {
		return err
	}
	return service.Upgrade()
}

// waits is the same in a transaction; nearly always there are none in the whole Space.
func (t *tx) waits(sp *space, about subject) (bool, error) {
	if sp.pending == 0 {
		return false, nil
	}
	return t.s.pending(t.ctx, t, sp.sid, about)
}

// subjectsOfEvent are the subjects of all operations of an event, in all its places.
func (t *tx) subjectsOfEvent(sp *space, event tinycloud.Hash, into map[subject]struct{}) error {
	return t.each(func(scan db.Scan) error {
		return scanSubject(scan, into)
	}, "SELECT o.bytes FROM events e JOIN ops o ON o.eid = e.eid AND o.idx = e.idx WHERE e.sid = ? AND e.id = ?", sp.sid, event[:])
}

func scanSubject(scan db.Scan, into map[subject]struct{}) error {
	var b []byte
	if err := scan(&b); err != nil {
		return err
	}
	o, ok, err := dag.ReadOperation(b)
	if err != nil {
		return fmt.Errorf("stored operation: %w", err)
	}
	if ok {
		into[subject{o.Service, o.Subject}] = struct{}{}
	}
	return nil
}

// refoldSubject computes what a subject holds anew, and announces what that changes. What a service that is not here
// keeps is nothing.
func (t *tx) refoldSubject(sp *space, s subject) error {
	by := t.s.services[s.service]
	if by == nil {
		return nil
	}
	x := t.in(sp, s.service)
	if err := by.Fold(x, s.name); err != nil {
		return err
	}
	for _, f := range x.flips {
		if err := t.flipped(sp, f); err != nil {
			return err
		}
	}
	return nil
}

// ServiceState is what a service keeps of a subject, nil for nothing. The error is of class [tinycloud.ErrUnavailable]
// while operations on it are pending, or the service is not here.
func (s *Store) ServiceState(ctx context.Context, id tinycloud.SpaceID, name, about string) (state []byte, err error) {
	if err := s.fresh(ctx); err != nil {
		return nil, err
	}
	sid, err := s.sid(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.services[name] == nil {
		return nil, service.Upgrade()
	}
	h := tinycloud.Sum([]byte(about))
	var pending *int
	_, err = s.db.Read.One(ctx, []any{&state, &pending}, `SELECT (SELECT state FROM states WHERE sid = ? AND service = ? AND id = ?),
		(SELECT 1 FROM pending WHERE sid = ? LIMIT 1)`, sid, name, h[:], sid)
	if err != nil || pending == nil { // as nearly always
		return state, err
	}
	err = s.db.Read.Snapshot(ctx, func(q *db.Snapshot) error {
		if err := s.readable(ctx, q, sid, subject{name, about}); err != nil {
			return err
		}
		_, err := q.One(ctx, []any{&state}, "SELECT state FROM states WHERE sid = ? AND service = ? AND id = ?", sid, name, h[:])
		return err
	})
	return state, err
}

// Readable refuses an invocation that asks for a subject of a service that is not here, while operations on it are
// pending: only a newer release knows what it is. The error is of class [tinycloud.ErrUnavailable].
func (s *Store) Readable(ctx context.Context, t *Token) error {
	for _, c := range t.Caps {
		name := c.Resource.Service()
		path, has := c.Resource.Path()
		if !has || s.services[name] != nil {
			continue
		}
		sid := s.number(c.Resource.Space())
		if sid == 0 {
			continue
		}
		if err := s.readable(ctx, s.db.Read, sid, subject{name, path}); err != nil {
			return err
		}
	}
	return nil
}

// upgraded has the Spaces judged anew that hold pending operations, when this release has other services than the one
// that had the database open last.
func (s *Store) upgraded(ctx context.Context) error {
	had := map[string]uint64{}
	err := s.db.Read.Each(ctx, func(scan db.Scan) error {
		var name string
		var version uint64
		err := scan(&name, &version)
		had[name] = version
		return err
	}, "SELECT name, version FROM services")
	if err != nil {
		return err
	}
	now := map[string]uint64{}
	same := len(had) == len(s.services)
	for name, x := range s.services {
		now[name] = x.Version()
		same = same && had[name] == x.Version()
	}
	if same {
		return nil
	}
	w, err := s.db.Writer(ctx)
	if err != nil {
		return err
	}
	defer w.Drop()
	if err := w.Begin(ctx); err != nil {
		return err
	}
	for _, query := range []string{
		"UPDATE spaces SET rules = 0 WHERE sid IN (SELECT sid FROM pending) OR sid IN (SELECT sid FROM states)", "DELETE FROM services WHERE version >= 0",
	} {
		if err := w.Exec(ctx, query); err != nil {
			return err
		}
	}
	for name, version := range now {
		if err := w.Exec(ctx, "INSERT INTO services (name, version) VALUES (?, ?)", name, version); err != nil {
			return err
		}
	}
	return w.Commit(ctx)
}
