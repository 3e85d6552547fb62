package oracletest

import (
	"cmp"
	"slices"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/judge"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// Timed is the time in unix milliseconds from which on the order goes by time.
const Timed = judge.Timed

// age is an epoch's place in time.
type age struct {
	time  int64
	early bool
	begin begin
}

// begin is the host delegation that a history began with.
type begin struct {
	issued int64
	id     tinycloud.Hash
}

func (b begin) compare(c begin) int {
	return cmp.Or(cmp.Compare(b.issued, c.issued), slices.Compare(b.id[:], c.id[:]))
}

func (h *history) compareAges(a, b *epoch) int {
	if h.rules.Defect == OrderBySeq {
		return 0
	}
	if h.rules.Defect != NothingEarly {
		switch {
		case a.age.early && !b.age.early:
			return -1
		case !a.age.early && b.age.early:
			return 1
		case a.age.early && a.age.begin != b.age.begin:
			return -a.age.begin.compare(b.age.begin)
		}
	}
	return cmp.Compare(a.age.time, b.age.time)
}

// date computes the time of an epoch, whose parents have theirs, and whether it is early.
func (h *history) date(e *epoch) {
	for _, p := range e.parents {
		e.age.time = max(e.age.time, h.epochs[p].age.time)
	}
	if at, ok := h.written(e); ok {
		e.age.time = max(e.age.time, at)
	}
	if e.age.time < judge.Timed {
		e.age.time = 0
	}
	begins := h.begins(e)
	if len(begins) == 0 {
		return
	}
	e.age.begin = slices.MinFunc(begins, begin.compare)
	e.age.early = e.age.time <= e.age.begin.issued+(24*time.Hour).Milliseconds()
	for _, x := range h.order {
		if x != e && !e.past[x.id] {
			continue
		}
		if _, ok := h.written(x); ok && x.age.time == 0 || len(h.begins(x)) == 0 {
			e.age.early = false
		}
	}
}

// begins are the host delegations by the owner in an epoch and its past.
func (h *history) begins(e *epoch) (out []begin) {
	space := e.entries[0].Space
	h.inPast(e, len(e.events), func(tok *capstore.Token) {
		_, host := hostlog.KeyOf(tok.Audience)
		if tok.Kind != token.Delegation || !host || !tok.HostsSpace(space) || tok.Signer != space.Owner() {
			return
		}
		b := begin{id: tok.ID}
		if !tok.IssuedAt.IsZero() {
			b.issued = tok.IssuedAt.UnixMilli()
		}
		out = append(out, b)
	})
	return out
}

// written is when the invocations of an epoch were made, as far as its entries tell.
func (h *history) written(e *epoch) (int64, bool) {
	var invocations []*capstore.Token
	for i, tok := range e.events {
		if tok.Kind == token.Invocation && ofOneService(e.ops[i]) { // what is void by its bytes is none
			invocations = append(invocations, tok)
		}
	}
	timely := func(times []int64) (out []int64) {
		for _, at := range times {
			if slices.ContainsFunc(invocations, func(tok *capstore.Token) bool { return tok.ValidAt(time.UnixMilli(at), slack*time.Millisecond) }) {
				out = append(out, at)
			}
		}
		return out
	}
	var times []int64
	for _, class := range e.witnessed {
		if times = timely(class); len(times) > 0 {
			break
		}
	}
	if len(times) == 0 {
		return 0, false
	}
	least, greatest := slices.Min(times), slices.Max(times)
	ends := int64(1 << 62)
	for _, tok := range invocations {
		if !tok.Expires.IsZero() {
			ends = min(ends, tok.Expires.UnixMilli())
		}
	}
	if ends == 1<<62 {
		return least, true
	}
	return min(greatest, max(least, ends-420_000)), true
}
