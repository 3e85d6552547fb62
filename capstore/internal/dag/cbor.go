package dag

import (
	"fmt"
	"unicode/utf8"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

const tagLink = 42

// The bytes of a link before its digest: tag 42, a byte string of 37, the identity multibase, CIDv1,
// the codec, BLAKE3 of 32 bytes.
const (
	rawLink  = "\xd8\x2a\x58\x25\x00\x01\x55\x1e\x20"
	cborLink = "\xd8\x2a\x58\x25\x00\x01\x71\x1e\x20"
	linkSize = len(rawLink) + 32
)

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
		r.Fail(cbor.ErrShort.Error())
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
	n, size, err := cbor.Head(r.b[r.off:], major)
	if err != nil {
		r.Fail(err.Error())
	}
	r.off += size
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

// run reads what a text or a byte string has behind its head.
func (r *Reader) run(major byte) []byte {
	n := r.Head(major)
	if n > uint64(r.Left()) {
		r.Fail(cbor.ErrShort.Error())
		return nil
	}
	return r.Take(int(n))
}

// Text reads a text of UTF-8.
func (r *Reader) Text() string {
	s := string(r.run(cbor.Text))
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
