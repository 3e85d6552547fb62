package sql

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/engine"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/sql/request"
)

// place is where a request stands in the log of a database: the operations of one event.
type place struct {
	first, last service.Spot
	key         tinycloud.Hash // names the place, and so the request
	parts       []tinycloud.Hash
}

// after is a state with the request.
func (p *place) after(s state) state {
	for _, h := range p.parts {
		s.add(h)
	}
	return s
}

// grouper makes places of operations.
type grouper struct {
	p    *place
	each func(*place) error
}

func (g *grouper) take(s service.Spot) error {
	if g.p != nil && (g.p.last.At.Epoch != s.At.Epoch || g.p.last.At.Index != s.At.Index) {
		if err := g.flush(); err != nil {
			return err
		}
	}
	if g.p == nil {
		g.p = &place{first: s}
	}
	h := digestOf(s)
	g.p.last, g.p.parts, g.p.key = s, append(g.p.parts, h), engine.Next(g.p.key, h)
	return nil
}

func (g *grouper) flush() error {
	if g.p == nil {
		return nil
	}
	p := g.p
	g.p = nil
	return g.each(p)
}

// read makes of a request what the engine runs: one that is void does nothing.
func (d *database) read(p *place, e service.Event) engine.Op {
	op := engine.Op{Key: p.key, Event: e.ID, Index: p.first.At.Index, Rules: engine.Newest, Request: &nothing}
	o, a, err := decode(d.of, p.first.Written, e, d.newest)
	if err == nil {
		op.Now, op.Rules, op.Request, op.Held, op.Facts = o.Now, o.Rules, &o.Request, a.held, a.facts
	}
	return op
}

// nothing is a request that fails.
var nothing = request.Request{Action: request.Query, Statements: []request.Statement{{}}}

// join reads a request of its parts.
func join(path string, ops [][]byte, newest uint64) (request.Operation, error) {
	parts := make([]request.Part, len(ops))
	for i, b := range ops {
		p, err := request.ReadPart(path, b, newest)
		if err != nil {
			return request.Operation{}, err
		}
		parts[i] = p
	}
	return request.Join(parts)
}

func (d *database) join(ops [][]byte) (request.Operation, error) {
	return join(d.of.path, ops, d.newest)
}

// decode reads a request by its event, newest being the greatest rules that are known. The error says why it is void.
func decode(of name, written int64, e service.Event, newest uint64) (o request.Operation, a authority, err error) {
	if e.Others > 0 {
		return o, a, fmt.Errorf("operations beside it: %w", tinycloud.ErrInvalid)
	}
	if o, err = join(of.path, e.Ops, newest); err != nil {
		return o, a, err
	}
	if a, err = authorityOf(e.Token, of); err != nil {
		return o, a, err
	}
	switch {
	case o.Rules == 0:
		err = fmt.Errorf("rules 0: %w", tinycloud.ErrInvalid)
	case untimely(o.Now, written, e.Token) != nil:
		err = untimely(o.Now, written, e.Token)
	case len(a.constrained) > 0:
		err = fmt.Errorf("its token lets read alone: %w", tinycloud.ErrForbidden)
	case o.Request.Action == request.ExecuteStatement:
		s, missing := a.facts.Resolve(&o.Request)
		if err = missing; err == nil && s.SQL != o.Request.Statements[0].SQL {
			err = fmt.Errorf("another statement has its name: %w", tinycloud.ErrInvalid)
		}
	}
	return o, a, err
}

// untimely says why a request is void that says when it was made, by the time that it is ordered by and its token.
func untimely(now, written int64, t *token.Token) error {
	off := time.Duration(now-written) * time.Millisecond
	switch {
	case off > slack || off < -slack:
		return fmt.Errorf("it says it is of another time: %w", tinycloud.ErrInvalid)
	case time.UnixMilli(now).Before(begins(t).Add(-slack)):
		return fmt.Errorf("its token lasts too long: %w", tinycloud.ErrInvalid)
	}
	return nil
}
