package dag

import (
	"math"

	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
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
	r := &reader{b: b}
	if len(b) > MaxOpSize {
		r.fail("operation beyond its bounds")
		return e, false, r.err
	}
	if r.peek()&0xe0 != majorMap {
		r.value(0)
		return e, false, r.end()
	}
	var service, subject, key text
	last := ""
	for i := range r.count(majorMap, len(b)) {
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
	if err := r.end(); err != nil {
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

func (r *reader) textOrValue() text {
	if r.peek()&0xe0 != majorText {
		r.value(1)
		return text{there: true}
	}
	return text{r.text(), true, true}
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
func (r *reader) field(i int, last *string) string {
	name := r.text()
	if i > 0 && byLength(*last, name) >= 0 {
		r.fail("fields out of order")
	}
	*last = name
	return name
}

// value reads any canonical value.
func (r *reader) value(depth int) {
	if depth > maxDepth {
		r.fail("values too deep within each other")
		return
	}
	switch c := r.peek(); c & 0xe0 {
	case majorUint, majorNegative:
		r.head(c & 0xe0)
	case majorBytes:
		r.bytes()
	case majorText:
		r.text()
	case majorArray:
		for range r.count(majorArray, len(r.b)) {
			r.value(depth + 1)
			if r.err != nil {
				return
			}
		}
	case majorMap:
		last := ""
		for i := range r.count(majorMap, len(r.b)) {
			r.field(i, &last)
			r.value(depth + 1)
			if r.err != nil {
				return
			}
		}
	case majorTag:
		if r.head(majorTag) != tagLink {
			r.fail("tag of no link")
		}
		if b := r.bytes(); r.err == nil {
			if _, err := cid.Cast(afterIdentity(b)); err != nil {
				r.fail("link without a CID")
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

func (r *reader) bytes() []byte {
	n := r.head(majorBytes)
	if n > uint64(len(r.b)-r.off) {
		r.fail("bytes end early")
		return nil
	}
	return r.take(int(n))
}

// simple reads false, true, null, or a finite number of 64 bits.
func (r *reader) simple() {
	switch c := r.take(1); {
	case r.err != nil:
	case c[0] == null || c[0] == null-1 || c[0] == null-2:
	case c[0] == float64Head:
		bits := uint64(0)
		for _, b := range r.take(8) {
			bits = bits<<8 | uint64(b)
		}
		if f := math.Float64frombits(bits); math.IsNaN(f) || math.IsInf(f, 0) {
			r.fail("number that is not finite")
		}
	default:
		r.fail("unexpected type")
	}
}
