package transfer

import (
	"bytes"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// The blocks that say what the others are, and the header of the file, are IPLD: any tool for CARs shows them.

// maxRecord bounds the bytes of a record. The longest is that of an entry.
const maxRecord = 128

func encode(n datamodel.Node, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = dagcbor.Encode(n, &b)
	return b.Bytes(), err
}

// decode reads DAG-CBOR of no more than a few kilobytes.
func decode(b []byte) (datamodel.Node, error) {
	build := basicnode.Prototype.Any.NewBuilder()
	if err := (dagcbor.DecodeOptions{AllowLinks: true, MaxDepth: 8}).Decode(build, bytes.NewReader(b)); err != nil {
		return nil, err
	}
	return build.Build(), nil
}

func link(c cid.Cid) qp.Assemble { return qp.Link(cidlink.Link{Cid: c}) }

// encodeHeader returns the header of a CARv1.
func encodeHeader(root cid.Cid) ([]byte, error) {
	return encode(qp.BuildMap(basicnode.Prototype.Any, 2, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "roots", qp.List(1, func(l datamodel.ListAssembler) { qp.ListEntry(l, link(root)) }))
		qp.MapEntry(m, "version", qp.Int(1))
	}))
}

// decodeHeader returns the only root that the header of a CARv1 names.
func decodeHeader(b []byte) (cid.Cid, error) {
	f := fields{}
	f.node, f.err = decode(b)
	version := f.number("version")
	roots := f.get("roots")
	if f.err != nil || version != 1 || roots.Length() != 1 {
		return cid.Undef, fmt.Errorf("not a CAR of version 1 with one root: %w", tinycloud.ErrInvalid)
	}
	root, err := roots.LookupByIndex(0)
	if err != nil {
		return cid.Undef, fmt.Errorf("CAR root: %v: %w", err, tinycloud.ErrInvalid)
	}
	c, err := asCID(root)
	if err != nil {
		return cid.Undef, fmt.Errorf("CAR root: %v: %w", err, tinycloud.ErrInvalid)
	}
	return c, nil
}

// encodeRoot returns the root block.
func encodeRoot(space tinycloud.SpaceID) ([]byte, error) {
	return encode(qp.BuildMap(basicnode.Prototype.Any, 2, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "space", qp.String(space.String()))
		qp.MapEntry(m, "tinycloud", qp.Int(carVersion))
	}))
}

// decodeRoot reads the root block.
func decodeRoot(b []byte) (tinycloud.SpaceID, error) {
	f := fields{}
	f.node, f.err = decode(b)
	version, space := f.number("tinycloud"), f.text("space")
	if f.err != nil || version != carVersion {
		return tinycloud.SpaceID{}, fmt.Errorf("not a Space that this program exported: %w", tinycloud.ErrInvalid)
	}
	return tinycloud.ParseSpaceID(space)
}

// record is a block that says what the blocks around it are: those before it an entry, those behind it a value.
type record struct {
	of   tinycloud.Hash
	sig  *hostlog.Signature // of an entry
	size int64              // of a value
}

// end is the last record: a list of nothing.
var end = []byte{0x80}

func encodeRecord(of cid.Cid, with qp.Assemble) ([]byte, error) {
	return encode(qp.BuildList(basicnode.Prototype.Any, 2, func(l datamodel.ListAssembler) {
		qp.ListEntry(l, link(of))
		qp.ListEntry(l, with)
	}))
}

// decodeRecord reads a record; ok is false for any other block.
func decodeRecord(b []byte) (r record, ok bool, err error) {
	if len(b) == 0 || b[0] != 0x82 || len(b) > maxRecord {
		return r, false, nil
	}
	n, err := decode(b)
	if err != nil {
		return r, false, nil //nolint:nilerr // a block of another kind
	}
	first, err1 := n.LookupByIndex(0)
	second, err2 := n.LookupByIndex(1)
	if err1 != nil || err2 != nil || first.Kind() != datamodel.Kind_Link {
		return r, false, nil
	}
	c, err := asCID(first)
	if err != nil {
		return r, false, err
	}
	r.of = tinycloud.HashOf(c)
	if second.Kind() != datamodel.Kind_Bytes {
		r.size, err = second.AsInt()
		if err != nil || r.size < 0 || r.size > maxValue {
			return r, false, fmt.Errorf("value %s of %d bytes: %w", r.of, r.size, tinycloud.ErrInvalid)
		}
		return r, true, nil
	}
	sig, err := second.AsBytes()
	if err != nil || len(sig) != len(hostlog.Signature{}) {
		return r, false, fmt.Errorf("signature of %d bytes: %w", len(sig), tinycloud.ErrInvalid)
	}
	r.sig = (*hostlog.Signature)(sig)
	return r, true, nil
}

func asCID(n datamodel.Node) (cid.Cid, error) {
	l, err := n.AsLink()
	if err != nil {
		return cid.Undef, err
	}
	c, ok := l.(cidlink.Link)
	if !ok {
		return cid.Undef, fmt.Errorf("link of another kind: %w", tinycloud.ErrInvalid)
	}
	return c.Cid, nil
}

// fields reads the fields of a map and keeps the first error.
type fields struct {
	node datamodel.Node
	err  error
}

func (f *fields) get(name string) datamodel.Node {
	if f.err != nil {
		return nil
	}
	n, err := f.node.LookupByString(name)
	f.err = err
	return n
}

func (f *fields) number(name string) (v int64) {
	if n := f.get(name); f.err == nil {
		v, f.err = n.AsInt()
	}
	return v
}

func (f *fields) text(name string) (v string) {
	if n := f.get(name); f.err == nil {
		v, f.err = n.AsString()
	}
	return v
}
