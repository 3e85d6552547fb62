package wire

import (
	"crypto/ed25519"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// Batches are most of what hosts say to each other, and the general codec takes longer for one than its hashes do. So the
// common form of a batch is written and read here, byte for byte as the general codec has it; what is not of that form is
// left to that.

// batchHead begins a message that is a batch: a map of one field, with a list of two.
const batchHead = "\xa1\x65batch\x82"

// The heads of what has one length.
const (
	hashHead = "\x58\x20"
	sigHead  = "\x58\x40"
)

// fieldsOfBundle is how many fields a bundle is spelled in.
const fieldsOfBundle = 10

func appendList(b []byte, list [][]byte) []byte {
	b = cbor.AppendHead(b, cbor.Array, uint64(len(list)))
	for _, x := range list {
		b = cbor.AppendBytes(b, x)
	}
	return b
}

func appendHash(b []byte, h [32]byte) []byte { return append(append(b, hashHead...), h[:]...) }

// appendBatch appends the message that is a batch; ok is false for one that is not of the common form.
func appendBatch(b []byte, m *Batch) (out []byte, ok bool) {
	b = cbor.AppendHead(append(b, batchHead...), cbor.Array, uint64(len(m.Hosts)))
	for _, h := range m.Hosts {
		b = appendHash(b, h)
	}
	b = cbor.AppendHead(b, cbor.Array, uint64(len(m.Entries)))
	for i := range m.Entries {
		w := &m.Entries[i]
		if len(w.Import) > 0 || w.At < 0 {
			return b, false
		}
		b = cbor.AppendHead(b, cbor.Array, fieldsOfBundle)
		b = cbor.AppendHead(b, cbor.Uint, w.Host)
		b = cbor.AppendHead(b, cbor.Array, uint64(len(w.Link)))
		for _, l := range w.Link {
			b = cbor.AppendHead(cbor.AppendHead(b, cbor.Array, 2), cbor.Uint, l.N)
			b = appendHash(b, l.Prev)
		}
		b = cbor.AppendHead(b, cbor.Uint, uint64(w.At))
		b = append(append(b, sigHead...), w.Sig[:]...)
		b = cbor.AppendBytes(b, w.Epoch)
		b = appendList(appendList(appendList(b, w.Events), w.Ops), w.Values)
		b = cbor.AppendHead(b, cbor.Array, uint64(len(w.Large)))
		for _, l := range w.Large {
			if l.Size < 0 {
				return b, false
			}
			b = appendHash(cbor.AppendHead(b, cbor.Array, 3), l.Hash)
			b = appendHash(cbor.AppendHead(b, cbor.Uint, uint64(l.Size)), l.Manifest)
		}
		b = cbor.AppendHead(b, cbor.Array, 0)
	}
	return b, true
}

// plain reads the common form of a message. It fails at what is not in its one spelling.
type plain struct {
	b      []byte
	failed bool
	lists  [][]byte // room for lists of bytes
}

// batchOf reads a message that is a batch of the common form; ok is false for all others, whether they are good or not. The
// bytes of the batch are those of the message.
func batchOf(b []byte) (m *Batch, ok bool) {
	if len(b) < len(batchHead) || string(b[:len(batchHead)]) != batchHead {
		return nil, false
	}
	p := &plain{b: b[len(batchHead):]}
	m = &Batch{}
	m.Hosts = make([][32]byte, p.count(MaxBatchCount))
	for i := range m.Hosts {
		m.Hosts[i] = p.hash()
	}
	n := p.count(MaxBatchCount)
	m.Entries = make([]wireBundle, n)
	p.lists = make([][]byte, 0, 3*n)
	for i := range m.Entries {
		p.bundle(&m.Entries[i])
		if p.failed {
			return nil, false
		}
	}
	if p.failed || len(p.b) > 0 {
		return nil, false
	}
	return m, true
}

func (p *plain) bundle(w *wireBundle) {
	p.exactly(fieldsOfBundle)
	w.Host = p.head(cbor.Uint)
	if p.count(1) == 1 {
		p.exactly(2)
		w.Link = []wireStart{{N: p.head(cbor.Uint), Prev: p.hash()}}
	}
	w.At = p.number()
	if p.literal(sigHead) {
		copy(w.Sig[:], p.take(ed25519.SignatureSize))
	}
	w.Epoch = p.bytes()
	w.Events, w.Ops, w.Values = p.list(), p.list(), p.list()
	if n := p.count(MaxTips); n > 0 {
		w.Large = make([]wireLarge, n)
		for i := range w.Large {
			p.exactly(3)
			w.Large[i] = wireLarge{Hash: p.hash(), Size: p.number(), Manifest: p.hash()}
			if p.failed {
				return
			}
		}
	}
	p.exactly(0) // nothing is imported
}

// take returns the next n bytes, which nobody appends to.
func (p *plain) take(n int) []byte {
	if p.failed = p.failed || n > len(p.b); p.failed {
		return nil
	}
	x := p.b[:n:n]
	p.b = p.b[n:]
	return x
}

func (p *plain) literal(s string) bool {
	return string(p.take(len(s))) == s || p.fail()
}

func (p *plain) fail() bool {
	p.failed = true
	return false
}

// head reads a head of a major type in its shortest form.
func (p *plain) head(major byte) uint64 {
	n, size, err := cbor.Head(p.b, major)
	if p.failed = p.failed || err != nil; p.failed {
		return 0
	}
	p.b = p.b[size:]
	return n
}

// count reads the length of a list of which each item takes a byte or more.
func (p *plain) count(most int) int {
	n := p.head(cbor.Array)
	if p.failed || n > uint64(most) || n > uint64(len(p.b)) {
		p.fail()
		return 0
	}
	return int(n)
}

func (p *plain) exactly(n uint64) {
	if p.head(cbor.Array) != n {
		p.fail()
	}
}

func (p *plain) number() int64 {
	n := p.head(cbor.Uint)
	if n > 1<<63-1 {
		p.fail()
	}
	return int64(n)
}

func (p *plain) hash() (h tinycloud.Hash) {
	if p.literal(hashHead) {
		copy(h[:], p.take(len(h)))
	}
	return h
}

func (p *plain) bytes() []byte {
	n := p.head(cbor.Bytes)
	if p.failed || n > uint64(len(p.b)) {
		p.fail()
		return nil
	}
	return p.take(int(n))
}

func (p *plain) list() [][]byte {
	n := p.count(MaxTips)
	begin := len(p.lists)
	for range n {
		p.lists = append(p.lists, p.bytes())
		if p.failed {
			return nil
		}
	}
	return p.lists[begin:len(p.lists):len(p.lists)]
}
