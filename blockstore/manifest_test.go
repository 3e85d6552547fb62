package blockstore_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multihash"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore/blockstoretest"
)

// manifests returns manifests of different head lengths.
func manifests() []blockstore.Manifest {
	var list []blockstore.Manifest
	for _, n := range []int{2, 23, 24, 255, 256, 4096, 4097, blockstore.MaxLinks} {
		for _, last := range []int64{1, blockstore.ChunkSize} {
			m := blockstore.Manifest{Size: int64(n-1)*blockstore.ChunkSize + last, Links: make([]tinycloud.Hash, n)}
			for i := range m.Links {
				m.Links[i] = tinycloud.Sum([]byte{byte(i), byte(i >> 8), byte(last)})
			}
			list = append(list, m)
		}
	}
	return list
}

// TestManifestIsCanonical compares with what the IPLD library makes of the same fields.
func TestManifestIsCanonical(t *testing.T) {
	for _, m := range manifests() {
		got := m.Encode()
		if len(got) > blockstore.ChunkSize {
			t.Errorf("%d links: block of %d bytes", len(m.Links), len(got))
		}
		var want bytes.Buffer
		if err := dagcbor.Encode(node(t, m), &want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%d links: encoding differs", len(m.Links))
		}
		back, err := blockstore.DecodeManifest(got)
		if err != nil || back.Size != m.Size || !slices.Equal(back.Links, m.Links) {
			t.Errorf("%d links: %v %s", len(m.Links), err, cmp.Diff(m, back))
		}
		if p := m.CID().Prefix(); p.Version != 1 || p.Codec != cid.DagCBOR || p.MhType != multihash.BLAKE3 || tinycloud.HashOf(m.CID()) != tinycloud.Sum(got) {
			t.Errorf("%d links: CID %s", len(m.Links), m.CID())
		}
	}
}

func node(t *testing.T, m blockstore.Manifest) datamodel.Node {
	t.Helper()
	b := basicnode.Prototype.Any.NewBuilder()
	ma, err := b.BeginMap(3)
	if err != nil {
		t.Fatal(err)
	}
	size, err1 := ma.AssembleEntry("size")
	err2 := size.AssignInt(m.Size)
	chunk, err3 := ma.AssembleEntry("chunk")
	err4 := chunk.AssignInt(blockstore.ChunkSize)
	links, err5 := ma.AssembleEntry("links")
	la, err6 := links.BeginList(int64(len(m.Links)))
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	for _, h := range m.Links {
		if err := la.AssembleValue().AssignLink(cidlink.Link{Cid: h.CID(cid.Raw)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(la.Finish(), ma.Finish()); err != nil {
		t.Fatal(err)
	}
	return b.Build()
}

func TestDecodeManifestRefuses(t *testing.T) {
	good := manifests()[0].Encode()
	edit := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	for name, b := range map[string][]byte{
		"nothing":             {},
		"cut":                 good[:len(good)-1],
		"trailing byte":       append(bytes.Clone(good), 0),
		"two fields":          edit(0, 0xa2),
		"size of one chunk":   edit(7, 0x00, 0x10, 0x00, 0x00),
		"size of 3 chunks":    edit(7, 0x00, 0x20, 0x00, 0x01),
		"other chunk size":    edit(18, 0x00, 0x20),
		"negative size":       edit(6, 0x3a),
		"codec dag-cbor":      edit(len(good)-82+6, 0x71),
		"hash function":       edit(len(good)-82+7, 0x12),
		"size in 64 bits":     append(append([]byte("\xa3\x64size\x1b\x00\x00\x00\x00"), good[7:11]...), good[11:]...),
		"longer than a block": make([]byte, blockstore.ChunkSize+1),
	} {
		if _, err := blockstore.DecodeManifest(b); !errors.Is(err, tinycloud.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := blockstore.DecodeManifest(good); err != nil {
		t.Fatal(err)
	}
}

func TestBuildManifest(t *testing.T) {
	body := blockstoretest.Body(1, 2*blockstore.ChunkSize+1)
	hash, m, err := blockstore.BuildManifest(bytes.NewReader(body))
	want := blockstore.Manifest{Size: int64(len(body)), Links: []tinycloud.Hash{
		tinycloud.Sum(body[:1<<20]), tinycloud.Sum(body[1<<20 : 2<<20]), tinycloud.Sum(body[2<<20:]),
	}}
	if d := cmp.Diff(want, m); err != nil || d != "" || hash != tinycloud.Sum(body) {
		t.Errorf("%v %s %s", err, hash, d)
	}
	hash, m, err = blockstore.BuildManifest(bytes.NewReader(body[:1<<20]))
	if err != nil || m.Links != nil || m.Size != 1<<20 || hash != tinycloud.Sum(body[:1<<20]) {
		t.Errorf("one chunk: %v %v %s", err, m, hash)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	seeds := 0
	for _, m := range manifests() {
		if len(m.Links) < 30 {
			f.Add(m.Encode())
			seeds++
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := blockstore.DecodeManifest(b)
		if err != nil {
			if !errors.Is(err, tinycloud.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if err := m.Check(); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(m.Encode(), b) {
			t.Error("accepted bytes that are not canonical")
		}
	})
}
