package request

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
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
	b = dag.AppendHead(b, dag.MajorMap, 7)
	b = appendUint(dag.AppendText(b, "of"), uint64(p.Of))
	b = appendUint(dag.AppendText(b, "form"), form)
	b = appendUint(dag.AppendText(b, "part"), uint64(p.N))
	b = append(dag.AppendHead(dag.AppendText(b, "bytes"), dag.MajorBytes, uint64(len(p.bytes))), p.bytes...)
	b = appendUint(dag.AppendText(b, "rules"), p.Rules)
	b = dag.AppendText(dag.AppendText(b, "service"), Service)
	return dag.AppendText(dag.AppendText(b, "subject"), subject)
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
	if r.Head(dag.MajorMap) < 7 {
		return Part{}, fmt.Errorf("part of an operation: %w", tinycloud.ErrInvalid)
	}
	r.Name("of")
	of := r.Head(dag.MajorUint)
	if r.Name("form"); r.Err() == nil {
		if kind = r.Head(dag.MajorUint); r.Err() == nil && kind > form {
			return Part{}, ErrNewer
		}
	}
	r.Name("part")
	n := r.Head(dag.MajorUint)
	r.Name("bytes")
	p.bytes = r.Bytes()
	r.Name("rules")
	p.Rules = r.Head(dag.MajorUint)
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
	b := dag.AppendHead(nil, dag.MajorMap, fields)
	b = appendInt(dag.AppendText(b, "now"), o.Now)
	if r.Action == ExecuteStatement {
		b = dag.AppendText(dag.AppendText(b, "name"), r.Name)
	}
	b = dag.AppendText(dag.AppendText(b, "action"), string(r.Action))
	if r.Schema != nil {
		b = dag.AppendHead(dag.AppendText(b, "schema"), dag.MajorArray, uint64(len(r.Schema)))
		for _, s := range r.Schema {
			b = dag.AppendText(b, s)
		}
	}
	b = dag.AppendHead(dag.AppendText(b, "statements"), dag.MajorArray, uint64(len(r.Statements)))
	for _, s := range r.Statements {
		b = dag.AppendText(dag.AppendHead(b, dag.MajorArray, 2), s.SQL)
		b = dag.AppendHead(b, dag.MajorArray, uint64(len(s.Params)))
		for _, v := range s.Params {
			b = appendValue(b, v)
		}
	}
	return b
}

func (r reader) body(o *Operation) {
	q := &o.Request
	fields := r.Head(dag.MajorMap)
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
		if r.Head(dag.MajorArray) != 2 {
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

func appendUint(b []byte, n uint64) []byte { return dag.AppendHead(b, dag.MajorUint, n) }

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return dag.AppendHead(b, dag.MajorNegative, uint64(^n))
	}
	return appendUint(b, uint64(n))
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return appendInt(b, v)
	case float64:
		return binary.BigEndian.AppendUint64(append(b, dag.Float64Head), math.Float64bits(v))
	case string:
		return dag.AppendText(b, v)
	case []byte:
		return append(dag.AppendHead(b, dag.MajorBytes, uint64(len(v))), v...)
	}
	return append(b, dag.Null)
}
