package blockstore

import (
	"bytes"
	"io"
)

// inMemory is a body in memory: a short one in one piece, a longer one in pieces of one size, so that it takes no more than it
// needs, and what it leaves fits any other.
type inMemory struct {
	whole  []byte
	pieces []*[copyBuffer]byte // full but for the last
	size   int                 // of what is in pieces
}

// ReadAt is for [io.ReaderAt].
func (m *inMemory) ReadAt(p []byte, at int64) (n int, err error) {
	if m.pieces == nil {
		return bytes.NewReader(m.whole).ReadAt(p, at)
	}
	for len(p) > n && at < int64(m.size) {
		in := int(at % copyBuffer)
		k := copy(p[n:], m.pieces[at/copyBuffer][in:min(copyBuffer, in+m.size-int(at))])
		n, at = n+k, at+int64(k)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// add appends to the pieces, in which there has to be room.
func (m *inMemory) add(p []byte) {
	for len(p) > 0 {
		n := copy(m.pieces[m.size/copyBuffer][m.size%copyBuffer:], p)
		p, m.size = p[n:], m.size+n
	}
}

// hold keeps the next bytes of a body in memory, if there is room for them. Bodies up to InlineLimit are not charged: whoever
// admits requests bounds their number.
func (st *Stage) hold(p []byte) bool {
	if st.mem.pieces == nil && len(st.mem.whole)+len(p) <= st.s.o.InlineLimit {
		st.mem.whole = append(st.mem.whole, p...)
		return true
	}
	if st.s.o.Staging != Memory {
		return false
	}
	size := len(st.mem.whole) + st.mem.size + len(p)
	more := (size+copyBuffer-1)/copyBuffer - len(st.mem.pieces)
	if st.s.memory.Add(int64(more)*copyBuffer) > st.s.o.MemoryLimit {
		st.s.memory.Add(-int64(more) * copyBuffer)
		return false
	}
	for range more {
		st.mem.pieces = append(st.mem.pieces, st.s.buffers.Get().(*[copyBuffer]byte))
	}
	st.mem.add(st.mem.whole)
	st.mem.whole = nil
	st.mem.add(p)
	return true
}

// release lets other bodies have the memory.
func (st *Stage) release() {
	for _, p := range st.mem.pieces {
		st.s.buffers.Put(p)
	}
	st.s.memory.Add(-int64(len(st.mem.pieces)) * copyBuffer)
	st.mem = inMemory{}
}
