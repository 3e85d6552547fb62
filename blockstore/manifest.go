package blockstore

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/zeebo/blake3"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

const (
	// ChunkSize is the size in bytes of every chunk but the last, and of the largest block.
	ChunkSize = 1 << 20
	// MaxLinks is how many chunks a manifest that is itself a block can list.
	MaxLinks = (ChunkSize - manifestHead) / linkSize
	// MaxSize is the size in bytes of the largest value.
	MaxSize = MaxLinks * ChunkSize
)

const (
	manifestHead = 1 + 5 + 9 + 6 + 5 + 6 + 5              // map; "size", "chunk" and "links" with their numbers at their longest
	linkPrefix   = "\xd8\x2a\x58\x25\x00\x01\x55\x1e\x20" // tag 42, 37 bytes: identity multibase, CIDv1 raw, BLAKE3 of 32 bytes
	linkSize     = 9 + 32
)

// Manifest lists the chunks of a value: Links[i] is the digest of its bytes from i × [ChunkSize] on. It is
// a pure function of the value. A value of at most ChunkSize bytes is its own block and has no Links.
type Manifest struct {
	Size  int64 // of the value, bytes
	Links []tinycloud.Hash
}

// BuildManifest hashes a value: whole, and by chunk. The error is the reader's, or of class
// [tinycloud.ErrTooLarge] above [MaxSize].
func BuildManifest(r io.Reader) (tinycloud.Hash, Manifest, error) {
	d := newDigester()
	buf := make([]byte, copyBuffer)
	for {
		n, err := r.Read(buf)
		if d.size+int64(n) > MaxSize {
			return tinycloud.Hash{}, Manifest{}, fmt.Errorf("value of more than %d bytes: %w", int64(MaxSize), tinycloud.ErrTooLarge)
		}
		d.write(buf[:n])
		if err == io.EOF {
			hash, m := d.finish()
			return hash, m, nil
		}
		if err != nil {
			return tinycloud.Hash{}, Manifest{}, err
		}
	}
}

// Check reports whether m can be the manifest of some value of more than ChunkSize bytes: one link for each
// chunk of its size. The error is of class [tinycloud.ErrInvalid].
func (m Manifest) Check() error {
	if m.Size <= ChunkSize || m.Size > MaxSize || int64(len(m.Links)) != chunks(m.Size) {
		return fmt.Errorf("manifest of %d bytes in %d chunks: %w", m.Size, len(m.Links), tinycloud.ErrInvalid)
	}
	return nil
}

// Encode returns the manifest block {size, chunk, links} in canonical DAG-CBOR.
func (m Manifest) Encode() []byte {
	b := make([]byte, 0, manifestHead+len(m.Links)*linkSize)
	b = append(b, "\xa3\x64size"...)
	b = cbor.AppendHead(b, cbor.Uint, uint64(m.Size))
	b = append(b, "\x65chunk"...)
	b = cbor.AppendHead(b, cbor.Uint, ChunkSize)
	b = append(b, "\x65links"...)
	b = cbor.AppendHead(b, cbor.Array, uint64(len(m.Links)))
	for i := range m.Links {
		b = append(append(b, linkPrefix...), m.Links[i][:]...)
	}
	return b
}

// CID returns the CID of the manifest block.
func (m Manifest) CID() cid.Cid { return tinycloud.Sum(m.Encode()).CID(tinycloud.CBORCodec) }

// DecodeManifest reads a manifest block. Only the bytes Encode makes of a manifest that passes Check are
// accepted. The error is of class [tinycloud.ErrInvalid].
func DecodeManifest(b []byte) (Manifest, error) {
	bad := func(what string) (Manifest, error) {
		return Manifest{}, fmt.Errorf("manifest: %s: %w", what, tinycloud.ErrInvalid)
	}
	if len(b) > ChunkSize {
		return bad("longer than a block")
	}
	size, rest, ok := field(b, "\xa3\x64size", cbor.Uint)
	if !ok || size <= ChunkSize || size > MaxSize {
		return bad("size")
	}
	chunk, rest, ok := field(rest, "\x65chunk", cbor.Uint)
	if !ok || chunk != ChunkSize {
		return bad("chunk size")
	}
	count, rest, ok := field(rest, "\x65links", cbor.Array)
	if !ok || int64(count) != chunks(int64(size)) || len(rest) != int(count)*linkSize {
		return bad("number of links")
	}
	m := Manifest{Size: int64(size), Links: make([]tinycloud.Hash, count)}
	for i := range m.Links {
		if !bytes.HasPrefix(rest, []byte(linkPrefix)) {
			return bad("link")
		}
		m.Links[i] = tinycloud.Hash(rest[len(linkPrefix):linkSize])
		rest = rest[linkSize:]
	}
	return m, nil
}

// length returns how long chunk i is.
func (m Manifest) length(i int) int {
	return int(min(ChunkSize, m.Size-int64(i)*ChunkSize))
}

func chunks(size int64) int64 { return (size + ChunkSize - 1) / ChunkSize }

// field reads a literal and the head of one item of a major type, in its shortest form.
func field(b []byte, literal string, major byte) (n uint64, rest []byte, ok bool) {
	if b, ok = bytes.CutPrefix(b, []byte(literal)); !ok {
		return 0, nil, false
	}
	n, size, err := cbor.Head(b, major)
	return n, b[size:], err == nil
}

// digester hashes a value whole and, when it is longer than a chunk, by chunk.
type digester struct {
	whole, chunk *blake3.Hasher
	size         int64
	links        []tinycloud.Hash
}

func newDigester() *digester { return &digester{whole: blake3.New(), chunk: blake3.New()} }

func (d *digester) write(p []byte) {
	for len(p) > 0 {
		part := p[:min(int64(len(p)), ChunkSize-d.size%ChunkSize)]
		p = p[len(part):]
		_, _ = d.whole.Write(part) // a hasher returns no error
		// The first chunk is the whole so far: hashing it twice would double the price of most values.
		if d.size >= ChunkSize {
			_, _ = d.chunk.Write(part)
		}
		d.size += int64(len(part))
		if d.size%ChunkSize == 0 {
			d.cut()
		}
	}
}

func (d *digester) cut() {
	if d.size == ChunkSize {
		d.links = append(d.links, digest(d.whole))
		return
	}
	d.links = append(d.links, digest(d.chunk))
	d.chunk.Reset()
}

func (d *digester) finish() (tinycloud.Hash, Manifest) {
	if d.size%ChunkSize != 0 {
		d.cut()
	}
	m := Manifest{Size: d.size}
	if d.size > ChunkSize {
		m.Links = d.links
	}
	return digest(d.whole), m
}

func digest(h *blake3.Hasher) (sum tinycloud.Hash) {
	h.Sum(sum[:0])
	return sum
}
