// Package wal reads write-ahead logs of SQLite, and writes what is left of one when its beginning was moved to the database.
// It knows their bytes and nothing of what they mean; nobody else may write to a log meanwhile.
//
// Format: https://www.sqlite.org/fileformat2.html#walformat
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Sizes in bytes.
const (
	PageSize   = 4096
	headerSize = 32
	frameHead  = 24
	frameSize  = frameHead + PageSize
	batch      = 64 // frames read at once
)

// Salt is what the frames of one log have in common.
type Salt [8]byte

// Sum is the running checksum of a log.
type Sum [2]uint32

var be = binary.BigEndian

func (s Sum) over(o binary.ByteOrder, b []byte) Sum {
	for i := 0; i+8 <= len(b); i += 8 {
		s[0] += o.Uint32(b[i:]) + s[1]
		s[1] += o.Uint32(b[i+4:]) + s[0]
	}
	return s
}

func readSum(b []byte) Sum { return Sum{be.Uint32(b), be.Uint32(b[4:])} }

type header struct {
	order binary.ByteOrder // of checksums
	seq   uint32
	salt  Salt
	sum   Sum
}

var errHeader = errors.New("no header of a write-ahead log")

func readHeader(r io.Reader) (h header, err error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, errHeader
	}
	switch be.Uint32(b[:]) {
	case 0x377f0682:
		h.order = binary.LittleEndian
	case 0x377f0683:
		h.order = binary.BigEndian
	default:
		return h, errHeader
	}
	h.seq, h.salt = be.Uint32(b[12:]), Salt(b[16:24])
	h.sum = Sum{}.over(h.order, b[:24])
	if be.Uint32(b[8:]) != PageSize || h.sum != readSum(b[24:]) {
		return h, errHeader
	}
	return h, nil
}

func makeHeader(seq uint32, salt Salt) ([]byte, header) {
	b := make([]byte, headerSize)
	be.PutUint32(b, 0x377f0682)
	be.PutUint32(b[4:], 3007000)
	be.PutUint32(b[8:], PageSize)
	be.PutUint32(b[12:], seq)
	copy(b[16:], salt[:])
	h := header{binary.LittleEndian, seq, salt, Sum{}.over(binary.LittleEndian, b[:24])}
	be.PutUint32(b[24:], h.sum[0])
	be.PutUint32(b[28:], h.sum[1])
	return b, h
}

// Frame is a page as a transaction left it.
type Frame struct {
	Page  uint32
	Pages uint32 // of the database, in the last frame of a transaction; else 0
	Data  []byte
	Sum   Sum // of the log up to its end
}

// Scan calls f for the frames of a log from the first, up to the first that is not whole or until f returns false. A log
// without a header has none.
func Scan(path string, f func(i int, fr Frame) bool) (Salt, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return Salt{}, nil
	}
	if err != nil {
		return Salt{}, err
	}
	defer func() { _ = file.Close() }()
	h, err := readHeader(file)
	if err != nil {
		return Salt{}, nil
	}
	sum := h.sum
	buf := make([]byte, frameSize*batch)
	for i := 0; ; {
		n, err := io.ReadFull(file, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return h.salt, err
		}
		for o := 0; o+frameSize <= n; o += frameSize {
			b := buf[o : o+frameSize]
			sum = sum.over(h.order, b[:8]).over(h.order, b[frameHead:])
			if Salt(b[8:16]) != h.salt || sum != readSum(b[16:]) {
				return h.salt, nil
			}
			if !f(i, Frame{be.Uint32(b), be.Uint32(b[4:]), b[frameHead:], sum}) {
				return h.salt, nil
			}
			i++
		}
		if err != nil {
			return h.salt, nil
		}
	}
}

// End is where a log with so many frames ends.
func End(frames int) int64 { return headerSize + int64(frames)*frameSize }

// Tip is what the header of the last of so many frames says.
func Tip(log io.ReaderAt, frames int) (pages uint32, salt Salt, sum Sum, err error) {
	var b [frameHead]byte
	if _, err = log.ReadAt(b[:], End(frames-1)); err != nil {
		return 0, Salt{}, Sum{}, fmt.Errorf("frame %d of the write-ahead log: %w", frames, err)
	}
	return be.Uint32(b[4:]), Salt(b[8:16]), readSum(b[16:]), nil
}

// Page reads the page of a frame, counted from 0.
func Page(log io.ReaderAt, frame int, page []byte) error {
	_, err := log.ReadAt(page, End(frame)+frameHead)
	return err
}

// Tail writes to a file the log that has only the frames from one on, with a salt of its own, and syncs it. It returns the
// running checksum after each of them.
func Tail(src, dst string, from int, salt Salt) (sums []Sum, err error) {
	in, err := os.Open(src)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	old, err := readHeader(in)
	if err != nil {
		return nil, err
	}
	out, err := os.Create(dst)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	head, h := makeHeader(old.seq+1, salt)
	if _, err := out.Write(head); err != nil {
		return nil, err
	}
	if _, err := in.Seek(End(from), io.SeekStart); err != nil {
		return nil, err
	}
	sum, was := h.sum, old.sum
	if from > 0 {
		if _, _, was, err = Tip(in, from); err != nil {
			return nil, err
		}
	}
	buf := make([]byte, frameSize*batch)
	for {
		n, err := io.ReadFull(in, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		n -= n % frameSize
		for o := 0; o < n; o += frameSize {
			b := buf[o : o+frameSize]
			if was = was.over(old.order, b[:8]).over(old.order, b[frameHead:]); was != readSum(b[16:]) {
				return nil, fmt.Errorf("frame %d of the write-ahead log is not what was written", from+len(sums)+1)
			}
			copy(b[8:16], salt[:])
			sum = sum.over(h.order, b[:8]).over(h.order, b[frameHead:])
			be.PutUint32(b[16:], sum[0])
			be.PutUint32(b[20:], sum[1])
			sums = append(sums, sum)
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return nil, err
		}
		if err != nil {
			return sums, out.Sync()
		}
	}
}

// sizes of SQLite's index of a log (-shm): a header in two copies.
const indexHeader = 48

// SetBack makes the index of a log say that the log ends with a frame, and cuts the log there: what SQLite itself leaves
// when a writer dies after that frame. No connection may be in a transaction.
func SetBack(log, index *os.File, frames int) error {
	pages, salt, sum, err := Tip(log, frames)
	if err != nil {
		return err
	}
	var h [indexHeader]byte
	if _, err := index.ReadAt(h[:], 0); err != nil {
		return err
	}
	ne := binary.NativeEndian
	if ne.Uint32(h[:]) != 3007000 || Salt(h[32:40]) != salt {
		return errors.New("the index of the write-ahead log is another's")
	}
	ne.PutUint32(h[8:], ne.Uint32(h[8:])+1) // its number of changes
	ne.PutUint32(h[16:], uint32(frames))
	ne.PutUint32(h[20:], pages)
	ne.PutUint32(h[24:], sum[0])
	ne.PutUint32(h[28:], sum[1])
	own := Sum{}.over(ne, h[:40])
	ne.PutUint32(h[40:], own[0])
	ne.PutUint32(h[44:], own[1])
	if _, err := index.WriteAt(append(h[:], h[:]...), 0); err != nil {
		return err
	}
	return log.Truncate(End(frames))
}
