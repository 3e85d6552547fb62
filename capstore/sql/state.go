package sql

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/service"
)

// state is what the history keeps of a database: how many operations it follows from, and the sum of the digests of their
// places. It depends on which operations are valid and where they stand, and on nothing else.
type state struct {
	n   uint64
	sum [4]uint64
}

const stateSize = 40

func (s state) encode() []byte {
	if s.n == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint64(nil, s.n)
	for _, x := range s.sum {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return b
}

func decodeState(b []byte) (s state, err error) {
	if len(b) == 0 {
		return s, nil
	}
	if len(b) != stateSize {
		return s, fmt.Errorf("state of a database: %d bytes", len(b))
	}
	s.n = binary.BigEndian.Uint64(b)
	for i := range s.sum {
		s.sum[i] = binary.BigEndian.Uint64(b[8+8*i:])
	}
	return s, nil
}

// add adds an operation by the digest of its place.
func (s *state) add(h tinycloud.Hash) {
	s.n++
	carry := uint64(0)
	for i := range s.sum {
		s.sum[i], carry = bits.Add64(s.sum[i], binary.BigEndian.Uint64(h[8*i:]), carry)
	}
}

// digestOf is the digest of a place.
func digestOf(s service.Spot) tinycloud.Hash {
	b := make([]byte, 0, 64)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Written))
	b = binary.BigEndian.AppendUint64(b, s.At.Seq)
	b = append(b, s.At.Epoch[:]...)
	b = binary.BigEndian.AppendUint64(b, s.At.Index)
	return tinycloud.Sum(binary.BigEndian.AppendUint64(b, uint64(s.N)))
}

func spotOf(p service.Placed) service.Spot {
	return service.Spot{Written: p.Written, At: p.At, N: p.N, Row: p.Row}
}
