// Package cbor has what the codecs of canonical CBOR in this tree share: the heads of items, in their shortest form (RFC 8949,
// section 4.2.1).
package cbor

import (
	"encoding/binary"
	"errors"
)

// Major types, in their place: the upper three bits of a head.
const (
	Uint     = 0 << 5
	Negative = 1 << 5
	Bytes    = 2 << 5
	Text     = 3 << 5
	Array    = 4 << 5
	Map      = 5 << 5
	Tag      = 6 << 5
)

// Null is an item.
const Null = 0xf6

// Float64Head is the head of a number of 64 bits, whose bytes follow.
const Float64Head = 0xfb

// What is wrong with a head.
var (
	ErrShort = errors.New("bytes end early")
	ErrType  = errors.New("unexpected type")
	ErrLong  = errors.New("number not in its shortest form")
)

// AppendHead appends the head of an item.
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
	return append(AppendHead(b, Text, uint64(len(s))), s...)
}

// AppendBytes appends a string of bytes.
func AppendBytes(b, x []byte) []byte {
	return append(AppendHead(b, Bytes, uint64(len(x))), x...)
}

// Head reads the head of an item of a major type, which has to be in its shortest form. It returns its number and how many
// bytes it takes. The error is [ErrShort], [ErrType] or [ErrLong].
func Head(b []byte, major byte) (n uint64, size int, err error) {
	if len(b) == 0 {
		return 0, 0, ErrShort
	}
	info := b[0] & 0x1f
	switch {
	case b[0]&0xe0 != major || info > 27:
		return 0, 0, ErrType
	case info < 24:
		return uint64(info), 1, nil
	}
	if size = 1 + 1<<(info-24); len(b) < size {
		return 0, 0, ErrShort
	}
	least := uint64(24)
	if info > 24 {
		least = 1 << (8 << (info - 25))
	}
	for _, c := range b[1:size] {
		n = n<<8 | uint64(c)
	}
	if n < least {
		return 0, 0, ErrLong
	}
	return n, size, nil
}
