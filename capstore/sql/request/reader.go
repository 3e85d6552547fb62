package request

import (
	"encoding/binary"
	"math"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// reader reads what stands in a request. Whether fields and their order are canonical shows when what was read is encoded
// again.
type reader struct{ *dag.Reader }

// count reads the head of a list, each of whose entries takes a byte at least.
func (r reader) count() int { return r.Count(cbor.Array, r.Left()) }

func (r reader) int() int64 {
	major := r.Peek() & 0xe0
	if major != cbor.Negative {
		major = cbor.Uint
	}
	n := r.Head(major)
	if n > math.MaxInt64 {
		r.Fail("integer beyond 64 bits")
		return 0
	}
	if major == cbor.Negative {
		return ^int64(n)
	}
	return int64(n)
}

func (r reader) value() any {
	switch c := r.Peek(); {
	case c == cbor.Null:
		r.Take(1)
		return nil
	case c == cbor.Float64Head:
		r.Take(1)
		b := r.Take(8)
		if r.Err() != nil {
			return nil
		}
		f := math.Float64frombits(binary.BigEndian.Uint64(b))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			r.Fail("not a number")
		}
		return f
	case c&0xe0 == cbor.Text:
		return r.Text()
	case c&0xe0 == cbor.Bytes:
		return append([]byte{}, r.Bytes()...)
	}
	return r.int()
}
