package callers

import (
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Clients whose requests are counted, see [Budget]: sets of them, and how many a set has.
const (
	clientSets = 1 << 10
	perSet     = 16
)

// Budget limits how often each client does something. It counts 16,384 clients, in 256 KiB: strangers can have any number of
// addresses, and what is remembered of each is what they make a node hold. A new client beyond that takes the place of
// the one, of those that share a set with him, who has most left: to be forgotten gives him least. Which clients share a
// set nobody can choose. It is safe for concurrent use.
type Budget struct {
	every, burst time.Duration // that one time takes to come back, and that all of them take
	began        time.Time
	seed         maphash.Seed

	mu   sync.Mutex
	sets [clientSets][]account
}

// account is what a client has used.
type account struct {
	client uint64        // his address, hashed
	whole  time.Duration // since the budget began, until nothing is used
}

// NewBudget lets a client do something burst times at once, and perMinute times a minute.
func NewBudget(perMinute, burst uint32) *Budget {
	const ever = math.MaxInt64 >> 2
	b := &Budget{every: time.Duration(ever / max(int64(burst), 1)), began: time.Now(), seed: maphash.MakeSeed()}
	if perMinute > 0 {
		b.every = min(b.every, time.Minute/time.Duration(perMinute))
	}
	b.burst = b.every * time.Duration(burst)
	return b
}

// Allow reports whether the client at an address may do it once more, and counts that.
func (b *Budget) Allow(remote string) bool {
	client := b.hash(remote)
	set, now := &b.sets[client%clientSets], time.Since(b.began)
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(*set, func(a account) bool { return a.client == client })
	whole := now
	if i >= 0 {
		whole = max(now, (*set)[i].whole)
	}
	if whole += b.every; whole-now > b.burst {
		return false
	}
	switch {
	case i >= 0:
		(*set)[i].whole = whole
	case len(*set) < perSet:
		*set = append(*set, account{client, whole})
	default:
		*least(*set) = account{client, whole}
	}
	return true
}

// Left reports whether the client could do it once more.
func (b *Budget) Left(remote string) bool {
	client, now := b.hash(remote), time.Since(b.began)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.sets[client%clientSets] {
		if a.client == client {
			return max(now, a.whole)+b.every-now <= b.burst
		}
	}
	return b.every <= b.burst
}

func (b *Budget) hash(remote string) uint64 {
	return maphash.Comparable[netip.Addr](b.seed, Address(remote))
}

// least is the account of which least is used.
func least(set []account) *account {
	least := &set[0]
	for i := range set[1:] {
		if set[i+1].whole < least.whole {
			least = &set[i+1]
		}
	}
	return least
}
