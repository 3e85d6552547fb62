// Package recent remembers what came of texts that come again and again. It is a leaf.
package recent

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// How many texts a [Memory] has room for, and how long each may be.
const (
	slots   = 256
	longest = 512 // bytes
)

// Memory has values of texts that were seen lately, each of which follows from its text alone. One takes the place of
// another: which two share a place nobody can choose. It is safe for concurrent use.
type Memory[V any] struct {
	seed  maphash.Seed
	slots [slots]atomic.Pointer[remembered[V]]
}

type remembered[V any] struct {
	text  string
	value V
}

// New returns a memory of nothing.
func New[V any]() *Memory[V] { return &Memory[V]{seed: maphash.MakeSeed()} }

// Of returns the value of a text, which find finds where it is not remembered. Errors are not.
func (m *Memory[V]) Of(text string, find func(text string) (V, error)) (V, error) {
	if len(text) > longest {
		return find(text)
	}
	slot := &m.slots[maphash.String(m.seed, text)%slots]
	if r := slot.Load(); r != nil && r.text == text {
		return r.value, nil
	}
	text = strings.Clone(text) // which may be a part of a long one, and the value a part of it
	v, err := find(text)
	if err == nil {
		slot.Store(&remembered[V]{text, v})
	}
	return v, err
}
