package oracletest

import (
	"bytes"
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
	Places  int      // at which the event is valid, of which one counts

	ended bool // only hosts that were removed say that it stands there
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

// calls are the valid events by their subject, in order, each at the one of its places that counts.
func (h *history) calls() map[Subject][]Call {
	type named struct {
		of    Subject
		event tinycloud.Hash
	}
	places := map[named][]Call{}
	for _, e := range h.order {
		for i, tok := range e.events {
			if !h.counts(e, i) {
				continue
			}
			here := map[Subject]Call{}
			for _, op := range e.ops[i] {
				if op.of != keys {
					c := here[op.of]
					c.Token, c.At, c.Written, c.Ops, c.ended = tok, e.at(i), e.age.time, append(c.Ops, op.bytes), e.ended()
					here[op.of] = c
				}
			}
			for of, c := range here {
				c.Others = len(e.ops[i]) - len(c.Ops)
				places[named{of, tok.ID}] = append(places[named{of, tok.ID}], c)
			}
		}
	}
	out := map[Subject][]Call{}
	for n, list := range places {
		c := h.counting(list)
		c.Places = len(list)
		out[n.of] = append(out[n.of], c)
	}
	for _, all := range out {
		slices.SortFunc(all, h.compareCalls)
	}
	return out
}

// ended reports whether only hosts that were removed say that an epoch stands.
func (e *epoch) ended() bool { return len(e.witnessed[0])+len(e.witnessed[2]) == 0 }

// counting is the place of an event that counts.
func (h *history) counting(places []Call) Call {
	slices.SortFunc(places, h.compareCalls)
	if h.rules.Defect == AnotherBody {
		return places[len(places)-1]
	}
	best := places[0]
	for _, c := range places {
		differs := func(x Call) bool { return !slices.EqualFunc(x.Ops, c.Ops, bytes.Equal) }
		if !slices.ContainsFunc(places, differs) {
			return places[0] // they are the same everywhere
		}
		if best.ended && !c.ended {
			best = c
		}
	}
	return best
}
