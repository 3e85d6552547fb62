package blockstoretest

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
)

// cids returns the blocks a body travels as: itself, or its manifest and chunks.
func cids(t *testing.T, body []byte) []cid.Cid {
	t.Helper()
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if m.Links == nil {
		return []cid.Cid{hash.CID(cid.Raw)}
	}
	list := []cid.Cid{m.CID()}
	for _, link := range m.Links {
		list = append(list, link.CID(cid.Raw))
	}
	return list
}

// wantBlocks reads the blocks of a body and puts it together from them.
func (b *bench) wantBlocks(space tinycloud.SpaceID, body []byte) {
	b.t.Helper()
	var got []byte
	list := cids(b.t, body)
	for i, c := range list {
		data := b.wantBlock(space, c)
		if len(list) == 1 || i > 0 {
			got = append(got, data...)
			continue
		}
		m, err := blockstore.DecodeManifest(data)
		b.must(err)
		if m.Size != int64(len(body)) || len(m.Links) != len(list)-1 {
			b.t.Errorf("manifest of %d bytes, %d links", m.Size, len(m.Links))
		}
	}
	if !bytes.Equal(got, body) {
		b.t.Errorf("blocks of a body of %d bytes give %d other bytes", len(body), len(got))
	}
}

func (b *bench) wantBlock(space tinycloud.SpaceID, c cid.Cid) []byte {
	b.t.Helper()
	view := b.Blocks(space)
	blk, err := view.Get(b.t.Context(), c)
	b.must(err)
	if !blk.Cid().Equals(c) || tinycloud.Sum(blk.RawData()) != tinycloud.HashOf(c) {
		b.t.Fatalf("block %s has other bytes", c)
	}
	has, err := view.Has(b.t.Context(), c)
	if !has || err != nil {
		b.t.Errorf("Has = %v, %v", has, err)
	}
	size, err := view.GetSize(b.t.Context(), c)
	if size != len(blk.RawData()) || err != nil {
		b.t.Errorf("GetSize = %d, %v, want %d", size, err, len(blk.RawData()))
	}
	viewed := errors.New("viewed")
	err = view.View(b.t.Context(), c, func(data []byte) error {
		if !bytes.Equal(data, blk.RawData()) {
			b.t.Errorf("View and Get differ")
		}
		return viewed
	})
	b.wantClass(err, viewed)
	return blk.RawData()
}

func (b *bench) wantNoBlock(space tinycloud.SpaceID, c cid.Cid) {
	b.t.Helper()
	view := b.Blocks(space)
	if has, err := view.Has(b.t.Context(), c); has || err != nil {
		b.t.Errorf("Has(%s) = %v, %v", c, has, err)
	}
	_, err1 := view.Get(b.t.Context(), c)
	_, err2 := view.GetSize(b.t.Context(), c)
	err3 := view.View(b.t.Context(), c, func([]byte) error { return errors.New("viewed") })
	for _, err := range []error{err1, err2, err3} {
		if !ipld.IsNotFound(err) || !errors.Is(err, tinycloud.ErrNotFound) {
			b.t.Errorf("block %s: %v, want not found", c, err)
		}
	}
}

func testBlocks(t *testing.T, b *bench) {
	space := Space(t, "default")
	for i, size := range sizes {
		b.commit(space, Body(byte(i), size))
	}
	small, large := []byte("kept elsewhere"), Body(99, blockstore.ChunkSize+1)
	b.inline = map[tinycloud.Hash][]byte{tinycloud.Sum(small): small, tinycloud.Sum(large): large}
	for range 2 {
		for i, size := range sizes {
			b.wantBlocks(space, Body(byte(i), size))
		}
		b.wantBlocks(space, small)
		b.wantBlock(space, tinycloud.Sum(small).CID(cid.DagCBOR)) // an epoch, say
		b.reopen()
	}
	whole := tinycloud.Sum(Body(byte(len(sizes)-1), sizes[len(sizes)-1]))
	sha, err := multihash.Sum(small, multihash.SHA2_256, -1)
	b.must(err)
	for _, c := range []cid.Cid{
		whole.CID(cid.Raw), // too long for a block
		tinycloud.Sum(large).CID(cid.Raw),
		whole.CID(cid.DagCBOR),
		tinycloud.Sum([]byte("unknown")).CID(cid.Raw),
		tinycloud.Sum([]byte("unknown")).CID(cid.DagCBOR),
		tinycloud.Sum(small).CID(cid.DagProtobuf),
		cid.NewCidV1(cid.Raw, sha),
		cid.NewCidV0(sha),
		cid.Undef,
	} {
		b.wantNoBlock(space, c)
	}
}

func testSharedChunk(t *testing.T, b *bench) {
	space := Space(t, "default")
	chunk := Body(1, blockstore.ChunkSize)
	one := slices.Concat(chunk, chunk, []byte("one"))
	two := slices.Concat([]byte{}, Body(2, blockstore.ChunkSize), chunk)
	b.commit(space, one)
	b.commit(space, two)
	b.wantBlocks(space, one)
	b.wantBlocks(space, two)
	b.must(b.Delete(t.Context(), space, tinycloud.Sum(one)))
	b.wantBlocks(space, two)
	b.commit(space, chunk)
	b.must(b.Delete(t.Context(), space, tinycloud.Sum(two)))
	b.wantBlocks(space, chunk)
	b.must(b.Delete(t.Context(), space, tinycloud.Sum(chunk)))
	b.wantNoBlock(space, tinycloud.Sum(chunk).CID(cid.Raw))
}

func testBlocksReadOnly(t *testing.T, b *bench) {
	space := Space(t, "default")
	view, blk := b.Blocks(space), blocks.NewBlock([]byte("pushed"))
	b.wantClass(view.Put(t.Context(), blk), tinycloud.ErrUnsupported)
	b.wantClass(view.PutMany(t.Context(), []blocks.Block{blk}), tinycloud.ErrUnsupported)
	hash := b.commit(space, []byte("stays"))
	b.wantClass(view.DeleteBlock(t.Context(), hash.CID(cid.Raw)), tinycloud.ErrUnsupported)
	_, err := view.AllKeysChan(t.Context())
	b.wantClass(err, tinycloud.ErrUnsupported)
	b.wantAbsent(space, tinycloud.Sum([]byte("pushed")))
	b.wantValue(space, []byte("stays"))
}
