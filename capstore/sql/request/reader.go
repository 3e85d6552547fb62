package request

import (
	"encoding/binary"
	"math"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// reader reads what stands in a request. Whether fields and their order are canonical shows when what was read is encoded
// again.
type reader struct{ *dag.Reader }

// count reads the head of a list, each of whose entries takes a byte at least.
func (r reader) count() int { return r.Count(dag.MajorArray, r.Left()) }

func (r reader) int() int64 {
	major := r.Peek() & 0xe0
	if major != dag.MajorNegative {
		major = dag.MajorUint
	}
	n := r.Head(major)
	if n > math.MaxInt64 {
		r.Fail("integer beyond 64 bits")
		return 0
	}
	if major == dag.MajorNegative {
		return ^int64(n)
	}
	return int64(n)
}

func (r reader) value() any {
	switch c := r.Peek(); {
	case c == dag.Null:
		r.Take(1)
		return nil
	case c == dag.Float64Head:
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
	case c&0xe0 == dag.MajorText:
		return r.Text()
	case c&0xe0 == dag.MajorBytes:
		return append([]byte{}, r.Bytes()...)
	}
	return r.int()
}
