package dag

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Major types of CBOR, in their place, and simple values.
const (
	MajorUint     = 0 << 5
	MajorNegative = 1 << 5
	MajorBytes    = 2 << 5
	MajorText     = 3 << 5
	MajorArray    = 4 << 5
	MajorMap      = 5 << 5
	MajorTag      = 6 << 5
	Null          = 0xf6
	Float64Head   = 0xfb
	tagLink       = 42
)

// The bytes of a link before its digest: tag 42, a byte string of 37, the identity multibase, CIDv1,
// the codec, BLAKE3 of 32 bytes.
const (
	rawLink  = "\xd8\x2a\x58\x25\x00\x01\x55\x1e\x20"
	cborLink = "\xd8\x2a\x58\x25\x00\x01\x71\x1e\x20"
	linkSize = len(rawLink) + 32
)

// AppendHead appends the head of a CBOR item in its shortest form. major is the major type in its place,
// the upper three bits.
func AppendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// AppendText appends a text.
func AppendText(b []byte, s string) []byte {
	return append(AppendHead(b, MajorText, uint64(len(s))), s...)
}

func appendLink(b []byte, prefix string, h tinycloud.Hash) []byte {
	return append(append(b, prefix...), h[:]...)
}

// Reader takes canonical CBOR apart: heads are in their shortest form. After its first failure, of class
// [tinycloud.ErrInvalid], every read yields zero values.
type Reader struct {
	b   []byte
	off int
	err error
}

// NewReader returns a reader of bytes.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err is the first failure.
func (r *Reader) Err() error { return r.err }

// Left is how many bytes are still to be read.
func (r *Reader) Left() int { return len(r.b) - r.off }

// Fail has the bytes be wrong at this place, unless they were before.
func (r *Reader) Fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("dag: %s at byte %d: %w", what, r.off, tinycloud.ErrInvalid)
		r.b = r.b[:r.off]
	}
}

// Take returns the next n bytes.
func (r *Reader) Take(n int) []byte {
	if n > r.Left() {
		r.Fail("bytes end early")
		return nil
	}
	r.off += n
	return r.b[r.off-n : r.off]
}

// Peek returns the next byte, 0xff at the end.
func (r *Reader) Peek() byte {
	if r.off == len(r.b) {
		return 0xff
	}
	return r.b[r.off]
}

// Head reads a head of a major type in its shortest form.
func (r *Reader) Head(major byte) uint64 {
	c := r.Take(1)
	if r.err != nil {
		return 0
	}
	if c[0]&0xe0 != major || c[0]&0x1f > 27 {
		r.Fail("unexpected type")
		return 0
	}
	info := c[0] & 0x1f
	if info < 24 {
		return uint64(info)
	}
	var n, least uint64
	for _, c := range r.Take(1 << (info - 24)) {
		n = n<<8 | uint64(c)
	}
	if info == 24 {
		least = 24
	} else {
		least = 1 << (8 << (info - 25))
	}
	if n < least {
		r.Fail("number not in its shortest form")
		return 0
	}
	return n
}

// Count reads the head of an array or map of at most limit entries.
func (r *Reader) Count(major byte, limit int) int {
	n := r.Head(major)
	if n > uint64(limit) {
		r.Fail("too many entries")
		return 0
	}
	return int(n)
}

// Text reads a text of UTF-8.
func (r *Reader) Text() string {
	n := r.Head(MajorText)
	if n > uint64(r.Left()) {
		r.Fail("bytes end early")
		return ""
	}
	s := string(r.Take(int(n)))
	if !utf8.ValidString(s) {
		r.Fail("text is not UTF-8")
	}
	return s
}

// Name reads the name of a field, which has to be this one.
func (r *Reader) Name(want string) {
	if r.Text() != want {
		r.Fail("field " + want + " expected")
	}
}

func (r *Reader) link(prefix string) (h tinycloud.Hash) {
	b := r.Take(linkSize)
	if r.err != nil {
		return h
	}
	if string(b[:len(prefix)]) != prefix {
		r.Fail("link of another kind")
		return h
	}
	return tinycloud.Hash(b[len(prefix):])
}

// End fails unless all is read, and returns the first failure.
func (r *Reader) End() error {
	if r.off != len(r.b) {
		r.Fail("trailing bytes")
	}
	return r.err
}
