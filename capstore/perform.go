package capstore

import (
	"context"
	"errors"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Perform carries out what an admitted invocation asks of a service: all or nothing, durable when it returns. Authority,
// replay and quota are judged in the transaction.
func (s *Store) Perform(ctx context.Context, r service.Request) error {
	return s.PerformAll(ctx, []service.Request{r})[0]
}

// PerformAll carries out requests one after the other, each as [Store.Perform] does: in one transaction if none fails that
// had written, and always with no request of another caller of this process in between.
func (s *Store) PerformAll(ctx context.Context, all []service.Request) []error {
	errs := make([]error, len(all))
	var jobs []*job
	var of []int
	for i, r := range all {
		if r.Adds {
			if errs[i] = s.o.Room(); errs[i] != nil {
				continue
			}
		}
		if !r.Only {
			s.compared(ctx, r.Token.Spaces())
		}
		j := newJob(func(t *tx) error { return t.perform(r) })
		for _, part := range r.Parts {
			j.spaces = append(j.spaces, part.Space)
		}
		j.ahead = func(s *Store) []service.Looked { return s.ahead(r) }
		j.plain, j.proofs = plainly(r), r.Token.Proofs
		jobs, of = append(jobs, j), append(of, i)
	}
	for i, err := range s.queueAll(ctx, s.jobs, jobs) {
		errs[of[i]] = err
		if r := all[of[i]]; err == nil && !r.Only {
			s.performed.Add(r.Token.ID, struct{}{})
		}
	}
	return errs
}

// ahead are looks that a request leads to.
func (s *Store) ahead(r service.Request) (all []service.Looked) {
	for _, part := range r.Parts {
		sid := s.number(part.Space)
		if sid == 0 {
			continue
		}
		all = append(all, service.Looked{Look: lookEvents, Args: []any{sid, r.Token.ID[:]}})
		if part.Ahead != nil {
			all = append(all, part.Ahead(sid, s.db.Dialect)...)
		}
	}
	return all
}

func (t *tx) perform(r service.Request) error {
	for _, part := range r.Parts {
		if err := t.present(part.Space); err != nil {
			return err
		}
	}
	if err := t.authorised(r.Token); err != nil {
		return err
	}
	for _, part := range r.Parts {
		sp, err := t.space(part.Space)
		if err != nil {
			return err
		}
		if err := t.admitted(sp); err != nil {
			return err
		}
		p, err := part.Plan(t.in(sp, r.Service))
		if err != nil {
			return err
		}
		ops, err := t.planned(sp, r, p)
		if err != nil {
			return err
		}
		if err := t.fits(sp, r.Service, p); err != nil {
			return err
		}
		if r.Only {
			continue
		}
		if p.Size != nil {
			if err := t.setSize(sp, r.Service, p.Size.Subject, p.Size.Bytes); err != nil {
				return err
			}
		}
		n, err := t.carryOut(sp, r.Token, ops, p.Values)
		if err == nil && n != nil && part.Made != nil {
			err = part.Made(t.in(sp, r.Service), service.Spot{Written: n.age.Time, At: Position{Seq: n.seq, Epoch: n.id}, Row: n.eid})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// planned reads the operations of a plan. What the token doesn't ask for would be void.
func (t *tx) planned(sp *space, r service.Request, p service.Plan) ([]dag.Operation, error) {
	ops := make([]dag.Operation, len(p.Ops))
	for i, b := range p.Ops {
		if len(b) > dag.MaxOpSize {
			return nil, errOpSize()
		}
		o, ok, err := dag.ReadOperation(b)
		if err != nil || !ok || o.Service != r.Service || !t.s.read(o).askedFor(sp.id, r.Token) {
			return nil, fmt.Errorf("operation of service %q: %w", r.Service, errors.Join(err, tinycloud.ErrInvalid))
		}
		if waits, err := t.waits(sp, subject{r.Service, o.Subject}); err != nil {
			return nil, err
		} else if waits {
			return nil, service.Upgrade()
		}
		ops[i] = o
	}
	return ops, nil
}

func errOpSize() error {
	return tinycloud.Refuse(tinycloud.ErrTooLarge, "Key and headers exceed %d bytes", dag.MaxOpSize)
}

// authorised judges replay and authority of an invocation.
func (t *tx) authorised(tok *Token) error {
	if err := t.s.unused(tok, tok.Spaces(), func(sid int64) (int, error) { return t.places(sid, tok.ID) }); err != nil {
		return err
	}
	c := t.s.chain(t)
	c.extra = t.revoked
	return c.authorise(t.ctx, tok, t.now)
}

// carryOut mints the epoch of a plan, after those of the delegations it rests on. See [tx.mint].
func (t *tx) carryOut(sp *space, tok *Token, ops []dag.Operation, values []service.Value) (*node, error) {
	if err := t.root(sp, tok, 0); err != nil {
		return nil, err
	}
	var small []hostlog.Value
	for _, v := range values {
		if v.Bytes != nil {
			small = append(small, hostlog.Value{Hash: v.Hash, Bytes: v.Bytes})
		} else if err := t.saveValue(sp, v.Hash, v.Size, nil); err != nil {
			return nil, err
		}
	}
	return t.mint(sp, tok, ops, small)
}
