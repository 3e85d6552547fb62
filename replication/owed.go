package replication

import (
	"errors"
	"fmt"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// A peer says what it has before anything is asked of it, and sends its logs parents first and without gaps. So its
// stream alone shows that something is left out: it ends before a tip that it named, or an entry in it builds on what
// is neither here nor was sent. What this side does with the entries makes no difference.

// errGap says that what was sent builds on what is not here.
var errGap = errors.New("history is missing")

// owed are the tips that a peer named, is to bring, and has not brought yet.
type owed map[place][]tinycloud.Hash

// place is that of an entry in a log.
type place struct {
	host hostlog.Key
	n    uint64
}

func newOwed(theirs, have []hostlog.Tip) owed {
	o := owed{}
	for _, t := range theirs {
		at := place{t.Host, t.N}
		o[at] = append(o[at], t.Digest)
	}
	for _, t := range have {
		o.bring(place{t.Host, t.N}, func() tinycloud.Hash { return t.Digest })
	}
	return o
}

func (o owed) bring(at place, digest func() tinycloud.Hash) {
	tips, ok := o[at]
	if !ok {
		return
	}
	brought := digest()
	if tips = slices.DeleteFunc(tips, func(d tinycloud.Hash) bool { return d == brought }); len(tips) == 0 {
		delete(o, at)
		return
	}
	o[at] = tips
}

// came notes what was sent.
func (o owed) came(bundles []hostlog.Bundle) {
	for i := range bundles {
		e := &bundles[i].Entry
		o.bring(place{e.Host, e.N}, e.Digest)
	}
}

// over is the end of a stream: an error of class [tinycloud.ErrInvalid] unless all was brought.
func (o owed) over() error {
	for at := range o {
		return fmt.Errorf("stream without entry %d of %s and %d other tips that were named: %w", at.n, at.host, len(o)-1, tinycloud.ErrInvalid)
	}
	return nil
}

// early is what a stream has to do with entries that are not due yet: what builds on them may not fit, and nobody left
// it out.
type early struct {
	held  bool                 // some are stored here
	hosts map[hostlog.Key]bool // whose there was no room for: they are left for a later round
}

func newEarly(held bool) *early { return &early{held: held, hosts: map[hostlog.Key]bool{}} }

func (e *early) any() bool { return e.held || len(e.hosts) > 0 }

// gap tells what an error of [Replica.applyBatch] says about a peer that sends all there is, parents first: a gap is its
// fault, of class [tinycloud.ErrInvalid], unless something is early.
func (e *early) gap(err error) error {
	if errors.Is(err, errGap) && !e.any() {
		return fmt.Errorf("%v: %w", err, tinycloud.ErrInvalid)
	}
	return err
}
