package blockstore

import (
	"context"
	"errors"
	"fmt"

	bstore "github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

var (
	_ bstore.Blockstore = (*Blocks)(nil)
	_ bstore.Viewer     = (*Blocks)(nil)
)

// Blocks is what one Space holds, as blocks of at most [ChunkSize] bytes: values, chunks and manifests of
// longer values, and what Options.Inline gives. Every block read is hashed, so one whose bytes went wrong
// is not found. A block that isn't there gives an error that ipld.IsNotFound knows, of class
// [tinycloud.ErrNotFound].
//
// It cannot be written or listed: what peers send goes to who asked for it, never here by itself, and what
// a Space holds is answered block by block. boxo's bitswap does neither.
type Blocks struct {
	s     *Store
	space tinycloud.SpaceID
}

// Blocks returns the view of a Space.
func (s *Store) Blocks(space tinycloud.SpaceID) *Blocks { return &Blocks{s, space} }

// Get returns a block.
func (b *Blocks) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	data, err := b.read(ctx, c)
	if err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(data, c)
}

// View calls fn with the bytes of a block.
func (b *Blocks) View(ctx context.Context, c cid.Cid, fn func([]byte) error) error {
	data, err := b.read(ctx, c)
	if err != nil {
		return err
	}
	return fn(data)
}

// Has reports whether the Space holds a block.
func (b *Blocks) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := b.GetSize(ctx, c)
	if ipld.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// GetSize returns the size of a block in bytes, without reading it if it is in a file.
func (b *Blocks) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	hash, ok := blockHash(c)
	if !ok {
		return 0, notFound(c)
	}
	size := -1
	err := b.find(ctx, c, hash, func(p piece) (bool, error) {
		size = p.length
		return true, nil
	})
	if err == nil && size < 0 {
		err = notFound(c)
	}
	return size, err
}

// read returns a block's bytes from the first place that has them right.
func (b *Blocks) read(ctx context.Context, c cid.Cid) (data []byte, err error) {
	hash, ok := blockHash(c)
	if !ok {
		return nil, notFound(c)
	}
	err = b.find(ctx, c, hash, func(p piece) (bool, error) {
		got, err := p.read(ctx)
		if errors.Is(err, tinycloud.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if tinycloud.Sum(got) != hash {
			b.s.log.WarnContext(ctx, "stored block has other bytes than its name says", "space", b.space, "block", c)
			return false, nil
		}
		data = got
		return true, nil
	})
	if err == nil && data == nil {
		err = notFound(c)
	}
	return data, err
}

// piece is a place where a block may be.
type piece struct {
	length int
	read   func(context.Context) ([]byte, error)
}

// find calls fn with the places where a block may be, the cheapest to look at first, until it returns true.
func (b *Blocks) find(ctx context.Context, c cid.Cid, hash tinycloud.Hash, fn func(piece) (bool, error)) error {
	type place = func(context.Context, tinycloud.Hash, func(piece) (bool, error)) (bool, error)
	places := []place{b.file, b.inline, b.chunk}
	if c.Prefix().Codec == cid.DagCBOR {
		places = []place{b.manifest, b.inline}
	}
	for {
		for _, look := range places {
			if done, err := look(ctx, hash, fn); done || err != nil {
				return err
			}
		}
		// It may be part of a value that another process put into the bucket.
		if b.s.o.S3 == nil || !b.s.catchUp(ctx, b.space) {
			return nil
		}
	}
}

// file looks for a whole value.
func (b *Blocks) file(ctx context.Context, hash tinycloud.Hash, fn func(piece) (bool, error)) (bool, error) {
	size, err := b.s.Size(ctx, b.space, hash)
	if errors.Is(err, tinycloud.ErrNotFound) || err == nil && size > ChunkSize {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return fn(b.s.piece(b.space, hash, 0, int(size)))
}

// chunk looks for a part of a longer value.
func (b *Blocks) chunk(ctx context.Context, hash tinycloud.Hash, fn func(piece) (bool, error)) (done bool, err error) {
	err = b.s.index.chunk(ctx, b.space, hash, func(value tinycloud.Hash, i int) (bool, error) {
		size, err := b.s.Size(ctx, b.space, value)
		if errors.Is(err, tinycloud.ErrNotFound) || err == nil && size <= int64(i)*ChunkSize {
			return false, nil // another value may have it
		}
		if err != nil {
			return false, err
		}
		done, err = fn(b.s.piece(b.space, value, int64(i)*ChunkSize, Manifest{Size: size}.length(i)))
		return done, err
	})
	return done, err
}

// manifest makes the manifest block of a longer value.
func (b *Blocks) manifest(ctx context.Context, hash tinycloud.Hash, fn func(piece) (bool, error)) (bool, error) {
	value, ok, err := b.s.index.manifest(ctx, b.space, hash)
	if err != nil || !ok {
		return false, err
	}
	// The value itself has to be there: its entries may outlive it.
	m, err := b.s.index.value(ctx, b.space, value)
	if err == nil {
		_, err = b.s.Size(ctx, b.space, value)
	}
	if errors.Is(err, tinycloud.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return fn(bytesPiece(m.Encode()))
}

// inline looks outside the files.
func (b *Blocks) inline(ctx context.Context, hash tinycloud.Hash, fn func(piece) (bool, error)) (bool, error) {
	if b.s.o.Inline == nil {
		return false, nil
	}
	data, err := b.s.o.Inline(ctx, b.space, hash)
	if errors.Is(err, tinycloud.ErrNotFound) || err == nil && len(data) > ChunkSize {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return fn(bytesPiece(data))
}

func bytesPiece(data []byte) piece {
	if data == nil {
		data = []byte{}
	}
	return piece{len(data), func(context.Context) ([]byte, error) { return data, nil }}
}

func (s *Store) piece(space tinycloud.SpaceID, value tinycloud.Hash, offset int64, length int) piece {
	return piece{length, func(ctx context.Context) ([]byte, error) {
		data := make([]byte, length)
		if err := s.values.readAt(ctx, space, value, data, offset); err != nil {
			return nil, err
		}
		return data, nil
	}}
}

// blockHash returns the digest of a CID that can name a block of ours.
func blockHash(c cid.Cid) (tinycloud.Hash, bool) {
	if !c.Defined() {
		return tinycloud.Hash{}, false
	}
	p := c.Prefix()
	ok := p.Version == 1 && (p.Codec == cid.Raw || p.Codec == cid.DagCBOR) && p.MhType == multihash.BLAKE3 && p.MhLength == 32
	return tinycloud.HashOf(c), ok
}

func notFound(c cid.Cid) error {
	return fmt.Errorf("%w: %w", ipld.ErrNotFound{Cid: c}, tinycloud.ErrNotFound)
}

var errReadOnly = fmt.Errorf("blocks of a space are for reading: %w", tinycloud.ErrUnsupported)

// Put is refused.
func (b *Blocks) Put(context.Context, blocks.Block) error { return errReadOnly }

// PutMany is refused.
func (b *Blocks) PutMany(context.Context, []blocks.Block) error { return errReadOnly }

// DeleteBlock is refused.
func (b *Blocks) DeleteBlock(context.Context, cid.Cid) error { return errReadOnly }

// AllKeysChan is refused.
func (b *Blocks) AllKeysChan(context.Context) (<-chan cid.Cid, error) { return nil, errReadOnly }
