package cbor_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

func TestHeadsAreShortest(t *testing.T) {
	for n, size := range map[uint64]int{
		0: 1, 23: 1, 24: 2, math.MaxUint8: 2, math.MaxUint8 + 1: 3, math.MaxUint16: 3, math.MaxUint16 + 1: 5,
		math.MaxUint32: 5, math.MaxUint32 + 1: 9, math.MaxUint64: 9,
	} {
		b := cbor.AppendHead(nil, cbor.Array, n)
		got, took, err := cbor.Head(append(b, 0), cbor.Array)
		if len(b) != size || got != n || took != size || err != nil {
			t.Errorf("%d as %x: %d of %d bytes, %v", n, b, got, took, err)
		}
	}
}

func TestHeadsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		b   string
		err error
	}{
		"nothing":                {"", cbor.ErrShort},
		"another type":           {"\x80", cbor.ErrType},
		"no definite length":     {"\x5f", cbor.ErrType},
		"reserved":               {"\x5c", cbor.ErrType},
		"no number":              {"\x58", cbor.ErrShort},
		"half a number":          {"\x5a\x01\x00\x00", cbor.ErrShort},
		"23 in two bytes":        {"\x58\x17", cbor.ErrLong},
		"255 in three bytes":     {"\x59\x00\xff", cbor.ErrLong},
		"65535 in five bytes":    {"\x5a\x00\x00\xff\xff", cbor.ErrLong},
		"2^32-1 in nine bytes":   {"\x5b\x00\x00\x00\x00\xff\xff\xff\xff", cbor.ErrLong},
		"a head that is no item": {"\x5d", cbor.ErrType},
	} {
		if n, size, err := cbor.Head([]byte(c.b), cbor.Bytes); !errors.Is(err, c.err) || n != 0 || size != 0 {
			t.Errorf("%s: %d, %d, %v, not %v", name, n, size, err, c.err)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte("\x17"), byte(cbor.Uint))
	f.Add([]byte("\x59\x01\x00"), byte(cbor.Bytes))
	f.Add([]byte("\xbb\x00\x00\x00\x01\x00\x00\x00\x00"), byte(cbor.Map))
	f.Fuzz(func(t *testing.T, b []byte, major byte) {
		major &= 0xe0
		n, size, err := cbor.Head(b, major)
		if err == nil && !bytes.Equal(cbor.AppendHead(nil, major, n), b[:size]) {
			t.Errorf("%x is read as %d, which is spelled in another way", b[:size], n)
		}
	})
}
