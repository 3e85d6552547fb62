// Package servicetest has a service for tests, which shows what a service needs: a grow-only counter.
package servicetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/kv"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// Hello is what a node of this release tells that has key-value alone.
func Hello() hostlog.Hello {
	return hostlog.Hello{Rules: judge.Rules, Services: []hostlog.Service{{Name: kv.Name, Version: kv.Service{}.Version()}}}
}

// Services are key-value, and more.
func Services(more ...service.Service) []service.Service {
	return append([]service.Service{kv.Service{}}, more...)
}

// Counter is a service: what it keeps of a subject is the sum of what was added, and what was added last.
type Counter struct {
	Form uint64 // the greatest form of operations that it reads, 1 or 2
}

// Abilities of the counter.
const (
	Add  = "tinycloud.counter/add"
	Read = "tinycloud.counter/read"
)

func (Counter) Name() string                { return "counter" }
func (c Counter) Version() uint64           { return c.Form }
func (Counter) Mutates(ability string) bool { return ability == Add }

// Addition is an operation of the counter; by the second form it counts twice.
func Addition(about string, by int64, form uint64) []byte {
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "by", qp.Int(by))
		if form > 1 {
			qp.MapEntry(m, "times", qp.Int(2))
		}
		qp.MapEntry(m, "service", qp.String("counter"))
		qp.MapEntry(m, "subject", qp.String(about))
	})
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := dagcbor.Encode(n, &b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (c Counter) read(b []byte) (by int64, err error) {
	n := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(n, bytes.NewReader(b)); err != nil {
		return 0, err
	}
	add, err := n.Build().LookupByString("by")
	if err != nil {
		return 0, service.ErrNewer
	}
	if by, err = add.AsInt(); err != nil || n.Build().Length() == 3 {
		return by, err
	}
	if c.Form < 2 {
		return 0, service.ErrNewer
	}
	return 2 * by, nil
}

func (c Counter) Read(_ string, b []byte) (service.Op, error) {
	_, err := c.read(b)
	return service.Op{Ability: Add}, err
}

func (c Counter) Apply(tx service.Tx, p service.Placed, _ bool) (bool, error) {
	return true, c.Fold(tx, p.Subject)
}

func (c Counter) Fold(tx service.Tx, about string) error {
	var sum, last int64
	seen := map[tinycloud.Hash]bool{}
	err := tx.Operations(about, func(p service.Placed) error {
		by, err := c.read(p.Bytes)
		if err != nil || seen[p.Event] {
			return err
		}
		seen[p.Event] = true
		sum, last = sum+by, by
		return nil
	})
	if err != nil || len(seen) == 0 {
		return errors.Join(err, tx.SetState(about, nil))
	}
	return tx.SetState(about, binary.AppendVarint(binary.AppendVarint(nil, sum), last))
}

func (Counter) Stands(service.Tx, service.Placed, bool) (bool, error)  { return true, nil }
func (Counter) Aside(_ service.Tx, _ string, b []byte) ([]byte, error) { return b, nil }

// Shown is what a state says: the sum, and what was added last; "nothing" of none.
func Shown(state []byte) string {
	if state == nil {
		return "nothing"
	}
	sum, n := binary.Varint(state)
	last, _ := binary.Varint(state[n:])
	return fmt.Sprint(sum, " ", last)
}

// Invoke adds the number in the body, or answers what is kept.
func (c Counter) Invoke(w http.ResponseWriter, r *http.Request, call service.Call) error {
	if call.Ability != Add {
		state, err := call.Store.ServiceState(r.Context(), call.Space, c.Name(), call.Path)
		if err == nil {
			_, err = io.WriteString(w, Shown(state))
		}
		return err
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 32))
	if err != nil {
		return err
	}
	by, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return tinycloud.Refuse(tinycloud.ErrInvalid, "not a number: %q", b)
	}
	return call.Store.Perform(r.Context(), Request(call.Token, call.Space, call.Path, by, c.Form))
}

// Request asks to add to a counter.
func Request(tok *token.Token, space tinycloud.SpaceID, about string, by int64, form uint64) service.Request {
	return service.Request{Token: tok, Service: "counter", Parts: []service.Part{{Space: space, Plan: func(service.Tx) (service.Plan, error) {
		return service.Plan{Ops: [][]byte{Addition(about, by, form)}}, nil
	}}}}
}
