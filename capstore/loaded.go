package capstore

import (
	"cmp"
	"maps"
	"slices"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Bounds of the Spaces that are kept loaded, between two transactions.
const (
	maxLoad = 1024 // Spaces
	// maxLoaded is how many bytes they take together, about: their delegations and revocations, the epochs that they
	// remember, and what every one takes.
	maxLoaded = 16 << 20

	rememberedNodes = 512 // epochs, of a Space

	// What a loaded Space takes in memory beside its facts, in bytes, about: itself, and each epoch that it remembers.
	sizeOfSpace = 6 << 10
	sizeOfNode  = 600
)

// size is about how many bytes a loaded Space takes.
func (sp *space) size() int { return sizeOfSpace + sp.nodes.Len()*sizeOfNode + sp.facts.Size() }

// loads takes a Space among those that are loaded. The caller holds mu.
func (s *Store) loads(sp *space) {
	s.spaces[sp.id] = sp
	s.recount(sp)
}

// recount notes how much a loaded Space takes now. The caller holds mu.
func (s *Store) recount(sp *space) {
	n := sp.size()
	s.loadedBytes += n - sp.counted
	sp.counted = n
}

// unloads lets go of a Space, if it is loaded. The caller holds mu.
func (s *Store) unloads(id tinycloud.SpaceID) {
	if sp := s.spaces[id]; sp != nil {
		s.loadedBytes -= sp.counted
		sp.counted = 0
		delete(s.spaces, id)
	}
}

// use notes that a Space is used.
func (t *tx) use(sp *space) {
	t.s.uses++
	sp.used = t.s.uses
}

// unload lets go of Spaces when there are more than are kept, or larger ones: first of those that were not used for longest,
// so that strangers who make many have their own go. Readers that hold one keep a consistent, if ageing, view. The caller
// holds mu.
func (t *tx) unload() {
	s := t.s
	for sp := range t.dirty {
		if s.spaces[sp.id] == sp {
			s.recount(sp)
		}
	}
	full := func() bool { return len(s.spaces) > maxLoad || s.loadedBytes > s.mostLoaded }
	if !full() {
		return
	}
	for _, sp := range slices.SortedFunc(maps.Values(s.spaces), func(a, b *space) int { return cmp.Compare(a.used, b.used) }) {
		if !full() {
			return
		}
		s.unloads(sp.id)
	}
}
