package dag

import (
	"math"

	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// KV is the service of operations that name none.
const KV = "kv"

// Bounds of what every host reads of an operation.
const (
	MaxService = 32 // bytes of a service's name
	maxDepth   = 64 // of lists and maps within each other
)

// Envelope is what every host reads of an operation, whatever service it is of and whatever form that has given it: the
// fields "service" and "subject" of the map that it is. An operation without a service is of [KV], and its subject is its
// key. Operations of one subject are ordered among each other.
type Envelope struct {
	Service string
	Subject string
}

// Operation is an operation as it is handed on and kept: its bytes, and what every host reads of them.
type Operation struct {
	Envelope // zero when there is none
	Bytes    []byte
}

// ID returns the hash of the operation's bytes.
func (o Operation) ID() tinycloud.Hash { return tinycloud.Sum(o.Bytes) }

// ReadOperation is [DecodeEnvelope], with the bytes.
func ReadOperation(b []byte) (o Operation, ok bool, err error) {
	e, ok, err := DecodeEnvelope(b)
	return Operation{e, b}, ok, err
}

// DecodeEnvelope reads the envelope of an operation. ok is false when there is none: then the operation is void on every
// host. The error is of class [tinycloud.ErrInvalid]: the bytes are no operation of any host, being no canonical DAG-CBOR
// or beyond the bounds.
func DecodeEnvelope(b []byte) (e Envelope, ok bool, err error) {
	r := NewReader(b)
	if len(b) > MaxOpSize {
		r.Fail("operation beyond its bounds")
		return e, false, r.err
	}
	if r.Peek()&0xe0 != cbor.Map {
		r.value(0)
		return e, false, r.End()
	}
	var service, subject, key text
	last := ""
	for i := range r.Count(cbor.Map, len(b)) {
		switch name := r.field(i, &last); name {
		case "service":
			service = r.textOrValue()
		case "subject":
			subject = r.textOrValue()
		case "key":
			key = r.textOrValue()
		default:
			r.value(1)
		}
		if r.err != nil {
			break
		}
	}
	if err := r.End(); err != nil {
		return Envelope{}, false, err
	}
	switch {
	case !service.there && key.ok:
		return Envelope{KV, key.s}, true, nil
	case service.ok && subject.ok && service.s != KV && ServiceName(service.s):
		return Envelope{service.s, subject.s}, true, nil
	}
	return Envelope{}, false, nil
}

// text is a field that should be a text: whether it is there, and is one.
type text struct {
	s         string
	there, ok bool
}

func (r *Reader) textOrValue() text {
	if r.Peek()&0xe0 != cbor.Text {
		r.value(1)
		return text{there: true}
	}
	return text{r.Text(), true, true}
}

// ServiceName reports whether a text may name a service: printable ASCII without blanks.
func ServiceName(s string) bool {
	if len(s) == 0 || len(s) > MaxService {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// field reads the name of a map's i-th field, which comes after the last one.
func (r *Reader) field(i int, last *string) string {
	name := r.Text()
	if i > 0 && byLength(*last, name) >= 0 {
		r.Fail("fields out of order")
	}
	*last = name
	return name
}

// value reads any canonical value.
func (r *Reader) value(depth int) {
	if depth > maxDepth {
		r.Fail("values too deep within each other")
		return
	}
	switch c := r.Peek(); c & 0xe0 {
	case cbor.Uint, cbor.Negative:
		r.Head(c & 0xe0)
	case cbor.Bytes:
		r.Bytes()
	case cbor.Text:
		r.Text()
	case cbor.Array:
		for range r.Count(cbor.Array, len(r.b)) {
			r.value(depth + 1)
			if r.err != nil {
				return
			}
		}
	case cbor.Map:
		last := ""
		for i := range r.Count(cbor.Map, len(r.b)) {
			r.field(i, &last)
			r.value(depth + 1)
			if r.err != nil {
				return
			}
		}
	case cbor.Tag:
		if r.Head(cbor.Tag) != tagLink {
			r.Fail("tag of no link")
		}
		if b := r.Bytes(); r.err == nil {
			if _, err := cid.Cast(afterIdentity(b)); err != nil {
				r.Fail("link without a CID")
			}
		}
	default:
		r.simple()
	}
}

// afterIdentity is what follows the identity multibase, nothing when that is not there.
func afterIdentity(b []byte) []byte {
	if len(b) == 0 || b[0] != 0 {
		return nil
	}
	return b[1:]
}

// Bytes reads a byte string; what it returns is part of what is read.
func (r *Reader) Bytes() []byte { return r.run(cbor.Bytes) }

// simple reads false, true, null, or a finite number of 64 bits.
func (r *Reader) simple() {
	switch c := r.Take(1); {
	case r.err != nil:
	case c[0] == cbor.Null || c[0] == cbor.Null-1 || c[0] == cbor.Null-2:
	case c[0] == cbor.Float64Head:
		bits := uint64(0)
		for _, b := range r.Take(8) {
			bits = bits<<8 | uint64(b)
		}
		if f := math.Float64frombits(bits); math.IsNaN(f) || math.IsInf(f, 0) {
			r.Fail("number that is not finite")
		}
	default:
		r.Fail("unexpected type")
	}
}
