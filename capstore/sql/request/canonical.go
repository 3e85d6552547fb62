package request

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// ErrNewer is the error for the part of an operation whose form or rules this release does not know.
var ErrNewer = errors.New("operation of a newer form")

// Forms and bounds of operations.
const (
	Service = "sql" // that the operations are of

	form       = 1
	chunk      = 59 << 10 // bytes of a request in each of its parts but the last
	MaxPart    = 60 << 10 // bytes of a part
	MaxSubject = 512      // bytes of a database's path
	maxParts   = (MaxBody + chunk - 1) / chunk

	// endOfTime is the first millisecond that SQLite knows no date for: year 10000.
	endOfTime = 253402300800000
)

// Operation is a request that writes, as it stands in the history.
type Operation struct {
	Now     int64  // the time it runs at, in milliseconds of Unix
	Rules   uint64 // by which it runs
	Request Request
}

// Encode returns the operation in parts, each an operation of the history on the subject. The error is a refusal of class
// [tinycloud.ErrTooLarge] or [tinycloud.ErrInvalid].
func (o *Operation) Encode(subject string) ([][]byte, error) {
	if len(subject) > MaxSubject {
		return nil, invalid("The path of a database has at most %d bytes", MaxSubject)
	}
	b := o.body()
	if len(b) > MaxBody {
		return nil, tinycloud.Refuse(tinycloud.ErrTooLarge, "Request of %d bytes; at most %d are kept", len(b), MaxBody)
	}
	n := (len(b) + chunk - 1) / chunk
	parts := make([][]byte, n)
	for i := range parts {
		p := Part{Of: n, N: i, Rules: o.Rules, bytes: b[i*chunk : min(len(b), (i+1)*chunk)]}
		parts[i] = p.encode(subject)
	}
	return parts, nil
}

// Part is a part of an operation.
type Part struct {
	Of, N int    // how many there are, and which it is
	Rules uint64 // of the operation
	bytes []byte
}

func (p *Part) encode(subject string) []byte {
	b := make([]byte, 0, len(p.bytes)+len(subject)+80)
	b = cbor.AppendHead(b, cbor.Map, 7)
	b = appendUint(cbor.AppendText(b, "of"), uint64(p.Of))
	b = appendUint(cbor.AppendText(b, "form"), form)
	b = appendUint(cbor.AppendText(b, "part"), uint64(p.N))
	b = cbor.AppendBytes(cbor.AppendText(b, "bytes"), p.bytes)
	b = appendUint(cbor.AppendText(b, "rules"), p.Rules)
	b = cbor.AppendText(cbor.AppendText(b, "service"), Service)
	return cbor.AppendText(cbor.AppendText(b, "subject"), subject)
}

// ReadPart reads a part. It fails with [ErrNewer] if this release knows its form or its rules not, most being the greatest
// it knows; any other error is for ever.
func ReadPart(subject string, b []byte, most uint64) (Part, error) {
	if len(b) > MaxPart || len(subject) > MaxSubject {
		return Part{}, fmt.Errorf("part of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	r := reader{dag.NewReader(b)}
	var p Part
	var kind uint64
	if r.Head(cbor.Map) < 7 {
		return Part{}, fmt.Errorf("part of an operation: %w", tinycloud.ErrInvalid)
	}
	r.Name("of")
	of := r.Head(cbor.Uint)
	if r.Name("form"); r.Err() == nil {
		if kind = r.Head(cbor.Uint); r.Err() == nil && kind > form {
			return Part{}, ErrNewer
		}
	}
	r.Name("part")
	n := r.Head(cbor.Uint)
	r.Name("bytes")
	p.bytes = r.Bytes()
	r.Name("rules")
	p.Rules = r.Head(cbor.Uint)
	r.Name("service")
	r.Name(Service)
	r.Name("subject")
	r.Name(subject)
	switch {
	case r.Err() != nil:
		return Part{}, r.Err()
	case of < 1 || of > maxParts || n >= of || len(p.bytes) == 0 || len(p.bytes) > chunk || n < of-1 && len(p.bytes) != chunk:
		return Part{}, fmt.Errorf("part %d of %d with %d bytes: %w", n, of, len(p.bytes), tinycloud.ErrInvalid)
	}
	p.Of, p.N = int(of), int(n)
	if !bytes.Equal(p.encode(subject), b) {
		return Part{}, fmt.Errorf("part is not canonical: %w", tinycloud.ErrInvalid)
	}
	if p.Rules > most {
		return Part{}, ErrNewer
	}
	return p, nil
}

// Join puts the parts of an operation together. The error is of class [tinycloud.ErrInvalid]: the operation is void.
func Join(parts []Part) (Operation, error) {
	var b []byte
	for i, p := range parts {
		if p.Of != len(parts) || p.N != i || p.Rules != parts[0].Rules {
			return Operation{}, fmt.Errorf("parts of different operations: %w", tinycloud.ErrInvalid)
		}
		b = append(b, p.bytes...)
	}
	if len(parts) == 0 || len(b) > MaxBody {
		return Operation{}, fmt.Errorf("operation of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	r := reader{dag.NewReader(b)}
	o := Operation{Rules: parts[0].Rules}
	r.body(&o)
	switch {
	case r.Err() != nil:
		return Operation{}, r.Err()
	case o.Now < 0 || o.Now >= endOfTime:
		return Operation{}, fmt.Errorf("time %d: %w", o.Now, tinycloud.ErrInvalid)
	case !o.Request.written():
		return Operation{}, fmt.Errorf("request %q: %w", o.Request.Action, tinycloud.ErrInvalid)
	case !bytes.Equal(o.body(), b):
		return Operation{}, fmt.Errorf("request is not canonical: %w", tinycloud.ErrInvalid)
	}
	return o, nil
}

// written reports whether the request is of a form that is written down.
func (r *Request) written() bool {
	one := len(r.Statements) == 1
	switch r.Action {
	case Query:
		return one && r.Schema == nil && r.Name == ""
	case Execute:
		return one && r.Name == "" && (r.Schema == nil || len(r.Schema) > 0)
	case Batch:
		return len(r.Statements) > 0 && r.Schema == nil && r.Name == ""
	case ExecuteStatement:
		return one && r.Schema == nil
	}
	return false
}

// body is the request and its time as DAG-CBOR.
func (o *Operation) body() []byte {
	r := &o.Request
	fields := uint64(3)
	if r.Action == ExecuteStatement {
		fields++
	}
	if r.Schema != nil {
		fields++
	}
	b := cbor.AppendHead(nil, cbor.Map, fields)
	b = appendInt(cbor.AppendText(b, "now"), o.Now)
	if r.Action == ExecuteStatement {
		b = cbor.AppendText(cbor.AppendText(b, "name"), r.Name)
	}
	b = cbor.AppendText(cbor.AppendText(b, "action"), string(r.Action))
	if r.Schema != nil {
		b = cbor.AppendHead(cbor.AppendText(b, "schema"), cbor.Array, uint64(len(r.Schema)))
		for _, s := range r.Schema {
			b = cbor.AppendText(b, s)
		}
	}
	b = cbor.AppendHead(cbor.AppendText(b, "statements"), cbor.Array, uint64(len(r.Statements)))
	for _, s := range r.Statements {
		b = cbor.AppendText(cbor.AppendHead(b, cbor.Array, 2), s.SQL)
		b = cbor.AppendHead(b, cbor.Array, uint64(len(s.Params)))
		for _, v := range s.Params {
			b = appendValue(b, v)
		}
	}
	return b
}

func (r reader) body(o *Operation) {
	q := &o.Request
	fields := r.Head(cbor.Map)
	r.Name("now")
	o.Now = r.int()
	next := r.Text()
	if next == "name" {
		q.Name = r.Text()
		next = r.Text()
	}
	if next != "action" {
		r.Fail("field action expected")
	}
	q.Action = Action(r.Text())
	if next = r.Text(); next == "schema" {
		q.Schema = make([]string, r.count())
		for i := range q.Schema {
			q.Schema[i] = r.Text()
		}
		next = r.Text()
	}
	if next != "statements" {
		r.Fail("field statements expected")
	}
	n := r.count()
	if n > r.Left()/3 { // a statement takes three bytes at least
		r.Fail("too many statements")
		return
	}
	q.Statements = make([]Statement, n)
	for i := range q.Statements {
		if r.Head(cbor.Array) != 2 {
			r.Fail("statement of two parts expected")
		}
		s := &q.Statements[i]
		s.SQL = r.Text()
		if n := r.count(); n > 0 {
			s.Params = make([]any, n)
		}
		for i := range s.Params {
			s.Params[i] = r.value()
		}
		if r.Err() != nil {
			return
		}
	}
	if r.Left() > 0 || fields > 5 {
		r.Fail("bytes after the request")
	}
}

func appendUint(b []byte, n uint64) []byte { return cbor.AppendHead(b, cbor.Uint, n) }

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return cbor.AppendHead(b, cbor.Negative, uint64(^n))
	}
	return appendUint(b, uint64(n))
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return appendInt(b, v)
	case float64:
		return binary.BigEndian.AppendUint64(append(b, cbor.Float64Head), math.Float64bits(v))
	case string:
		return cbor.AppendText(b, v)
	case []byte:
		return cbor.AppendBytes(b, v)
	}
	return append(b, cbor.Null)
}
