package request

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// reader takes CBOR apart. Whether it is canonical shows when what was read is encoded again. After its first failure every
// read yields zero values.
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s at byte %d: %w", what, r.off, tinycloud.ErrInvalid)
		r.off = len(r.b)
	}
}

// take returns the next n bytes.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)-r.off) {
		r.fail("bytes end early")
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off]
}

func (r *reader) peek() byte {
	if r.off == len(r.b) {
		return 0xff
	}
	return r.b[r.off]
}

// head reads a head of a major type.
func (r *reader) head(major byte) (n uint64) {
	c := r.peek()
	if c&0xe0 != major || c&0x1f > 27 {
		r.fail("unexpected type")
		return 0
	}
	r.off++
	if c &= 0x1f; c < 24 {
		return uint64(c)
	}
	for _, c := range r.take(1 << (c - 24)) {
		n = n<<8 | uint64(c)
	}
	return n
}

// count reads the head of a list, each of whose entries takes a byte at least.
func (r *reader) count(major byte) int {
	n := r.head(major)
	if n > uint64(len(r.b)-r.off) {
		r.fail("too many entries")
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	s := string(r.take(r.head(majorText)))
	if !utf8.ValidString(s) {
		r.fail("text is not UTF-8")
	}
	return s
}

// name reads a text, which has to be this one.
func (r *reader) name(want string) {
	if r.text() != want {
		r.fail(fmt.Sprintf("%q expected", want))
	}
}

func (r *reader) int() int64 {
	major := r.peek() & 0xe0
	if major != majorNegative {
		major = majorUint
	}
	n := r.head(major)
	if n > math.MaxInt64 {
		r.fail("integer beyond 64 bits")
		return 0
	}
	if major == majorNegative {
		return ^int64(n)
	}
	return int64(n)
}

func (r *reader) value() any {
	switch c := r.peek(); {
	case c == null:
		r.off++
		return nil
	case c == float64Head:
		r.off++
		b := r.take(8)
		if r.err != nil {
			return nil
		}
		f := math.Float64frombits(binary.BigEndian.Uint64(b))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			r.fail("not a number")
		}
		return f
	case c&0xe0 == majorText:
		return r.text()
	case c&0xe0 == majorBytes:
		return append([]byte{}, r.take(r.head(majorBytes))...)
	}
	return r.int()
}
