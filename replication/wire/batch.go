package wire

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Batch holds bundles without what the rest of the batch, or the Space, implies.
type Batch struct {
	_       struct{}   `cbor:",toarray"`
	Hosts   [][32]byte // in the order in which the entries first name them
	Entries []wireBundle
}

type wireBundle struct {
	_      struct{}    `cbor:",toarray"`
	Host   uint64      // index into Hosts
	Link   []wireStart // empty: follows the host's entry before it in this batch
	At     int64
	Sig    [ed25519.SignatureSize]byte
	Epoch  []byte
	Events [][]byte
	Ops    [][]byte
	Values [][]byte
	Large  []wireLarge
	Import []wireImport // of an import entry, which has no Epoch
}

// wireImport is an epoch that an import entry lists.
type wireImport struct {
	_      struct{} `cbor:",toarray"`
	At     int64
	Epoch  []byte
	Events [][]byte
	Ops    [][]byte
}

// wireStart places an entry that does not follow another one of its batch.
type wireStart struct {
	_    struct{} `cbor:",toarray"`
	N    uint64
	Prev tinycloud.Hash
}

type wireLarge struct {
	_        struct{} `cbor:",toarray"`
	Hash     tinycloud.Hash
	Size     int64
	Manifest tinycloud.Hash
}

// PackBundles is the one spelling of bundles on the wire.
func PackBundles(bundles []hostlog.Bundle) (*Batch, error) {
	m := &Batch{Entries: make([]wireBundle, 0, len(bundles))}
	index := map[hostlog.Key]int{}
	var last []hostlog.Tip
	for i := range bundles {
		b := &bundles[i]
		if !named(b) {
			return nil, fmt.Errorf("bundle %d: epoch of another entry: %w", i, tinycloud.ErrInvalid)
		}
		h, known := index[b.Entry.Host]
		if !known {
			h = len(m.Hosts)
			index[b.Entry.Host] = h
			m.Hosts = append(m.Hosts, b.Entry.Host)
			last = append(last, hostlog.Tip{})
		}
		w := wireBundle{
			Host: uint64(h), At: b.Entry.At, Sig: b.Sig, Epoch: b.Epoch, Events: b.Events, Ops: b.Ops,
		}
		if !known || !follows(b.Entry, last[h]) {
			w.Link = []wireStart{{N: b.Entry.N, Prev: b.Entry.Prev}}
		}
		for _, v := range b.Values {
			w.Values = append(w.Values, v.Bytes)
		}
		for _, l := range b.Large {
			w.Large = append(w.Large, wireLarge{Hash: l.Hash, Size: l.Size, Manifest: l.Manifest})
		}
		for _, im := range b.Imported {
			w.Import = append(w.Import, wireImport{At: im.At, Epoch: im.Epoch, Events: im.Events, Ops: im.Ops})
		}
		m.Entries = append(m.Entries, w)
		last[h] = TipOf(b.Entry)
	}
	return m, nil
}

// named reports whether a bundle brings what its entry names.
func named(b *hostlog.Bundle) bool {
	if len(b.Imported) > 0 {
		return hostlog.ImportHash(b.Imported) == b.Entry.Import && b.Entry.Epoch.IsZero() && len(b.Epoch) == 0
	}
	return tinycloud.Sum(b.Epoch) == b.Entry.Epoch && b.Entry.Import.IsZero()
}

// TipOf is the tip of a log that ends with an entry.
func TipOf(e hostlog.Entry) hostlog.Tip {
	return hostlog.Tip{Host: e.Host, N: e.N, Digest: e.Digest()}
}

func follows(e hostlog.Entry, t hostlog.Tip) bool { return e.N == t.N+1 && e.Prev == t.Digest }

// Bundles gives the entries back what was left out. Only what PackBundles gives is accepted; the error is
// of class [tinycloud.ErrInvalid].
func (m *Batch) Bundles(space tinycloud.SpaceID) ([]hostlog.Bundle, error) {
	bad := func(i int, what string) ([]hostlog.Bundle, error) {
		return nil, fmt.Errorf("bundle %d: %s: %w", i, what, tinycloud.ErrInvalid)
	}
	out := make([]hostlog.Bundle, len(m.Entries))
	last := make([]hostlog.Tip, 0, len(m.Hosts))
	seen := map[hostlog.Key]struct{}{}
	for i := range m.Entries {
		w := &m.Entries[i]
		known := w.Host < uint64(len(last))
		if !known {
			if w.Host != uint64(len(last)) || w.Host >= uint64(len(m.Hosts)) {
				return bad(i, "host index")
			}
			host := hostlog.Key(m.Hosts[w.Host])
			if _, twice := seen[host]; twice {
				return bad(i, "host listed twice")
			}
			seen[host] = struct{}{}
			last = append(last, hostlog.Tip{})
		}
		e, ok := w.entry(space, m.Hosts[w.Host], last[w.Host], known)
		if !ok {
			return bad(i, "link")
		}
		out[i] = w.bundle(e)
		last[w.Host] = hostlog.Tip{Host: e.Host, N: e.N, Digest: out[i].Digest}
	}
	if len(last) != len(m.Hosts) {
		return bad(len(m.Entries), "host without entries")
	}
	return out, nil
}

// entry makes the log entry; ok is false when its place is missing, or spelled out though implied.
func (w *wireBundle) entry(space tinycloud.SpaceID, host hostlog.Key, last hostlog.Tip, known bool) (e hostlog.Entry, ok bool) {
	e = hostlog.Entry{Space: space, Host: host, At: w.At}
	if len(w.Import) > 0 {
		if len(w.Import) > hostlog.MaxImported || len(w.Epoch)+len(w.Events)+len(w.Ops) > 0 ||
			slices.ContainsFunc(w.Import, func(im wireImport) bool { return im.At < 0 }) {
			return e, false
		}
		e.Import = hostlog.ImportHash(w.imported())
	} else {
		e.Epoch = tinycloud.Sum(w.Epoch)
	}
	switch len(w.Link) {
	case 0:
		e.N, e.Prev = last.N+1, last.Digest
		return e, known && w.At >= 0
	case 1:
		e.N, e.Prev = w.Link[0].N, w.Link[0].Prev
		if e.N == 0 && !e.Prev.IsZero() {
			return e, false
		}
		return e, w.At >= 0 && (!known || !follows(e, last))
	}
	return e, false
}

func (w *wireBundle) bundle(e hostlog.Entry) hostlog.Bundle {
	b := hostlog.Bundle{Entry: e, Digest: e.Digest(), Sig: w.Sig, Epoch: w.Epoch, Events: w.Events, Ops: w.Ops, Imported: w.imported()}
	if len(w.Values) > 0 {
		b.Values = make([]hostlog.Value, 0, len(w.Values))
	}
	for _, v := range w.Values {
		b.Values = append(b.Values, hostlog.Value{Hash: tinycloud.Sum(v), Bytes: v})
	}
	for _, l := range w.Large {
		b.Large = append(b.Large, hostlog.Large{Hash: l.Hash, Size: l.Size, Manifest: l.Manifest})
	}
	return b
}

func (w *wireBundle) imported() (out []hostlog.Imported) {
	for _, im := range w.Import {
		out = append(out, hostlog.Imported{At: im.At, Epoch: im.Epoch, Events: im.Events, Ops: im.Ops})
	}
	return out
}

// SizeOf bounds from above what a bundle takes on the wire.
func SizeOf(b *hostlog.Bundle) int {
	const entry, item, large = 150, 5, 90
	n := entry + len(b.Epoch) + large*len(b.Large)
	for _, im := range b.Imported {
		n += 30 + len(im.Epoch)
		for _, group := range [][][]byte{im.Events, im.Ops} {
			for _, x := range group {
				n += item + len(x)
			}
		}
	}
	for _, group := range [][][]byte{b.Events, b.Ops} {
		for _, x := range group {
			n += item + len(x)
		}
	}
	for _, v := range b.Values {
		n += item + len(v.Bytes)
	}
	return n
}

// Packer encodes the batches of a stream. Its zero value is ready.
type Packer struct{ room []byte }

// Frames encodes a batch: one frame, or several parts when a single bundle is longer than that. They hold until the next
// call.
func (p *Packer) Frames(bundles []hostlog.Bundle) ([][]byte, error) {
	out, whole, err := frames(bundles, p.room[:0])
	if cap(whole) <= MaxFrame {
		p.room = whole
	}
	return out, err
}

func frames(bundles []hostlog.Bundle, room []byte) (out [][]byte, whole []byte, err error) {
	m, err := PackBundles(bundles)
	if err != nil {
		return nil, nil, err
	}
	size := 256 + len(m.Hosts)*40
	for i := range bundles {
		size += SizeOf(&bundles[i])
	}
	b, plain := appendBatch(slices.Grow(room, size), m)
	if !plain {
		if b, err = canonical.encodeWithin(Message{Batch: m}, size); err != nil {
			return nil, nil, err
		}
	}
	if len(b) <= MaxFrame {
		return [][]byte{b}, b, nil
	}
	if len(b) > MaxJoined {
		return nil, nil, fmt.Errorf("batch of %d bytes: %w", len(b), tinycloud.ErrTooLarge)
	}
	for piece := range slices.Chunk(b, maxPart) {
		part, err := Encode(Message{Part: &Part{Data: piece, Last: len(out) == (len(b)-1)/maxPart}})
		if err != nil {
			return nil, nil, err
		}
		out = append(out, part)
	}
	return out, nil, nil
}

// Joiner puts the parts of a batch together.
type Joiner struct{ b []byte }

// Add returns the batch's message with its last part, nil before.
func (j *Joiner) Add(p *Part) (*Message, error) {
	if len(p.Data) == 0 || len(j.b)+len(p.Data) > MaxJoined {
		return nil, fmt.Errorf("part of %d bytes after %d: %w", len(p.Data), len(j.b), tinycloud.ErrInvalid)
	}
	j.b = append(j.b, p.Data...)
	if !p.Last {
		return nil, nil
	}
	b := j.b
	j.b = nil
	m, err := DecodeMessage(b)
	if err != nil {
		return nil, err
	}
	if m.Batch == nil {
		return nil, fmt.Errorf("parts of something else than a batch: %w", tinycloud.ErrInvalid)
	}
	return m, nil
}

// Within reports whether parts came, and not the last one.
func (j *Joiner) Within() bool { return j.b != nil }
