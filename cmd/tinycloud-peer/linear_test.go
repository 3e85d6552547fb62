package main

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What several processes of one host answer has to be what one process could have answered that does one thing after another,
// each somewhere between its request and its answer: the history is linearizable. A request without an answer may have had its
// effect then, later, or never.

// verb is what a client asks of a register.
type verb int

const (
	read   verb = iota
	write       // sets the value
	swap        // sets it if it is another one, which may be to none
	create      // sets it if there is none
	remove      // sets it to none, if it was ever written
)

// asked is a request on one register.
type asked struct {
	register string
	verb     verb
	from, to string // values
}

// told is the answer.
type told struct {
	unknown bool   // none came
	done    bool   // of what has a condition: it held
	value   string // that was read, "" for none
	count   int    // of writes, as was read; -1: not counted
}

// register is the state of one: a value, "" for none, and how often it was written, if that is counted.
type register struct {
	value string
	count int
}

// step is what a register does.
func step(state, input, output any) (bool, any) {
	s, in, out := state.(register), input.(asked), output.(told)
	holds := true
	switch in.verb {
	case read:
		return out.value == s.value && (out.count < 0 || out.count == s.count), s
	case swap:
		holds = s.value == in.from && s.value != ""
	case create:
		holds = s.value == ""
	case remove:
		holds = s.count > 0
	}
	if !out.unknown && out.done != holds && in.verb != write {
		return false, s
	}
	if holds {
		s.value, s.count = in.to, s.count+1
	}
	return true, s
}

func describe(input, output any) string {
	in, out := input.(asked), output.(told)
	text := in.register + " " + [...]string{"read", "write", "swap", "create", "remove"}[in.verb]
	if in.verb != read {
		text += fmt.Sprintf(" %s -> %s", in.from, in.to)
	}
	switch {
	case out.unknown:
		return text + ": ?"
	case in.verb == read:
		return fmt.Sprintf("%s: %s #%d", text, out.value, out.count)
	}
	return fmt.Sprintf("%s: %t", text, out.done)
}

// history is what clients asked and were answered. It may be used by several goroutines.
type history struct {
	began time.Time
	first map[string]register // what registers are at the begin; nothing for the others

	mu  sync.Mutex
	all []porcupine.Operation // guarded by mu
}

func newHistory() *history { return &history{began: time.Now(), first: map[string]register{}} }

// now is a time on the one clock of the history.
func (h *history) now() int64 { return int64(time.Since(h.began)) }

// note notes an answer that came just now to a request of a client. A read without an answer tells nothing.
func (h *history) note(client int, in asked, call int64, out told) {
	op := porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: h.now()}
	if out.unknown {
		if in.verb == read {
			return
		}
		op.Return = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, op)
}

// model has each register for itself: a history is linearizable if that of each object is.
func (h *history) model() porcupine.Model {
	return porcupine.Model{
		Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
			at := map[string]int{}
			for _, op := range all {
				name := op.Input.(asked).register
				i, ok := at[name]
				if !ok {
					i = len(parts)
					at[name] = i
					// The first operation sets what the register is: there is one Init for all.
					first := h.first[name]
					parts = append(parts, []porcupine.Operation{{Input: first, Output: told{}, Call: -2, Return: -1}})
				}
				parts[i] = append(parts[i], op)
			}
			return parts
		},
		Init: func() any { return register{} },
		Step: func(state, input, output any) (bool, any) {
			if first, ok := input.(register); ok {
				return true, first
			}
			return step(state, input, output)
		},
		DescribeOperation: func(input, output any) string {
			if first, ok := input.(register); ok {
				return fmt.Sprintf("begins as %s", first.value)
			}
			return describe(input, output)
		},
	}
}

// check returns what is wrong with the history, "" for nothing, and how many operations it has, and of these without an
// answer.
func (h *history) check(within time.Duration) (wrong string, of, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.all {
		if op.Output.(told).unknown {
			unknown++
		}
	}
	model := h.model()
	for _, part := range model.Partition(h.all) {
		one := model
		one.Partition = nil
		switch result, info := porcupine.CheckOperationsVerbose(one, part, within); result {
		case porcupine.Ok:
		case porcupine.Unknown:
			return fmt.Sprintf("not decided within %s: %d operations on one register", within, len(part)), len(h.all), unknown
		default:
			return "not linearizable:\n" + around(part, info), len(h.all), unknown
		}
	}
	return "", len(h.all), unknown
}

// around shows what comes around the first operation that fits nowhere.
func around(part []porcupine.Operation, info porcupine.LinearizationInfo) string {
	longest := map[int]bool{}
	most := 0
	for _, p := range info.PartialLinearizations()[0] {
		if len(p) > most {
			most = len(p)
			clear(longest)
			for _, i := range p {
				longest[i] = true
			}
		}
	}
	stuck := int64(math.MaxInt64)
	for i, op := range part {
		if !longest[i] {
			stuck = min(stuck, op.Return)
		}
	}
	var b strings.Builder
	for i, op := range part {
		in, ok := op.Input.(asked)
		if !ok || op.Return < stuck-int64(500*time.Millisecond) || op.Call > stuck {
			continue
		}
		mark := " "
		if !longest[i] {
			mark = "!"
		}
		end := "?"
		if op.Return != math.MaxInt64 {
			end = time.Duration(op.Return).String()
		}
		fmt.Fprintf(&b, "%s %d: %s to %s: %s\n", mark, op.ClientId, time.Duration(op.Call), end, describe(in, op.Output))
	}
	return b.String()
}

// Histories that no host of one order could have, and some that it could, though answers are missing.
func TestLinearCheck(t *testing.T) {
	t.Parallel()
	type op struct {
		call, end int64
		in        asked
		out       told
	}
	yes, no, lost := told{done: true}, told{}, told{unknown: true}
	is := func(v string) told { return told{value: v, count: -1} }
	set := func(v string) asked { return asked{"x", write, "", v} }
	get := asked{register: "x", verb: read}
	for name, tt := range map[string]struct {
		ops []op
		ok  bool
	}{
		"in turn":                    {[]op{{1, 2, set("a"), yes}, {3, 4, get, is("a")}}, true},
		"a stale read":               {[]op{{1, 2, set("a"), yes}, {3, 4, get, is("")}}, false},
		"reads that go back":         {[]op{{1, 9, set("a"), yes}, {2, 3, get, is("a")}, {4, 5, get, is("")}}, false},
		"at once":                    {[]op{{1, 9, set("a"), yes}, {2, 3, get, is("")}, {4, 5, get, is("a")}}, true},
		"two swaps of one value":     {[]op{{1, 2, set("a"), yes}, {3, 8, asked{"x", swap, "a", "b"}, yes}, {3, 8, asked{"x", swap, "a", "c"}, yes}}, false},
		"one of two swaps":           {[]op{{1, 2, set("a"), yes}, {3, 8, asked{"x", swap, "a", "b"}, yes}, {3, 8, asked{"x", swap, "a", "c"}, no}}, true},
		"lost, and done later":       {[]op{{1, math.MaxInt64, set("a"), lost}, {2, 3, get, is("")}, {4, 5, get, is("a")}}, true},
		"lost, and never done":       {[]op{{1, math.MaxInt64, set("a"), lost}, {2, 3, get, is("")}}, true},
		"lost, done and undone":      {[]op{{1, math.MaxInt64, set("a"), lost}, {2, 3, get, is("a")}, {4, 5, get, is("")}}, false},
		"created twice":              {[]op{{1, 2, asked{"x", create, "", "a"}, yes}, {3, 4, asked{"x", create, "", "b"}, yes}}, false},
		"removed, never written":     {[]op{{1, 2, asked{"x", remove, "", ""}, yes}}, false},
		"removed twice":              {[]op{{1, 2, set("a"), yes}, {3, 4, asked{"x", remove, "", ""}, yes}, {5, 6, asked{"x", remove, "", ""}, yes}}, true},
		"created after it went":      {[]op{{1, 2, set("a"), yes}, {3, 4, asked{"x", remove, "", ""}, yes}, {5, 6, asked{"x", create, "", "b"}, yes}}, true},
		"a write that counted twice": {[]op{{1, 2, set("a"), yes}, {3, 4, get, told{value: "a", count: 2}}}, false},
	} {
		h := newHistory()
		for i, o := range tt.ops {
			h.all = append(h.all, porcupine.Operation{ClientId: i, Input: o.in, Call: o.call, Output: o.out, Return: o.end})
		}
		if wrong, _, _ := h.check(time.Minute); (wrong == "") != tt.ok {
			t.Errorf("%s: %q", name, wrong)
		}
	}
}
