package hooks

import (
	"net/netip"
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// limits are how many streams are open at once: in all, by one ticket, of one Space, of one client address.
type limits struct{ all, ticket, space, address int }

// places counts the open streams, so that no ticket, Space or client takes those of others.
type places struct {
	most limits

	mu        sync.Mutex
	all       int                       // guarded by mu, as all below
	tickets   map[tinycloud.Hash]int    // by the hash of their text
	spaces    map[tinycloud.SpaceID]int //
	addresses map[netip.Addr]int        //
}

func newPlaces(most limits) *places {
	return &places{most: most, tickets: map[tinycloud.Hash]int{}, spaces: map[tinycloud.SpaceID]int{}, addresses: map[netip.Addr]int{}}
}

// enter takes a place; ok is false when there is none. A client whose address is zero shares with nobody.
func (p *places) enter(ticket string, scopes []Scope, from netip.Addr) (leave func(), ok bool) {
	id, spaces := tinycloud.Sum([]byte(ticket)), spacesOf(scopes)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most.all || p.tickets[id] >= p.most.ticket || from.IsValid() && p.addresses[from] >= p.most.address ||
		slices.ContainsFunc(spaces, func(s tinycloud.SpaceID) bool { return p.spaces[s] >= p.most.space }) {
		return nil, false
	}
	p.count(id, spaces, from, 1)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.count(id, spaces, from, -1)
	}, true
}

// count adds to what a stream counts for. The caller holds mu.
func (p *places) count(ticket tinycloud.Hash, spaces []tinycloud.SpaceID, from netip.Addr, by int) {
	p.all += by
	add(p.tickets, ticket, by)
	for _, s := range spaces {
		add(p.spaces, s, by)
	}
	if from.IsValid() {
		add(p.addresses, from, by)
	}
}

// add changes a count; what counts nothing is not kept.
func add[K comparable](m map[K]int, k K, by int) {
	if m[k] += by; m[k] == 0 {
		delete(m, k)
	}
}
