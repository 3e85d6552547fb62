package oracletest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
)

// Defect is a rule that is got wrong.
type Defect string

// The defects.
const (
	OrderFlipped      Defect = "order flipped"                    // of epochs with the same seq the least is the greatest
	RevocationIgnored Defect = "revocation ignored"               // a session writes on
	SeqTrusted        Defect = "seq trusted from the wire"        // a delete's version counts as it says
	DeleteTakesLatest Defect = "delete without version is latest" // it removes the greatest write of all, also one it never saw
	WindowJudgedNow   Defect = "window judged now"                // a token that has expired since is void
)

// Defects lists them all.
func Defects() []Defect {
	return []Defect{OrderFlipped, RevocationIgnored, SeqTrusted, DeleteTakesLatest, WindowJudgedNow}
}

// Rules say how a history is judged; the zero value judges by the design.
type Rules struct {
	Defect Defect
	Now    time.Time // for [WindowJudgedNow]
}

// State is what a history means.
type State struct {
	Keys  map[string]tinycloud.Hash // value by key
	Heads []tinycloud.Hash          // valid epochs without valid descendants, ascending
	Void  int                       // epochs that count for nothing
	// Invocations are the ids of the invocations that are valid, with the number of places where they are.
	Invocations map[tinycloud.Hash]int
}

// slack is the difference of clocks that is borne, in milliseconds.
const slack = 120_000

type epoch struct {
	id      tinycloud.Hash
	parents []tinycloud.Hash
	entries []capstore.Entry
	events  []*capstore.Token
	ops     [][]dag.Op
	past    map[tinycloud.Hash]bool
	seq     uint64
	t       int64
	able    map[int]bool // entries that would be valid if no host had been removed
	valid   []int64      // times of the valid entries
}

func (e *epoch) at(i int) capstore.Position {
	return capstore.Position{Seq: e.seq, Epoch: e.id, Index: uint64(i)}
}

// history is a decoded one, parents first.
type history struct {
	rules  Rules
	order  []*epoch
	epochs map[tinycloud.Hash]*epoch
	known  map[tinycloud.Hash]*capstore.Token
}

// Fold judges a whole history, given parents first. The error tells of bytes that do not decode.
func Fold(bundles []capstore.Bundle, r Rules) (State, error) {
	h := &history{rules: r, epochs: map[tinycloud.Hash]*epoch{}, known: map[tinycloud.Hash]*capstore.Token{}}
	for _, b := range expand(bundles) {
		if err := h.add(b); err != nil {
			return State{}, err
		}
	}
	for _, e := range h.order {
		for _, tok := range e.events {
			h.known[tok.ID] = tok
		}
	}
	for _, e := range h.order {
		h.place(e)
	}
	removals(h.order)
	st := State{Invocations: map[tinycloud.Hash]int{}}
	st.Keys = h.keys(st.Invocations)
	st.Heads = h.heads()
	for _, e := range h.order {
		if len(e.valid) == 0 {
			st.Void++
		}
	}
	return st, nil
}

// expand gives every imported epoch an entry of its own.
func expand(bundles []capstore.Bundle) []capstore.Bundle {
	var out []capstore.Bundle
	for _, b := range bundles {
		if len(b.Imported) == 0 {
			out = append(out, b)
		}
		for _, im := range b.Imported {
			e := b.Entry
			e.At, e.Epoch = im.At, tinycloud.Sum(im.Epoch)
			out = append(out, capstore.Bundle{Entry: e, Epoch: im.Epoch, Events: im.Events, Ops: im.Ops})
		}
	}
	return out
}

// add decodes a bundle.
func (h *history) add(b capstore.Bundle) error {
	e := h.epochs[b.Entry.Epoch]
	if e != nil {
		e.entries = append(e.entries, b.Entry)
		return nil
	}
	d, err := dag.DecodeEpoch(b.Epoch)
	if err != nil {
		return err
	}
	e = &epoch{id: b.Entry.Epoch, parents: d.Parents, entries: []capstore.Entry{b.Entry}, past: map[tinycloud.Hash]bool{}}
	ops := b.Ops
	for i, ref := range d.Events {
		tok, err := judge.Decode(b.Events[i], len(ref.Ops) > 0)
		if err != nil {
			return err
		}
		var own []dag.Op
		for range ref.Ops {
			op, err := dag.DecodeOp(ops[0])
			if err != nil {
				return err
			}
			own, ops = append(own, op), ops[1:]
		}
		e.events, e.ops = append(e.events, tok), append(e.ops, own)
	}
	for _, p := range d.Parents {
		if h.epochs[p] == nil {
			return fmt.Errorf("epoch %s before its parent %s", e.id, p)
		}
		e.past[p] = true
		maps.Copy(e.past, h.epochs[p].past)
		e.seq = max(e.seq, h.epochs[p].seq+1)
	}
	h.epochs[e.id], h.order = e, append(h.order, e)
	return nil
}

// inPast calls f for the events that an event of e sees.
func (h *history) inPast(e *epoch, index int, f func(*capstore.Token)) {
	for _, x := range h.order {
		if x != e && !e.past[x.id] {
			continue
		}
		for i, tok := range x.events {
			if x != e || i < index {
				f(tok)
			}
		}
	}
}

// place finds an epoch's time, and which of its entries are by a host.
func (h *history) place(e *epoch) {
	var floor int64
	for _, p := range e.parents {
		floor = max(floor, h.epochs[p].t)
	}
	least := e.entries[0].At
	e.able = map[int]bool{}
	for i, l := range e.entries {
		least = min(least, l.At)
		hosted := false
		seen := func(tok *capstore.Token) {
			host, ok := capstore.HostOf(tok.Audience)
			hosted = hosted || (ok && host == l.Host && tok.HostsSpace(l.Space) && tok.Signer == l.Space.Owner())
		}
		if l.Import.IsZero() {
			h.inPast(e, len(e.events), seen)
		} else {
			for _, tok := range h.known {
				seen(tok)
			}
		}
		e.able[i] = hosted && l.At >= floor-slack
	}
	e.t = max(floor, least)
}

// heads are the valid epochs without valid descendants.
func (h *history) heads() []tinycloud.Hash {
	below := map[tinycloud.Hash]bool{}
	for _, e := range h.order {
		if len(e.valid) > 0 {
			maps.Copy(below, e.past)
		}
	}
	var out []tinycloud.Hash
	for _, e := range h.order {
		if len(e.valid) > 0 && !below[e.id] {
			out = append(out, e.id)
		}
	}
	slices.SortFunc(out, func(a, b tinycloud.Hash) int { return slices.Compare(a[:], b[:]) })
	return out
}

// counts says whether an invocation is valid where it stands.
func (h *history) counts(e *epoch, i int) bool {
	tok := e.events[i]
	if tok.Kind != judge.Invocation || len(tok.Proofs) == 0 || h.known[tok.Proofs[0]] == nil {
		return false
	}
	until := tok.Expires.Add(slack * time.Millisecond)
	timely := slices.ContainsFunc(e.valid, func(at int64) bool {
		if h.rules.Defect == WindowJudgedNow {
			at = h.rules.Now.UnixMilli()
		}
		return !time.UnixMilli(at).After(until)
	})
	revoked := false
	h.inPast(e, i, func(r *capstore.Token) {
		revoked = revoked || (r.Kind == judge.Revocation && r.Target == tok.Proofs[0])
	})
	return timely && (!revoked || h.rules.Defect == RevocationIgnored)
}

// write is a valid one.
type write struct {
	at    capstore.Position
	value tinycloud.Hash
}

// keyed are the operations on one key.
type keyed struct {
	writes map[tinycloud.Hash]write // by event, at the least place
	dead   map[tinycloud.Hash]bool  // events that a delete names
	floor  *capstore.Position
}

// keys folds all valid operations, and counts the valid places of every invocation.
func (h *history) keys(valid map[tinycloud.Hash]int) map[string]tinycloud.Hash {
	keys := map[string]*keyed{}
	for _, e := range h.order {
		for i, tok := range e.events {
			if !h.counts(e, i) {
				continue
			}
			valid[tok.ID]++
			for _, op := range e.ops[i] {
				k := keys[op.Key]
				if k == nil {
					k = &keyed{writes: map[tinycloud.Hash]write{}, dead: map[tinycloud.Hash]bool{}}
					keys[op.Key] = k
				}
				if op.Delete {
					h.remove(k, e, i, op)
				} else if w, ok := k.writes[tok.ID]; !ok || h.compare(e.at(i), w.at) < 0 {
					k.writes[tok.ID] = write{e.at(i), op.Value}
				}
			}
		}
	}
	out := map[string]tinycloud.Hash{}
	for key, k := range keys {
		var best tinycloud.Hash
		var top *write
		for id, w := range k.writes {
			if top == nil || h.compare(w.at, top.at) > 0 {
				best, top = id, &w
			}
		}
		if top != nil && !k.dead[best] && (k.floor == nil || h.compare(top.at, *k.floor) > 0) {
			out[key] = top.value
		}
	}
	return out
}

// compare is the order of the history.
func (h *history) compare(a, b capstore.Position) int {
	if h.rules.Defect == OrderFlipped && a.Seq == b.Seq && a.Epoch != b.Epoch {
		return -a.Compare(b)
	}
	return a.Compare(b)
}

// remove takes a valid delete into account.
func (h *history) remove(k *keyed, e *epoch, i int, op dag.Op) {
	at, event, ok := h.named(e, i, op)
	if !ok {
		return
	}
	k.dead[event] = true
	if k.floor == nil || h.compare(at, *k.floor) > 0 {
		k.floor = &at
	}
}

// named finds the write that a delete removes.
func (h *history) named(e *epoch, i int, op dag.Op) (at capstore.Position, event tinycloud.Hash, ok bool) {
	for _, x := range h.order {
		for n, tok := range x.events {
			sees := e.past[x.id] || x == e && n < i
			writes := slices.ContainsFunc(x.ops[n], func(o dag.Op) bool { return o.Key == op.Key && !o.Delete })
			if !writes {
				continue
			}
			if v := op.Version; v != nil {
				if sees && v.Epoch == x.id && v.Index == uint64(n) && (v.Seq == x.seq || h.rules.Defect == SeqTrusted) {
					return capstore.Position{Seq: v.Seq, Epoch: v.Epoch, Index: v.Index}, tok.ID, true
				}
				continue
			}
			sees = sees || h.rules.Defect == DeleteTakesLatest
			if sees && h.counts(x, n) && (!ok || h.compare(x.at(n), at) > 0) {
				at, event, ok = x.at(n), tok.ID, true
			}
		}
	}
	return at, event, ok
}

// Descendants are the epochs of a history that have a token in their proper causal past.
func Descendants(bundles []capstore.Bundle, token tinycloud.Hash) map[tinycloud.Hash]bool {
	h := &history{epochs: map[tinycloud.Hash]*epoch{}}
	out := map[tinycloud.Hash]bool{}
	for _, b := range expand(bundles) {
		if h.add(b) != nil {
			continue
		}
		e := h.epochs[b.Entry.Epoch]
		for p := range e.past {
			for _, tok := range h.epochs[p].events {
				if tok.ID == token {
					out[e.id] = true
				}
			}
		}
	}
	return out
}
