package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Deadliner is what a stream needs for a peer that stops halfway to be noticed.
type Deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Framer reads and writes frames. One goroutine reads, one writes.
type Framer struct {
	in    *bufio.Reader
	out   *bufio.Writer
	limit int // bytes of a frame that is read
	d     Deadliner
	stall time.Duration
	count func(in, out int)
}

// NewFramer returns a framer that takes frames of at most limit bytes, gives a peer up that does nothing for stall, and
// tells count what came and went.
func NewFramer(s interface {
	io.ReadWriter
	Deadliner
}, limit int, stall time.Duration, count func(in, out int),
) *Framer {
	return &Framer{in: bufio.NewReader(s), out: bufio.NewWriter(s), limit: limit, d: s, stall: stall, count: count}
}

// Read returns the bytes of the next frame. The error is io.EOF at the end of the stream, and of class
// [tinycloud.ErrInvalid] for a length that no peer should send.
func (f *Framer) Read() ([]byte, error) {
	if err := f.d.SetReadDeadline(time.Now().Add(f.stall)); err != nil {
		return nil, err
	}
	var head [3]byte // enough for any length within the limit
	n, size := 0, uint64(0)
	for {
		c, err := f.in.ReadByte()
		if err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		head[n] = c
		n++
		if c < 0x80 {
			break
		}
		if n == len(head) {
			return nil, fmt.Errorf("frame length: %w", tinycloud.ErrInvalid)
		}
	}
	size, _ = binary.Uvarint(head[:n])
	if size == 0 || size > uint64(f.limit) || n > 1 && head[n-1] == 0 {
		return nil, fmt.Errorf("frame of %d bytes: %w", size, tinycloud.ErrInvalid)
	}
	b, err := readBody(f.in, int(size))
	f.count(n+len(b), 0)
	return b, err
}

// readBody grows with what really arrives: a length alone takes no memory.
func readBody(r io.Reader, size int) ([]byte, error) {
	const step = 64 << 10
	b := make([]byte, min(size, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			return nil, noEOF(err)
		}
		if have = len(b); have == size {
			return b, nil
		}
		more := make([]byte, min(size, have*growth))
		copy(more, b)
		b = more
	}
}

// growth is how many times what came there may be memory for what is announced.
const growth = 8

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write sends one frame.
func (f *Framer) Write(b []byte) error {
	if err := f.d.SetWriteDeadline(time.Now().Add(f.stall)); err != nil {
		return err
	}
	head := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64), uint64(len(b)))
	if _, err := f.out.Write(head); err != nil {
		return err
	}
	if _, err := f.out.Write(b); err != nil {
		return err
	}
	f.count(0, len(head)+len(b))
	return f.out.Flush()
}

// Interrupt ends a read that waits, and all later ones.
func (f *Framer) Interrupt() error { return f.d.SetReadDeadline(time.Unix(1, 0)) }

// Get reads a message.
func (f *Framer) Get() (*Message, error) {
	b, err := f.Read()
	if err != nil {
		return nil, err
	}
	return DecodeMessage(b)
}

// Put writes a message.
func (f *Framer) Put(m *Message) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	return f.Write(b)
}
