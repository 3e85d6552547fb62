package dag

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// Bounds of an operation.
const (
	MaxOpSize   = 64 << 10 // bytes
	MaxMetadata = 1024     // entries
)

// Op is what an invocation did to one key: a write, or a delete.
type Op struct {
	Key      string
	Delete   bool
	Value    tinycloud.Hash    // of a write: the content's hash
	Metadata map[string]string // of a write
	Version  *Version          // of a delete: the write it names, nil for the newest
}

// Version is the place of a write in a Space's history.
type Version struct {
	Seq   uint64
	Epoch tinycloud.Hash
	Index uint64 // of the event in its epoch
}

// Encode returns the bytes of the operation. It does not check the bounds.
func (o Op) Encode() []byte {
	size := 96 + len(o.Key)
	for k, v := range o.Metadata {
		size += 6 + len(k) + len(v)
	}
	b := make([]byte, 0, size)
	if o.Delete {
		b = cbor.AppendText(cbor.AppendHead(b, cbor.Map, 2), "key")
		b = cbor.AppendText(cbor.AppendText(b, o.Key), "version")
		if o.Version == nil {
			return append(b, cbor.Null)
		}
		b = cbor.AppendHead(cbor.AppendHead(b, cbor.Array, 3), cbor.Uint, o.Version.Seq)
		return cbor.AppendHead(appendLink(b, cborLink, o.Version.Epoch), cbor.Uint, o.Version.Index)
	}
	b = cbor.AppendText(cbor.AppendHead(b, cbor.Map, 3), "key")
	b = cbor.AppendText(cbor.AppendText(b, o.Key), "value")
	b = appendLink(b, cborLink, o.Value)
	return AppendMap(cbor.AppendText(b, "metadata"), o.Metadata)
}

// AppendMap appends a map of texts, in the order of DAG-CBOR.
func AppendMap(b []byte, m map[string]string) []byte {
	b = cbor.AppendHead(b, cbor.Map, uint64(len(m)))
	for _, name := range slices.SortedFunc(maps.Keys(m), byLength) {
		b = cbor.AppendText(cbor.AppendText(b, name), m[name])
	}
	return b
}

// byLength orders map keys as DAG-CBOR does.
func byLength(x, y string) int { return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)) }

// Operation returns the operation with its bytes.
func (o Op) Operation() Operation { return Operation{Envelope{KV, o.Key}, o.Encode()} }

// ID returns the hash of the operation's bytes.
func (o Op) ID() tinycloud.Hash { return tinycloud.Sum(o.Encode()) }

// DecodeOp reads the bytes of an operation. The error is of class [tinycloud.ErrInvalid].
func DecodeOp(b []byte) (Op, error) {
	if len(b) > MaxOpSize {
		return Op{}, fmt.Errorf("dag: operation of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	r := NewReader(b)
	var o Op
	fields := r.Head(cbor.Map)
	r.Name("key")
	o.Key = r.Text()
	switch fields {
	case 2:
		o.Delete = true
		r.Name("version")
		o.Version = r.version()
	case 3:
		r.Name("value")
		o.Value = r.link(cborLink)
		r.Name("metadata")
		o.Metadata = r.metadata()
	default:
		r.Fail("map of two or three fields expected")
	}
	if err := r.End(); err != nil {
		return Op{}, err
	}
	return o, nil
}

func (r *Reader) version() *Version {
	if r.Peek() == cbor.Null {
		r.Take(1)
		return nil
	}
	if r.Count(cbor.Array, 3) != 3 {
		r.Fail("version of three parts expected")
	}
	v := &Version{Seq: r.Head(cbor.Uint)}
	v.Epoch = r.link(cborLink)
	v.Index = r.Head(cbor.Uint)
	return v
}

func (r *Reader) metadata() map[string]string {
	n := r.Count(cbor.Map, MaxMetadata)
	m := make(map[string]string, n)
	last := ""
	for i := range n {
		name := r.Text()
		if i > 0 && byLength(last, name) >= 0 {
			r.Fail("metadata out of order")
		}
		m[name] = r.Text()
		if r.err != nil {
			return nil
		}
		last = name
	}
	return m
}
