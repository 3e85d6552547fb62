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

// maxStates is of how many databases of a Space the states are in memory.
const maxStates = 256

// states are those that the history has of a Space's databases, as far as they are known.
func states(tx service.Tx) (map[string]state, error) {
	m, err := tx.Memory(func() (any, error) { return map[string]state{}, nil })
	if err != nil {
		return nil, err
	}
	return m.(map[string]state), nil
}

// stateIn is the state of a database in a transaction of the history.
func stateIn(tx service.Tx, path string) (state, error) {
	known, err := states(tx)
	if err != nil {
		return state{}, err
	}
	if st, ok := known[path]; ok {
		return st, nil
	}
	b, err := tx.State(path)
	if err != nil {
		return state{}, err
	}
	st, err := decodeState(b)
	if err == nil {
		note(known, path, st)
	}
	return st, err
}

// setState stores the state of a database.
func setState(tx service.Tx, path string, st state) error {
	known, err := states(tx)
	if err == nil {
		err = tx.SetState(path, st.encode())
	}
	if err == nil {
		tx.Forget()
		note(known, path, st)
	}
	return err
}

func note(known map[string]state, path string, st state) {
	if len(known) >= maxStates {
		clear(known)
	}
	known[path] = st
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
