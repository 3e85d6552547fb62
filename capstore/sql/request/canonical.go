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
	b = dag.AppendHead(b, majorMap, 7)
	b = appendUint(dag.AppendText(b, "of"), uint64(p.Of))
	b = appendUint(dag.AppendText(b, "form"), form)
	b = appendUint(dag.AppendText(b, "part"), uint64(p.N))
	b = append(dag.AppendHead(dag.AppendText(b, "bytes"), majorBytes, uint64(len(p.bytes))), p.bytes...)
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
	r := &reader{b: b}
	var p Part
	var kind uint64
	if r.head(majorMap) < 7 {
		return Part{}, fmt.Errorf("part of an operation: %w", tinycloud.ErrInvalid)
	}
	r.name("of")
	of := r.head(majorUint)
	if r.name("form"); r.err == nil {
		if kind = r.head(majorUint); r.err == nil && kind > form {
			return Part{}, ErrNewer
		}
	}
	r.name("part")
	n := r.head(majorUint)
	r.name("bytes")
	p.bytes = r.take(r.head(majorBytes))
	r.name("rules")
	p.Rules = r.head(majorUint)
	r.name("service")
	r.name(Service)
	r.name("subject")
	r.name(subject)
	switch {
	case r.err != nil:
		return Part{}, r.err
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
	r := &reader{b: b}
	o := Operation{Rules: parts[0].Rules}
	r.body(&o)
	switch {
	case r.err != nil:
		return Operation{}, r.err
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
	b := dag.AppendHead(nil, majorMap, fields)
	b = appendInt(dag.AppendText(b, "now"), o.Now)
	if r.Action == ExecuteStatement {
		b = dag.AppendText(dag.AppendText(b, "name"), r.Name)
	}
	b = dag.AppendText(dag.AppendText(b, "action"), string(r.Action))
	if r.Schema != nil {
		b = dag.AppendHead(dag.AppendText(b, "schema"), majorArray, uint64(len(r.Schema)))
		for _, s := range r.Schema {
			b = dag.AppendText(b, s)
		}
	}
	b = dag.AppendHead(dag.AppendText(b, "statements"), majorArray, uint64(len(r.Statements)))
	for _, s := range r.Statements {
		b = dag.AppendText(dag.AppendHead(b, majorArray, 2), s.SQL)
		b = dag.AppendHead(b, majorArray, uint64(len(s.Params)))
		for _, v := range s.Params {
			b = appendValue(b, v)
		}
	}
	return b
}

func (r *reader) body(o *Operation) {
	q := &o.Request
	fields := r.head(majorMap)
	r.name("now")
	o.Now = r.int()
	next := r.text()
	if next == "name" {
		q.Name = r.text()
		next = r.text()
	}
	if next != "action" {
		r.fail("field action expected")
	}
	q.Action = Action(r.text())
	if next = r.text(); next == "schema" {
		q.Schema = make([]string, r.count(majorArray))
		for i := range q.Schema {
			q.Schema[i] = r.text()
		}
		next = r.text()
	}
	if next != "statements" {
		r.fail("field statements expected")
	}
	n := r.count(majorArray)
	if n > (len(r.b)-r.off)/3 { // a statement takes three bytes at least
		r.fail("too many statements")
		return
	}
	q.Statements = make([]Statement, n)
	for i := range q.Statements {
		if r.head(majorArray) != 2 {
			r.fail("statement of two parts expected")
		}
		s := &q.Statements[i]
		s.SQL = r.text()
		if n := r.count(majorArray); n > 0 {
			s.Params = make([]any, n)
		}
		for i := range s.Params {
			s.Params[i] = r.value()
		}
		if r.err != nil {
			return
		}
	}
	if r.off != len(r.b) || fields > 5 {
		r.fail("bytes after the request")
	}
}

// Major types and simple values of CBOR.
const (
	majorUint     = 0 << 5
	majorNegative = 1 << 5
	majorBytes    = 2 << 5
	majorText     = 3 << 5
	majorArray    = 4 << 5
	majorMap      = 5 << 5
	null          = 0xf6
	float64Head   = 0xfb
)

func appendUint(b []byte, n uint64) []byte { return dag.AppendHead(b, majorUint, n) }

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return dag.AppendHead(b, majorNegative, uint64(^n))
	}
	return appendUint(b, uint64(n))
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return appendInt(b, v)
	case float64:
		return binary.BigEndian.AppendUint64(append(b, float64Head), math.Float64bits(v))
	case string:
		return dag.AppendText(b, v)
	case []byte:
		return append(dag.AppendHead(b, majorBytes, uint64(len(v))), v...)
	}
	return append(b, null)
}
