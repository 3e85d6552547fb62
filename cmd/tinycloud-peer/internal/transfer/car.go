package transfer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Bounds of a CAR.
const (
	maxBlock  = 4 << 20
	maxHeader = 64 << 10
)

// carWriter writes a CARv1: length-prefixed sections of a CID and its bytes.
type carWriter struct {
	w *bufio.Writer
	n int64
}

func newCARWriter(w io.Writer, root cid.Cid) (*carWriter, error) {
	c := &carWriter{w: bufio.NewWriterSize(w, 64<<10)}
	head, err := encodeHeader(root)
	if err != nil {
		return nil, err
	}
	return c, c.section(head)
}

func (c *carWriter) section(parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	head := binary.AppendUvarint(nil, uint64(size))
	for _, p := range append([][]byte{head}, parts...) {
		if _, err := c.w.Write(p); err != nil {
			return err
		}
		c.n += int64(len(p))
	}
	return nil
}

// block writes a block and returns its CID.
func (c *carWriter) block(codec uint64, b []byte) (cid.Cid, error) {
	id := tinycloud.Sum(b).CID(codec)
	return id, c.section(id.Bytes(), b)
}

// carReader reads a CARv1 whose blocks are hashed by BLAKE3, and compares their hashes.
type carReader struct {
	r    *bufio.Reader
	n    int64
	root cid.Cid
}

// errCut means that a file ends in the middle.
var errCut = fmt.Errorf("the file is cut short: what came before is imported, import the whole file to go on: %w", tinycloud.ErrInvalid)

func newCARReader(r io.Reader) (*carReader, error) {
	c := &carReader{r: bufio.NewReaderSize(r, 64<<10)}
	b, err := c.section(maxHeader)
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	if err != nil {
		return nil, err
	}
	c.root, err = decodeHeader(b)
	return c, err
}

// section returns the next section; io.EOF between sections.
func (c *carReader) section(limit uint64) ([]byte, error) {
	size, err := binary.ReadUvarint(c.r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errCut
	}
	if err != nil {
		return nil, err
	}
	if size == 0 || size > limit {
		return nil, fmt.Errorf("CAR section of %d bytes: %w", size, tinycloud.ErrInvalid)
	}
	var buf bytes.Buffer // grows with what is there
	if _, err := io.CopyN(&buf, c.r, int64(size)); err != nil {
		if errors.Is(err, io.EOF) {
			err = errCut
		}
		return nil, err
	}
	c.n += int64(size)
	return buf.Bytes(), nil
}

// block returns the next block; errCut at the end of the file, which ends with a block that says so.
func (c *carReader) block() (tinycloud.Hash, uint64, []byte, error) {
	b, err := c.section(maxBlock)
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	if err != nil {
		return tinycloud.Hash{}, 0, nil, err
	}
	n, id, err := cid.CidFromBytes(b)
	if err != nil {
		return tinycloud.Hash{}, 0, nil, fmt.Errorf("CAR block: %v: %w", err, tinycloud.ErrInvalid)
	}
	h := tinycloud.Sum(b[n:])
	if !h.CID(id.Type()).Equals(id) {
		return tinycloud.Hash{}, 0, nil, fmt.Errorf("CAR block %s has other bytes: %w", id, tinycloud.ErrForged)
	}
	return h, id.Type(), b[n:], nil
}
