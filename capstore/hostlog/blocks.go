package hostlog

import (
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// Blocks calls yield with the bundle's history as blocks of content-addressed bytes: epochs, events and
// operations, the list of an import entry, and the entry at last.
func (b *Bundle) Blocks(yield func(codec uint64, block []byte) error) error {
	parts := b.Imported
	if len(parts) == 0 {
		parts = []Imported{{Epoch: b.Epoch, Events: b.Events, Ops: b.Ops}}
	}
	for _, p := range parts {
		if err := yield(tinycloud.CBORCodec, p.Epoch); err != nil {
			return err
		}
		for _, e := range p.Events {
			if err := yield(tinycloud.RawCodec, e); err != nil {
				return err
			}
		}
		for _, op := range p.Ops {
			if err := yield(tinycloud.CBORCodec, op); err != nil {
				return err
			}
		}
	}
	if len(b.Imported) > 0 {
		list := make([]Listed, len(b.Imported))
		for i, im := range b.Imported {
			list[i] = Listed{tinycloud.Sum(im.Epoch), im.At}
		}
		if err := yield(tinycloud.CBORCodec, EncodeList(list)); err != nil {
			return err
		}
	}
	return yield(tinycloud.CBORCodec, b.Entry.Encode())
}

// Assemble makes the bundle of an entry from its blocks. The error is of class [tinycloud.ErrInvalid] when
// one is missing or no such block; nothing is verified.
func Assemble(entry []byte, sig Signature, get func(tinycloud.Hash) ([]byte, bool)) (Bundle, error) {
	e, err := DecodeEntry(entry)
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{Entry: e, Sig: sig}
	if e.Import.IsZero() {
		im, err := assembleEpoch(e.Epoch, get)
		b.Epoch, b.Events, b.Ops = im.Epoch, im.Events, im.Ops
		return b, err
	}
	raw, ok := get(e.Import)
	if !ok {
		return b, fmt.Errorf("import list %s is missing: %w", e.Import, tinycloud.ErrInvalid)
	}
	list, err := DecodeList(raw)
	if err != nil {
		return b, err
	}
	for _, l := range list {
		im, err := assembleEpoch(l.Epoch, get)
		if err != nil {
			return b, err
		}
		im.At = l.At
		b.Imported = append(b.Imported, im)
	}
	return b, nil
}

func assembleEpoch(id tinycloud.Hash, get func(tinycloud.Hash) ([]byte, bool)) (im Imported, err error) {
	missing := func(what string, h tinycloud.Hash) error {
		return fmt.Errorf("%s %s is missing: %w", what, h, tinycloud.ErrInvalid)
	}
	var ok bool
	if im.Epoch, ok = get(id); !ok {
		return im, missing("epoch", id)
	}
	e, err := dag.DecodeEpoch(im.Epoch)
	if err != nil {
		return im, err
	}
	for _, ev := range e.Events {
		b, ok := get(ev.Event)
		if !ok {
			return im, missing("event", ev.Event)
		}
		im.Events = append(im.Events, b)
		for _, h := range ev.Ops {
			op, ok := get(h)
			if !ok {
				return im, missing("operation", h)
			}
			im.Ops = append(im.Ops, op)
		}
	}
	return im, nil
}
