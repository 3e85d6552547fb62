package oracletest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
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
	OrderBySeq        Defect = "order without time"               // who wrote more wins, not who wrote last
	NothingEarly      Defect = "nothing is early"                 // what began later counts as much
	AnotherBody       Defect = "another body"                     // of the places of an event the greatest counts, not the least
)

// Defects lists those that keys tell.
func Defects() []Defect {
	return []Defect{OrderFlipped, RevocationIgnored, SeqTrusted, DeleteTakesLatest, WindowJudgedNow, OrderBySeq, NothingEarly}
}

// Rules say how a history is judged; the zero value judges by docs/replication.md.
type Rules struct {
	Defect Defect
	Now    time.Time // for [WindowJudgedNow]
}

// State is what a history means.
type State struct {
	Keys map[string]tinycloud.Hash // value by key
	// Conflicts are, by key, the events of the writes that no other operation on it has in its past, but for the one that
	// it holds.
	Conflicts map[string]map[tinycloud.Hash]bool
	Heads     []tinycloud.Hash // valid epochs without valid descendants, ascending
	Void      int              // epochs that count for nothing
	// Invocations are the ids of the invocations that are valid, with the number of places where they are.
	Invocations map[tinycloud.Hash]int
	Calls       map[Subject][]Call // of services other than key-value, in the order of their subject
}

// slack is the difference of clocks that is borne, in milliseconds.
const slack = 120_000

type epoch struct {
	id      tinycloud.Hash
	parents []tinycloud.Hash
	entries []hostlog.Entry
	events  []*capstore.Token
	ops     [][]operation
	past    map[tinycloud.Hash]bool
	seq     uint64
	t       int64
	able    map[int]bool // entries that would be valid if no host had been removed
	valid   []int64      // times of the valid entries
	// Likewise, by who is asked first: hosts that are not removed, those that are, and of imports likewise.
	witnessed [4][]int64
	age       age
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
func Fold(bundles []hostlog.Bundle, r Rules) (State, error) {
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
	for _, e := range h.order {
		h.date(e)
	}
	st := State{Invocations: map[tinycloud.Hash]int{}, Keys: map[string]tinycloud.Hash{}, Conflicts: map[string]map[tinycloud.Hash]bool{}}
	h.keys(&st)
	st.Calls = h.calls()
	st.Heads = h.heads()
	for _, e := range h.order {
		if len(e.valid) == 0 {
			st.Void++
		}
	}
	return st, nil
}

// expand gives every imported epoch an entry of its own.
func expand(bundles []hostlog.Bundle) []hostlog.Bundle {
	var out []hostlog.Bundle
	for _, b := range bundles {
		if len(b.Imported) == 0 {
			out = append(out, b)
		}
		for _, im := range b.Imported {
			e := b.Entry
			e.At, e.Epoch = im.At, tinycloud.Sum(im.Epoch)
			out = append(out, hostlog.Bundle{Entry: e, Epoch: im.Epoch, Events: im.Events, Ops: im.Ops})
		}
	}
	return out
}

// add decodes a bundle.
func (h *history) add(b hostlog.Bundle) error {
	e := h.epochs[b.Entry.Epoch]
	if e != nil {
		e.entries = append(e.entries, b.Entry)
		return nil
	}
	d, err := dag.DecodeEpoch(b.Epoch)
	if err != nil {
		return err
	}
	e = &epoch{id: b.Entry.Epoch, parents: d.Parents, entries: []hostlog.Entry{b.Entry}, past: map[tinycloud.Hash]bool{}}
	ops := b.Ops
	for i, ref := range d.Events {
		tok, err := token.Decode(b.Events[i], len(ref.Ops) > 0)
		if err != nil {
			return err
		}
		var own []operation
		for range ref.Ops {
			op, err := decode(ops[0])
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
			host, ok := hostlog.KeyOf(tok.Audience)
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
	if tok.Kind != token.Invocation {
		return false
	}
	ended := map[tinycloud.Hash]bool{}
	h.inPast(e, i, func(r *capstore.Token) {
		if r.Kind == token.Revocation && h.rules.Defect != RevocationIgnored {
			ended[r.Target] = true
		}
	})
	used := usedBy(tok, e.ops[i])
	return used != nil && slices.ContainsFunc(e.valid, func(ms int64) bool {
		at := time.UnixMilli(ms)
		if h.rules.Defect == WindowJudgedNow {
			at = h.rules.Now
		}
		c := Chains{Known: h.known, At: at, Revoked: func(id tinycloud.Hash) bool { return ended[id] }}
		return tok.ValidAt(at, slack*time.Millisecond) && c.Covered(tok, used)
	})
}

// ofOneService says that an event's operations are not of several services.
func ofOneService(ops []operation) bool {
	return !slices.ContainsFunc(ops, func(o operation) bool { return o.of.Service != ops[0].of.Service })
}

// usedBy are the capabilities of a token that its operations use, nil when one of them was not asked for.
func usedBy(tok *capstore.Token, ops []operation) []capstore.Capability {
	if !ofOneService(ops) {
		return nil
	}
	used := []capstore.Capability{}
	for _, op := range ops {
		n := len(used)
		for _, c := range tok.Caps {
			if op.of != keys {
				if op.asks(c) {
					used = append(used, c)
				}
				continue
			}
			path, ok := c.Resource.Path()
			deletes := c.Ability == token.AbilityDel || c.Ability == token.AbilityDelete
			if ok && path == op.Key && c.Resource.Service() == "kv" && (op.Delete && deletes || !op.Delete && c.Ability == token.AbilityPut) {
				used = append(used, c)
				break
			}
		}
		if len(used) == n {
			return nil
		}
	}
	return used
}

// write is a valid one, at its valid places.
type write struct {
	event  tinycloud.Hash
	places []placement
	op     dag.Op
	least  placement
	dead   bool
}

// placement is where an event stands.
type placement struct {
	e *epoch
	i int
}

func (p placement) sees(q placement) bool { return p.e.past[q.e.id] || p.e == q.e && q.i < p.i }

// keyed are the valid operations on one key.
type keyed struct {
	writes  map[tinycloud.Hash]*write
	deletes []erasure
}

type erasure struct {
	placement
	event tinycloud.Hash
	op    dag.Op
}

// keys folds all valid operations, and counts the valid places of every invocation.
func (h *history) keys(st *State) {
	all := map[string]*keyed{}
	for _, e := range h.order {
		for i, tok := range e.events {
			if !h.counts(e, i) {
				continue
			}
			st.Invocations[tok.ID]++
			for _, op := range e.ops[i] {
				if op.of != keys {
					continue
				}
				k := all[op.Key]
				if k == nil {
					k = &keyed{writes: map[tinycloud.Hash]*write{}}
					all[op.Key] = k
				}
				at := placement{e, i}
				if op.Delete {
					k.deletes = append(k.deletes, erasure{at, tok.ID, op.Op})
					continue
				}
				w := k.writes[tok.ID]
				if w == nil {
					w = &write{event: tok.ID, op: op.Op, least: at}
					k.writes[tok.ID] = w
				}
				if w.places = append(w.places, at); h.compare(at, w.least) < 0 {
					w.least, w.op = at, op.Op
				}
			}
		}
	}
	for key, k := range all {
		h.settle(st, key, k)
	}
}

// settle finds what a key holds, and its conflicts.
func (h *history) settle(st *State, key string, k *keyed) {
	k.deletes = slices.DeleteFunc(k.deletes, func(d erasure) bool { return !h.removes(k, d) })
	var top *write
	for _, w := range k.writes {
		if top == nil || h.compare(w.least, top.least) > 0 {
			top = w
		}
	}
	live := top != nil && !top.dead
	for _, d := range k.deletes {
		for _, w := range k.writes {
			live = live && !(h.reached(d, w) && h.compare(top.least, w.least) <= 0)
		}
	}
	if h.rules.Defect == SeqTrusted && live {
		live = !slices.ContainsFunc(k.deletes, func(d erasure) bool { return d.op.Version != nil && top.least.e.seq <= d.op.Version.Seq })
	}
	if live {
		st.Keys[key] = top.op.Value
	}
	for _, w := range k.writes {
		if live && w == top || h.superseded(k, w) {
			continue
		}
		if st.Conflicts[key] == nil {
			st.Conflicts[key] = map[tinycloud.Hash]bool{}
		}
		st.Conflicts[key][w.event] = true
	}
}

// reached reports whether a delete has a write in its past.
func (h *history) reached(d erasure, w *write) bool {
	return h.rules.Defect == DeleteTakesLatest && d.op.Version == nil || slices.ContainsFunc(w.places, d.sees)
}

// superseded reports whether another operation on the key has a write in its past.
func (h *history) superseded(k *keyed, w *write) bool {
	for _, d := range k.deletes {
		if d.event != w.event && slices.ContainsFunc(w.places, d.sees) {
			return true
		}
	}
	for _, x := range k.writes {
		for _, p := range x.places {
			if x != w && slices.ContainsFunc(w.places, p.sees) {
				return true
			}
		}
	}
	return false
}

// compare is the order of writes.
func (h *history) compare(a, b placement) int {
	if c := h.compareAges(a.e, b.e); c != 0 {
		return c
	}
	p, q := a.e.at(a.i), b.e.at(b.i)
	if h.rules.Defect == OrderFlipped && p.Seq == q.Seq && p.Epoch != q.Epoch {
		return -p.Compare(q)
	}
	return p.Compare(q)
}

// removes reports whether a delete counts, and marks what it names: a write to the key in its past.
func (h *history) removes(k *keyed, d erasure) bool {
	v := d.op.Version
	if v == nil {
		for _, w := range k.writes {
			if h.reached(d, w) {
				return true
			}
		}
		return false
	}
	for _, x := range h.order {
		for n, tok := range x.events {
			writes := slices.ContainsFunc(x.ops[n], func(o operation) bool { return o.of == keys && o.Key == d.op.Key && !o.Delete })
			named := v.Epoch == x.id && v.Index == uint64(n) && (v.Seq == x.seq || h.rules.Defect == SeqTrusted)
			if !writes || !named || !d.sees(placement{x, n}) {
				continue
			}
			if w := k.writes[tok.ID]; w != nil {
				w.dead = true
			}
			return true
		}
	}
	return false
}

// Descendants are the epochs of a history that have a token in their proper causal past.
func Descendants(bundles []hostlog.Bundle, token tinycloud.Hash) map[tinycloud.Hash]bool {
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
