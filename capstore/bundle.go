package capstore

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/did"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Bounds of what one log entry may bring.
const (
	MaxBundle   = 4 << 20  // bytes of epoch, events, operations and values together
	MaxMetadata = 16 << 10 // bytes of the names and values that a write stores beside its value
	maxEvents   = 1000     // of an epoch
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

// parsed is a bundle whose bytes are checked.
type parsed struct {
	Bundle
	digest tinycloud.Hash
	epoch  dag.Epoch
	events []event
	values map[tinycloud.Hash][]byte
	local  bool
	// parts are the epochs of an import entry, each as if it had an entry of its own. importedAt is the
	// import entry's time in a part, else zero.
	parts      []*parsed
	importedAt int64
}

type event struct {
	id    tinycloud.Hash
	bytes []byte
	token *Token // nil: void by its bytes
	bad   string // why
	ops   []dag.Op
	raw   [][]byte
}

func (e *event) kind() judge.Kind {
	if e.token == nil {
		return 0
	}
	return e.token.Kind
}

// CheckBundle reports what bytes alone decide: encodings, hashes, bounds and the entry's signature. An
// error of class [tinycloud.ErrInvalid] or [tinycloud.ErrForged] is the sender's fault.
func CheckBundle(space tinycloud.SpaceID, b *Bundle) error {
	p, err := parseBundle(space, b)
	if err != nil {
		return err
	}
	if !did.VerifyEd25519Batch([]did.BatchItem{signatureItem(b.Entry.Host, p.digest, &b.Sig)})[0] {
		return fmt.Errorf("entry %d of %s: signature: %w", b.Entry.N, b.Entry.Host, tinycloud.ErrForged)
	}
	return nil
}

func parseBundle(space tinycloud.SpaceID, b *Bundle) (*parsed, error) {
	p := &parsed{Bundle: *b, digest: b.Entry.Digest(), values: map[tinycloud.Hash][]byte{}}
	if b.Entry.Space != space {
		return nil, fmt.Errorf("entry of another space: %w", tinycloud.ErrInvalid)
	}
	if b.Entry.N > maxNumber || b.Entry.At < 0 || b.Entry.At > maxNumber {
		return nil, fmt.Errorf("entry %d at %d: out of range: %w", b.Entry.N, b.Entry.At, tinycloud.ErrInvalid)
	}
	parse := p.parseEpoch
	if !b.Entry.Import.IsZero() || len(b.Imported) > 0 {
		parse = p.parseImport
	}
	if err := parse(); err != nil {
		return nil, err
	}
	for _, v := range b.Values {
		if tinycloud.Sum(v.Bytes) != v.Hash {
			return nil, fmt.Errorf("value does not match its hash: %w", tinycloud.ErrForged)
		}
		p.values[v.Hash] = v.Bytes
	}
	return p, nil
}

// parseEpoch reads the epoch of a bundle with its events and operations.
func (p *parsed) parseEpoch() (err error) {
	if tinycloud.Sum(p.Epoch) != p.Entry.Epoch {
		return fmt.Errorf("epoch does not match its entry: %w", tinycloud.ErrForged)
	}
	if p.epoch, err = dag.DecodeEpoch(p.Epoch); err != nil {
		return err
	}
	if p.importedAt == 0 && (len(p.epoch.Parents) > maxParents || len(p.Events) > maxEvents) { // older histories have more
		return fmt.Errorf("epoch of %d events after %d others: %w", len(p.Events), len(p.epoch.Parents), tinycloud.ErrInvalid)
	}
	if len(p.epoch.Events) != len(p.Events) {
		return fmt.Errorf("epoch with %d events, got %d: %w", len(p.epoch.Events), len(p.Events), tinycloud.ErrInvalid)
	}
	ops := p.Ops
	for i, ref := range p.epoch.Events {
		if len(ops) < len(ref.Ops) {
			return fmt.Errorf("operations missing: %w", tinycloud.ErrInvalid)
		}
		e, err := parseEvent(ref, p.Events[i], ops[:len(ref.Ops)])
		if err != nil {
			return err
		}
		if p.importedAt == 0 && slices.ContainsFunc(e.ops, excessive) {
			return fmt.Errorf("more than %d bytes of metadata: %w", MaxMetadata, tinycloud.ErrInvalid)
		}
		p.events, ops = append(p.events, e), ops[len(ref.Ops):]
	}
	if len(ops) > 0 {
		return fmt.Errorf("operations left over: %w", tinycloud.ErrInvalid)
	}
	return nil
}

// excessive reports whether an operation's metadata is more than a host takes.
func excessive(op dag.Op) bool { return MetadataSize(op.Metadata) > MaxMetadata }

func parseEvent(ref dag.EventRef, b []byte, ops [][]byte) (event, error) {
	e := event{id: ref.Event, bytes: b, raw: ops}
	if tinycloud.Sum(b) != ref.Event {
		return e, fmt.Errorf("event does not match its hash: %w", tinycloud.ErrForged)
	}
	for i, id := range ref.Ops {
		if tinycloud.Sum(ops[i]) != id {
			return e, fmt.Errorf("operation does not match its hash: %w", tinycloud.ErrForged)
		}
		op, err := dag.DecodeOp(ops[i])
		if err != nil {
			return e, err
		}
		e.ops = append(e.ops, op)
	}
	t, err := judge.Decode(b, len(ops) > 0)
	switch {
	case err != nil:
		e.bad = "not decodable"
	case len(ops) > 0 && t.Kind != judge.Invocation:
		e.bad = "operations without an invocation"
	default:
		e.token = t
	}
	return e, nil
}

// parseAll checks bundles on all cores. It returns the leading good ones and the error of the first
// bad one.
func parseAll(space tinycloud.SpaceID, bundles []Bundle) ([]*parsed, error) {
	out, errs := make([]*parsed, len(bundles)), make([]error, len(bundles))
	parallel(len(bundles), func(i int) { out[i], errs[i] = parseBundle(space, &bundles[i]) })
	for i, err := range errs {
		if err != nil {
			out = out[:i]
			verifyAll(out)
			return out, err
		}
	}
	return out, verifyAll(out)
}

const signaturesPerBatch = 64

// verifyAll verifies the signatures of entries and events in batches. A forged event is marked; a
// forged entry is an error.
func verifyAll(ps []*parsed) error {
	ps = withParts(ps)
	n := (len(ps) + signaturesPerBatch - 1) / signaturesPerBatch
	bad := make([]int, n)
	parallel(n, func(i int) {
		group := ps[i*signaturesPerBatch : min(len(ps), (i+1)*signaturesPerBatch)]
		bad[i] = verifyGroup(group)
	})
	for i, j := range bad {
		if j >= 0 {
			e := ps[i*signaturesPerBatch+j].Entry
			return fmt.Errorf("entry %d of %s: signature: %w", e.N, e.Host, tinycloud.ErrForged)
		}
	}
	return nil
}

// verifyGroup returns the index of the first bundle with a forged entry, or -1.
func verifyGroup(ps []*parsed) int {
	var items []did.BatchItem
	var events []*event
	var entries []int
	for i, p := range ps {
		if p.importedAt == 0 { // the entry of a part is not signed, that of the whole is
			items, entries = append(items, signatureItem(p.Entry.Host, p.digest, &p.Sig)), append(entries, i)
		}
	}
	for _, p := range ps {
		for i := range p.events {
			e := &p.events[i]
			if e.token == nil {
				continue
			}
			if item, ok := e.token.BatchItem(); ok {
				items, events = append(items, item), append(events, e)
			} else if e.token.VerifySignature() != nil {
				e.token, e.bad = nil, "forged"
			}
		}
	}
	good := did.VerifyEd25519Batch(items)
	for i, e := range events {
		if !good[len(entries)+i] {
			e.token, e.bad = nil, "forged"
		}
	}
	for k, i := range entries {
		if !good[k] {
			return i
		}
	}
	return -1
}

// parallel calls f for 0 … n-1 on all cores.
func parallel(n int, f func(int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
