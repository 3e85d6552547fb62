package oracletest

import (
	"cmp"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// Subject is what operations of a service other than key-value are about.
type Subject struct{ Service, Name string }

// Call is an event that asks for something of a subject, where it counts.
type Call struct {
	Token   *capstore.Token
	At      capstore.Position
	Written int64    // the time that it is ordered by, in unix milliseconds
	Ops     [][]byte // on the subject
	Others  int      // operations of the event beside them
	Places  int      // at which the event is valid, of which the least counts
}

// compareCalls is the order of what is about one subject, by the letter of docs/replication.md, "Services".
func (h *history) compareCalls(a, b Call) int {
	if h.rules.Defect == OrderBySeq {
		return a.At.Compare(b.At)
	}
	return cmp.Or(cmp.Compare(a.Written, b.Written), a.At.Compare(b.At))
}

// operation is one of any service.
type operation struct {
	dag.Op // of key-value
	of     Subject
	bytes  []byte
}

// keys is what operations of key-value are of.
var keys = Subject{Service: dag.KV}

func decode(b []byte) (o operation, err error) {
	e, ok, err := dag.DecodeEnvelope(b)
	if err != nil || !ok || e.Service != dag.KV {
		return operation{of: Subject{e.Service, e.Subject}, bytes: b}, err
	}
	o.of = keys
	o.Op, err = dag.DecodeOp(b)
	return o, err
}

// asks reports whether a capability asks for something on the operation's subject. Of a service that takes all that its token
// asks for as one request, an operation needs the right to each.
func (o operation) asks(c capstore.Capability) bool {
	path, ok := c.Resource.Path()
	return ok && path == o.of.Name && c.Resource.Service() == o.of.Service
}

// calls are the valid events by their subject, in order, each at the least of its places.
func (h *history) calls() map[Subject][]Call {
	type named struct {
		of    Subject
		event tinycloud.Hash
	}
	least := map[named]Call{}
	for _, e := range h.order {
		for i, tok := range e.events {
			if !h.counts(e, i) {
				continue
			}
			here := map[Subject]Call{}
			for _, op := range e.ops[i] {
				if op.of != keys {
					c := here[op.of]
					c.Token, c.At, c.Written, c.Ops = tok, e.at(i), e.age.time, append(c.Ops, op.bytes)
					here[op.of] = c
				}
			}
			for of, c := range here {
				c.Others = len(e.ops[i]) - len(c.Ops)
				best, known := least[named{of, tok.ID}]
				if !known || h.compareCalls(c, best) < 0 != (h.rules.Defect == AnotherBody) {
					c.Places = best.Places
					best = c
				}
				best.Places++
				least[named{of, tok.ID}] = best
			}
		}
	}
	out := map[Subject][]Call{}
	for n, c := range least {
		out[n.of] = append(out[n.of], c)
	}
	for _, all := range out {
		slices.SortFunc(all, h.compareCalls)
	}
	return out
}
