package hostlog

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/parallel"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// MaxImported is how many epochs an import entry may list.
const MaxImported = 512

// Imported is an epoch of a history that a host took over from elsewhere.
type Imported struct {
	At     int64 // unix milliseconds since when it is known; not before its parents', nor after the entry
	Epoch  []byte
	Events [][]byte // as in [Bundle]
	Ops    [][]byte
}

// Listed is an element of an import entry's list.
type Listed struct {
	Epoch tinycloud.Hash
	At    int64
}

// ImportHash returns what an import entry names: the hash of the list of the epochs and their times.
func ImportHash(epochs []Imported) tinycloud.Hash {
	list := make([]Listed, len(epochs))
	for i, e := range epochs {
		list[i] = Listed{tinycloud.Sum(e.Epoch), e.At}
	}
	return tinycloud.Sum(EncodeList(list))
}

// EncodeList returns the bytes of the list of an import entry: the DAG-CBOR list [[epoch, at]…].
func EncodeList(list []Listed) []byte {
	b := cbor.AppendHead(nil, cbor.Array, uint64(len(list)))
	for _, l := range list {
		b = append(append(append(b, 0x82), linkHead...), l.Epoch[:]...)
		b = cbor.AppendHead(b, cbor.Uint, uint64(l.At))
	}
	return b
}

// DecodeList reads what [EncodeList] gives, and nothing else.
func DecodeList(b []byte) ([]Listed, error) {
	if len(b) > 8+MaxImported*64 {
		return nil, fmt.Errorf("import of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	node, err := ipld.Decode(b, dagcbor.Decode)
	if err != nil {
		return nil, fmt.Errorf("import: %v: %w", err, tinycloud.ErrInvalid)
	}
	var out []Listed
	for i := range max(node.Length(), 0) {
		pair, err := node.LookupByIndex(i)
		if err != nil {
			return nil, fmt.Errorf("import: %v: %w", err, tinycloud.ErrInvalid)
		}
		epoch, err1 := pair.LookupByIndex(0)
		when, err2 := pair.LookupByIndex(1)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("import: element %d is no pair: %w", i, tinycloud.ErrInvalid)
		}
		link, err1 := epoch.AsLink()
		ms, err2 := when.AsInt()
		l, ok := link.(cidlink.Link)
		if err1 != nil || err2 != nil || !ok || ms < 0 {
			return nil, fmt.Errorf("import: element %d: %w", i, tinycloud.ErrInvalid)
		}
		out = append(out, Listed{tinycloud.HashOf(l.Cid), ms})
	}
	if len(out) == 0 || len(out) > MaxImported || !bytes.Equal(EncodeList(out), b) {
		return nil, fmt.Errorf("import of %d epochs: not canonical: %w", len(out), tinycloud.ErrInvalid)
	}
	return out, nil
}

// parseImport reads the epochs of an import entry.
func (p *Parsed) parseImport() error {
	if n := len(p.Imported); n == 0 || n > MaxImported || len(p.Epoch)+len(p.Events)+len(p.Ops) > 0 || !p.Entry.Epoch.IsZero() {
		return fmt.Errorf("import entry with %d epochs: %w", n, tinycloud.ErrInvalid)
	}
	if ImportHash(p.Imported) != p.Entry.Import {
		return fmt.Errorf("imported epochs do not match their entry: %w", tinycloud.ErrForged)
	}
	if p.weight() > MaxBundle {
		return fmt.Errorf("import entry of %d bytes: %w", p.weight(), tinycloud.ErrInvalid)
	}
	return p.splitImport()
}

// splitImport makes the parts.
func (p *Parsed) splitImport() error {
	seen := map[tinycloud.Hash]bool{}
	for _, im := range p.Imported {
		part := &Parsed{
			Bundle: Bundle{Epoch: im.Epoch, Events: im.Events, Ops: im.Ops},
			Digest: p.Digest, ValueOf: p.ValueOf, ImportedAt: max(p.Entry.At, 1),
		}
		part.Entry = Entry{Space: p.Entry.Space, Host: p.Entry.Host, N: p.Entry.N, Epoch: tinycloud.Sum(im.Epoch), At: im.At}
		if im.At < 0 || im.At > p.Entry.At || seen[part.Entry.Epoch] {
			return fmt.Errorf("imported epoch of %d, known before or from after the entry: %w", im.At, tinycloud.ErrInvalid)
		}
		seen[part.Entry.Epoch] = true
		if err := part.parseEpoch(true); err != nil {
			return err
		}
		p.Parts = append(p.Parts, part)
	}
	return nil
}

// weight is what a bundle brings, in bytes.
func (b *Bundle) weight() int {
	n := len(b.Epoch)
	for _, group := range [][][]byte{b.Events, b.Ops} {
		for _, x := range group {
			n += len(x)
		}
	}
	for _, v := range b.Values {
		n += len(v.Bytes)
	}
	for _, im := range b.Imported {
		n += (&Bundle{Epoch: im.Epoch, Events: im.Events, Ops: im.Ops}).weight()
	}
	return n
}

// withParts puts the parts of import entries after them.
func withParts(ps []*Parsed) []*Parsed {
	if !slices.ContainsFunc(ps, func(p *Parsed) bool { return len(p.Parts) > 0 }) {
		return ps
	}
	var out []*Parsed
	for _, p := range ps {
		out = append(append(out, p), p.Parts...)
	}
	return out
}

// ParseOwn checks an import entry of this node, all but the entry's signature: it has none yet. Forged events are marked.
func ParseOwn(space tinycloud.SpaceID, b *Bundle) (*Parsed, error) {
	p, err := parse(space, b)
	if err != nil {
		return nil, err
	}
	parallel.Do(len(p.Parts), func(i int) { verifyGroup(p.Parts[i : i+1]) })
	return p, nil
}
