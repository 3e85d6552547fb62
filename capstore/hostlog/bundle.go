package hostlog

import (
	"bytes"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Bounds of what one log entry may bring.
const (
	MaxBundle   = 4 << 20  // bytes of epoch, events, operations and values together
	MaxMetadata = 16 << 10 // bytes of the names and values that a write stores beside its value
	maxEvents   = 1000     // of an epoch
	MaxParents  = 64       // of an epoch: those it follows
	maxNumber   = 1 << 53  // of an entry's number and time: exact in every language
)

// Bundle is a log entry with all it names: what travels between hosts.
type Bundle struct {
	Entry  Entry
	Sig    Signature
	Epoch  []byte
	Events [][]byte // bytes of the tokens, in the epoch's order
	Ops    [][]byte // bytes of the operations, in the epoch's order
	Values []Value  // small values that the operations write
	Large  []Large  // hints about the other values
	// Imported are the epochs of an import entry, which has no Epoch, Events and Ops of its own.
	Imported []Imported
	// Digest is that of Entry, from who made the hash of the epoch in Entry, and those of Values, of their bytes: these
	// are not made again. Zero: the hashes are what somebody says.
	Digest tinycloud.Hash
}

// Parents are the epochs that a bundle's epoch follows; none of an import entry.
func (b *Bundle) Parents() ([]tinycloud.Hash, error) {
	if !b.Entry.Import.IsZero() {
		return nil, nil
	}
	e, err := dag.DecodeEpoch(b.Epoch)
	return e.Parents, err
}

// Value is a value and its hash.
type Value struct {
	Hash  tinycloud.Hash
	Bytes []byte
}

// Large tells how to fetch a value that is too large to travel with its operation.
type Large struct {
	Hash     tinycloud.Hash
	Size     int64
	Manifest tinycloud.Hash // zero when the value is a single block
}

// Parsed is a bundle whose bytes are checked.
type Parsed struct {
	Bundle
	Digest        tinycloud.Hash // of the entry
	DecodedEpoch  dag.Epoch
	DecodedEvents []Event
	ValueOf       map[tinycloud.Hash][]byte // the values that came along, by their hashes
	Own           bool                      // made by this node
	New           bool                      // its epoch is known not to be stored
	// Parts are the epochs of an import entry, each as if it had an entry of its own. ImportedAt is the
	// import entry's time in a part, else zero.
	Parts      []*Parsed
	ImportedAt int64
}

// Event is a token of an epoch with the operations that were recorded for it.
type Event struct {
	ID    tinycloud.Hash
	Bytes []byte
	Token *token.Token // nil: void by its bytes
	Bad   string       // why
	Ops   []dag.Operation
}

// Kind tells what the token does, 0 of an event that is void by its bytes.
func (e *Event) Kind() token.Kind {
	if e.Token == nil {
		return 0
	}
	return e.Token.Kind
}

func parse(space tinycloud.SpaceID, b *Bundle) (*Parsed, error) {
	p := &Parsed{Bundle: *b, Digest: b.Digest}
	summed := !b.Digest.IsZero()
	if !summed {
		p.Digest = b.Entry.Digest()
	}
	if len(b.Values) > 0 {
		p.ValueOf = make(map[tinycloud.Hash][]byte, len(b.Values))
	}
	if b.Entry.Space != space {
		return nil, fmt.Errorf("entry of another space: %w", tinycloud.ErrInvalid)
	}
	if b.Entry.N > maxNumber || b.Entry.At < 0 || b.Entry.At > maxNumber {
		return nil, fmt.Errorf("entry %d at %d: out of range: %w", b.Entry.N, b.Entry.At, tinycloud.ErrInvalid)
	}
	parse := func() error { return p.parseEpoch(summed) }
	if !b.Entry.Import.IsZero() || len(b.Imported) > 0 {
		parse = p.parseImport
	}
	if err := parse(); err != nil {
		return nil, err
	}
	for _, v := range b.Values {
		if !summed && tinycloud.Sum(v.Bytes) != v.Hash {
			return nil, fmt.Errorf("value does not match its hash: %w", tinycloud.ErrForged)
		}
		p.ValueOf[v.Hash] = v.Bytes
	}
	return p, nil
}

// parseEpoch reads the epoch of a bundle with its events and operations. summed says that the entry names it by its hash.
func (p *Parsed) parseEpoch(summed bool) (err error) {
	if !summed && tinycloud.Sum(p.Epoch) != p.Entry.Epoch {
		return fmt.Errorf("epoch does not match its entry: %w", tinycloud.ErrForged)
	}
	if p.DecodedEpoch, err = dag.DecodeEpoch(p.Epoch); err != nil {
		return err
	}
	if p.ImportedAt == 0 && (len(p.DecodedEpoch.Parents) > MaxParents || len(p.Events) > maxEvents) { // older histories have more
		return fmt.Errorf("epoch of %d events after %d others: %w", len(p.Events), len(p.DecodedEpoch.Parents), tinycloud.ErrInvalid)
	}
	if len(p.DecodedEpoch.Events) != len(p.Events) {
		return fmt.Errorf("epoch with %d events, got %d: %w", len(p.DecodedEpoch.Events), len(p.Events), tinycloud.ErrInvalid)
	}
	ops := p.Ops
	p.DecodedEvents = make([]Event, 0, len(p.Events))
	for i, ref := range p.DecodedEpoch.Events {
		if len(ops) < len(ref.Ops) {
			return fmt.Errorf("operations missing: %w", tinycloud.ErrInvalid)
		}
		e, err := parseEvent(ref, p.Events[i], ops[:len(ref.Ops)])
		if err != nil {
			return err
		}
		if p.ImportedAt == 0 && slices.ContainsFunc(e.Ops, excessive) { // older histories have more
			return fmt.Errorf("more than %d bytes of metadata: %w", MaxMetadata, tinycloud.ErrInvalid)
		}
		p.DecodedEvents, ops = append(p.DecodedEvents, e), ops[len(ref.Ops):]
	}
	if len(ops) > 0 {
		return fmt.Errorf("operations left over: %w", tinycloud.ErrInvalid)
	}
	return nil
}

// MetadataSize returns the bytes of names and values, of which a write may have [MaxMetadata].
func MetadataSize(m map[string]string) (n int) {
	for name, value := range m {
		n += len(name) + len(value)
	}
	return n
}

// excessive reports whether an operation's metadata is more than a host takes. Only of writes to keys it is known.
func excessive(o dag.Operation) bool {
	if o.Service != dag.KV || len(o.Bytes) <= MaxMetadata {
		return false
	}
	op, err := dag.DecodeOp(o.Bytes)
	return err == nil && MetadataSize(op.Metadata) > MaxMetadata
}

// Foreign reports whether a bundle has operations that releases refuse which know no services: the operation of another
// service, or of a form that theirs do not have.
func (b *Bundle) Foreign() bool {
	known := func(op []byte) bool {
		_, err := dag.DecodeOp(op)
		return err == nil
	}
	foreign := func(ops [][]byte) bool { return slices.ContainsFunc(ops, func(op []byte) bool { return !known(op) }) }
	return foreign(b.Ops) || slices.ContainsFunc(b.Imported, func(im Imported) bool { return foreign(im.Ops) })
}

func parseEvent(ref dag.EventRef, b []byte, ops [][]byte) (Event, error) {
	e := Event{ID: ref.Event, Bytes: b}
	if tinycloud.Sum(b) != ref.Event {
		return e, fmt.Errorf("event does not match its hash: %w", tinycloud.ErrForged)
	}
	if len(ops) > 0 {
		e.Ops = make([]dag.Operation, 0, len(ops))
	}
	for i, id := range ref.Ops {
		if tinycloud.Sum(ops[i]) != id {
			return e, fmt.Errorf("operation does not match its hash: %w", tinycloud.ErrForged)
		}
		op, ok, err := dag.ReadOperation(ops[i])
		if err != nil {
			return e, err
		}
		switch {
		case !ok:
			e.Bad = "operation without a subject"
		case i > 0 && op.Service != e.Ops[0].Service:
			e.Bad = "operations of several services"
		}
		e.Ops = append(e.Ops, op)
	}
	if len(ops) == 0 { // it may be kept for long, and b may be a part of much else
		b = bytes.Clone(b)
	}
	t, err := token.DecodeKnown(b, ref.Event, len(ops) > 0)
	switch {
	case e.Bad != "":
	case err != nil:
		e.Bad = "not decodable"
	case len(ops) > 0 && t.Kind != token.Invocation:
		e.Bad = "operations without an invocation"
	default:
		e.Token = t
	}
	return e, nil
}
