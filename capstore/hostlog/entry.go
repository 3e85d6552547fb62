package hostlog

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// EntryVersion is the only version of entries this node judges.
const EntryVersion = 1

// Entry is one record of a host's log: that the host has an epoch of a Space, and since when. Its bytes are canonical
// DAG-CBOR (docs/replication.md, "Host log"). An import entry names the list of the epochs of a history that the host
// took over from elsewhere, in place of an epoch.
type Entry struct {
	Space  tinycloud.SpaceID
	Host   Key
	N      uint64
	Prev   tinycloud.Hash // digest of the entry before, zero at 0
	Epoch  tinycloud.Hash // zero in an import entry
	Import tinycloud.Hash // hash of the list, see [ImportHash]; zero in all others
	At     int64          // unix milliseconds
}

// linkHead begins a link to DAG-CBOR: tag 42, the length, and the CID up to its digest.
const linkHead = "\xd8\x2a\x58\x25\x00\x01\x71\x1e\x20"

const signedPrefix = "tinycloud/hostlog/1"

// Encode returns the bytes of the entry: a map of n, v, at, host, prev, epoch and space; in an import
// entry import, after space, stands for epoch.
func (e Entry) Encode() []byte {
	space := e.Space.String()
	b := make([]byte, 0, 170+len(space))
	b = append(b, 0xa7)
	b = cbor.AppendHead(append(b, 0x61, 'n'), cbor.Uint, e.N)
	b = append(b, 0x61, 'v', EntryVersion)
	b = cbor.AppendHead(append(b, "\x62at"...), cbor.Uint, uint64(e.At))
	b = append(append(b, "\x64host\x58\x20"...), e.Host[:]...)
	b = append(b, "\x64prev"...)
	if e.N == 0 {
		b = append(b, 0xf6)
	} else {
		b = append(append(b, 0x58, 0x20), e.Prev[:]...)
	}
	if e.Import.IsZero() {
		b = append(append(b, "\x65epoch"+linkHead...), e.Epoch[:]...)
	}
	b = cbor.AppendText(append(b, "\x65space"...), space)
	if !e.Import.IsZero() {
		b = append(append(b, "\x66import"+linkHead...), e.Import[:]...)
	}
	return b
}

// DecodeEntry reads the bytes of an entry. Only what [Entry.Encode] gives is accepted. The error is of
// class [tinycloud.ErrInvalid], or [tinycloud.ErrUnsupported] for a version this node cannot judge.
func DecodeEntry(b []byte) (Entry, error) {
	if len(b) > maxEntry {
		return Entry{}, fmt.Errorf("log entry of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	node, err := ipld.Decode(b, dagcbor.Decode)
	if err != nil {
		return Entry{}, fmt.Errorf("log entry: %v: %w", err, tinycloud.ErrInvalid)
	}
	f := fields{node: node}
	if v := f.number("v"); f.err == nil && v != EntryVersion {
		return Entry{}, fmt.Errorf("log entry of version %d, upgrade this node: %w", v, tinycloud.ErrUnsupported)
	}
	e := Entry{N: uint64(f.number("n")), At: f.number("at"), Host: Key(f.bytes("host"))}
	if _, err := node.LookupByString("import"); err == nil {
		e.Import = f.link("import")
	} else {
		e.Epoch = f.link("epoch")
	}
	if e.N > 0 {
		e.Prev = f.bytes("prev")
	}
	space := f.text("space")
	if f.err == nil {
		e.Space, f.err = tinycloud.ParseSpaceID(space)
	}
	if f.err != nil || e.N > maxNumber || e.At < 0 || e.At > maxNumber || !bytes.Equal(e.Encode(), b) {
		return Entry{}, fmt.Errorf("log entry: not canonical: %v: %w", f.err, tinycloud.ErrInvalid)
	}
	return e, nil
}

const maxEntry = 1024

// fields reads the fields of a map and keeps the first error.
type fields struct {
	node datamodel.Node
	err  error
}

func field[T any](f *fields, name string, as func(datamodel.Node) (T, error)) (v T) {
	if f.err != nil {
		return v
	}
	n, err := f.node.LookupByString(name)
	if err == nil {
		v, err = as(n)
	}
	f.err = err
	return v
}

func (f *fields) number(name string) int64 { return field(f, name, datamodel.Node.AsInt) }

func (f *fields) text(name string) string { return field(f, name, datamodel.Node.AsString) }

func (f *fields) bytes(name string) (h tinycloud.Hash) {
	b := field(f, name, datamodel.Node.AsBytes)
	if f.err == nil && len(b) != len(h) {
		f.err = fmt.Errorf("%s of %d bytes", name, len(b))
	}
	copy(h[:], b)
	return h
}

func (f *fields) link(name string) tinycloud.Hash {
	l, ok := field(f, name, datamodel.Node.AsLink).(cidlink.Link)
	if !ok {
		f.err = errors.Join(f.err, fmt.Errorf("%s is no link", name))
		return tinycloud.Hash{}
	}
	return tinycloud.HashOf(l.Cid)
}

// Digest returns the hash that the next entry names and the host signs.
func (e Entry) Digest() tinycloud.Hash { return tinycloud.Sum(e.Encode()) }

// Signature is an Ed25519 signature of a Space key.
type Signature [ed25519.SignatureSize]byte

// Sign returns the signature of the entry of a digest.
func Sign(key ed25519.PrivateKey, digest tinycloud.Hash) Signature {
	return Signature(did.SignEd25519(key, append([]byte(signedPrefix), digest[:]...)))
}

// Verify reports whether a host signed the entry of a digest. Every host has to come to the same answer, or one would
// ban another for passing on what that one takes: it is [Key.Signed], and so is what [Check] and [CheckAll] say of
// an entry.
func Verify(host Key, digest tinycloud.Hash, sig Signature) bool {
	return host.Signed(append([]byte(signedPrefix), digest[:]...), sig)
}

// signatureItem is what a batch needs to say what Verify says.
func signatureItem(host Key, digest tinycloud.Hash, sig *Signature) did.BatchItem {
	return did.BatchItem{Pub: host[:], Msg: append([]byte(signedPrefix), digest[:]...), Sig: sig[:]}
}
