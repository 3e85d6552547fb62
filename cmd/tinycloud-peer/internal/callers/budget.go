package callers

import (
	"net/netip"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const maxClients = 1 << 14 // whose requests are counted; beyond that the longest absent is forgotten

// Budget limits how often each client does something.
type Budget struct {
	every rate.Limit
	burst int
	seen  *lru.Cache[netip.Addr, *rate.Limiter]
}

// NewBudget lets a client do something burst times at once, and perMinute times a minute.
func NewBudget(perMinute, burst uint32) *Budget {
	seen, err := lru.New[netip.Addr, *rate.Limiter](maxClients)
	if err != nil {
		panic("callers: " + err.Error()) // the size is positive
	}
	return &Budget{rate.Limit(float64(perMinute) / 60), int(burst), seen}
}

// Allow reports whether the client at an address may do it once more, and counts that.
func (b *Budget) Allow(remote string) bool { return b.of(remote).Allow() }

// Left reports whether the client could do it once more.
func (b *Budget) Left(remote string) bool { return b.of(remote).Tokens() >= 1 }

func (b *Budget) of(remote string) *rate.Limiter {
	addr := Address(remote)
	limiter, ok := b.seen.Get(addr)
	if !ok {
		fresh := rate.NewLimiter(b.every, b.burst)
		if limiter, ok, _ = b.seen.PeekOrAdd(addr, fresh); !ok {
			limiter = fresh
		}
	}
	return limiter
}
