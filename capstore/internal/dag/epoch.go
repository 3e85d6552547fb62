package dag

import (
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/cbor"
)

// Bounds of an epoch.
const (
	MaxParents   = 4096
	MaxEvents    = 4096
	MaxEventOps  = 4096    // of one event
	MaxEpochSize = 1 << 20 // bytes
)

// Epoch is one node of a Space's history: what it follows and what happened.
type Epoch struct {
	Parents []tinycloud.Hash // ids of epochs, in the order that is hashed
	Events  []EventRef
}

// EventRef is an event of an epoch and the KV operations it made in this Space, in capability order.
type EventRef struct {
	Event tinycloud.Hash
	Ops   []tinycloud.Hash // none for delegations, revocations and reads
}

// Encode returns the bytes of the epoch. It does not check the bounds.
func (e Epoch) Encode() []byte {
	size := 32 + linkSize*(len(e.Parents)+len(e.Events))
	for _, ev := range e.Events {
		size += 3 + linkSize*len(ev.Ops)
	}
	b := make([]byte, 0, size)
	b = cbor.AppendText(cbor.AppendHead(b, cbor.Map, 2), "parents")
	b = cbor.AppendHead(b, cbor.Array, uint64(len(e.Parents)))
	for _, p := range e.Parents {
		b = appendLink(b, cborLink, p)
	}
	b = cbor.AppendText(b, "events")
	b = cbor.AppendHead(b, cbor.Array, uint64(len(e.Events)))
	for _, ev := range e.Events {
		if len(ev.Ops) > 0 {
			b = cbor.AppendHead(b, cbor.Array, uint64(1+len(ev.Ops)))
		}
		b = appendLink(b, rawLink, ev.Event)
		for _, op := range ev.Ops {
			b = appendLink(b, cborLink, op)
		}
	}
	return b
}

// ID returns the hash of the epoch's bytes.
func (e Epoch) ID() tinycloud.Hash { return tinycloud.Sum(e.Encode()) }

// DecodeEpoch reads the bytes of an epoch. The error is of class [tinycloud.ErrInvalid].
func DecodeEpoch(b []byte) (Epoch, error) {
	if len(b) > MaxEpochSize {
		return Epoch{}, fmt.Errorf("dag: epoch of %d bytes: %w", len(b), tinycloud.ErrInvalid)
	}
	r := NewReader(b)
	var e Epoch
	if r.Head(cbor.Map) != 2 {
		r.Fail("map of two fields expected")
	}
	r.Name("parents")
	for n := r.Count(cbor.Array, MaxParents); n > 0 && r.err == nil; n-- {
		e.Parents = append(e.Parents, r.link(cborLink))
	}
	r.Name("events")
	for n := r.Count(cbor.Array, MaxEvents); n > 0 && r.err == nil; n-- {
		e.Events = append(e.Events, r.event())
	}
	if err := r.End(); err != nil {
		return Epoch{}, err
	}
	return e, nil
}

// event reads a link alone, or a list of a link and at least one operation.
func (r *Reader) event() (ev EventRef) {
	if r.Peek()&0xe0 != cbor.Array {
		ev.Event = r.link(rawLink)
		return ev
	}
	n := r.Count(cbor.Array, 1+MaxEventOps)
	if n < 2 {
		r.Fail("event without operations in a list")
	}
	ev.Event = r.link(rawLink)
	for ; n > 1 && r.err == nil; n-- {
		ev.Ops = append(ev.Ops, r.link(cborLink))
	}
	return ev
}
