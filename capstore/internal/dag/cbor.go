package dag

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Major types of CBOR.
const (
	majorUint     = 0 << 5
	majorNegative = 1 << 5
	majorBytes    = 2 << 5
	majorText     = 3 << 5
	majorArray    = 4 << 5
	majorMap      = 5 << 5
	majorTag      = 6 << 5
	null          = 0xf6
	float64Head   = 0xfb
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
	return append(AppendHead(b, majorText, uint64(len(s))), s...)
}

func appendLink(b []byte, prefix string, h tinycloud.Hash) []byte {
	return append(append(b, prefix...), h[:]...)
}

// reader takes canonical CBOR apart. After its first failure every read yields zero values.
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("dag: %s at byte %d: %w", what, r.off, tinycloud.ErrInvalid)
		r.b = r.b[:r.off]
	}
}

// take returns the next n bytes.
func (r *reader) take(n int) []byte {
	if n > len(r.b)-r.off {
		r.fail("bytes end early")
		return nil
	}
	r.off += n
	return r.b[r.off-n : r.off]
}

// peek returns the next byte, 0xff at the end.
func (r *reader) peek() byte {
	if r.off == len(r.b) {
		return 0xff
	}
	return r.b[r.off]
}

// head reads a head of a major type in its shortest form.
func (r *reader) head(major byte) uint64 {
	c := r.take(1)
	if r.err != nil {
		return 0
	}
	if c[0]&0xe0 != major || c[0]&0x1f > 27 {
		r.fail("unexpected type")
		return 0
	}
	info := c[0] & 0x1f
	if info < 24 {
		return uint64(info)
	}
	var n, least uint64
	for _, c := range r.take(1 << (info - 24)) {
		n = n<<8 | uint64(c)
	}
	if info == 24 {
		least = 24
	} else {
		least = 1 << (8 << (info - 25))
	}
	if n < least {
		r.fail("number not in its shortest form")
		return 0
	}
	return n
}

// count reads the head of an array or map of at most limit entries.
func (r *reader) count(major byte, limit int) int {
	n := r.head(major)
	if n > uint64(limit) {
		r.fail("too many entries")
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.head(majorText)
	if n > uint64(len(r.b)-r.off) {
		r.fail("bytes end early")
		return ""
	}
	s := string(r.take(int(n)))
	if !utf8.ValidString(s) {
		r.fail("text is not UTF-8")
	}
	return s
}

// name reads the name of a field, which has to be this one.
func (r *reader) name(want string) {
	if r.text() != want {
		r.fail("field " + want + " expected")
	}
}

func (r *reader) link(prefix string) (h tinycloud.Hash) {
	b := r.take(linkSize)
	if r.err != nil {
		return h
	}
	if string(b[:len(prefix)]) != prefix {
		r.fail("link of another kind")
		return h
	}
	return tinycloud.Hash(b[len(prefix):])
}

func (r *reader) end() error {
	if r.off != len(r.b) {
		r.fail("trailing bytes")
	}
	return r.err
}
