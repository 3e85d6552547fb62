package callers

import (
	"net/http"
	"net/netip"
	"sync"
)

// What a request was refused by.
const (
	byClient = "client"
	byTotal  = "total"
	byPace   = "pace"
)

// Turns bounds the requests that are under way: one connection of HTTP/2 carries many, and one of a proxy those of many
// clients.
type Turns struct {
	total, perClient int
	trusted          func(netip.Addr) bool
	metrics          *Metrics

	mu        sync.Mutex
	strangers int
	clients   map[netip.Addr]int
}

// NewTurns lets as many requests of strangers be under way as limits let them have connections, of one client perClient.
func NewTurns(limits Limits, perClient int) *Turns {
	return &Turns{
		total: limits.Total - limits.Reserved, perClient: perClient, trusted: limits.Trusted, metrics: limits.Metrics,
		clients: map[netip.Addr]int{},
	}
}

// Handler gives h what there is a turn for. What is too much is answered 429 where it is the client's own doing, else 503.
func (t *Turns) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := Stranger(r.RemoteAddr)
		if !client.IsValid() || t.trusted != nil && t.trusted(parse(r.RemoteAddr)) {
			h.ServeHTTP(w, r)
			return
		}
		if by := t.take(client); by != "" {
			t.metrics.limited(by)
			w.Header().Set("Retry-After", "1")
			status := http.StatusServiceUnavailable
			if by == byClient {
				status = http.StatusTooManyRequests
			}
			http.Error(w, "Too many requests at once", status)
			return
		}
		defer t.give(client)
		h.ServeHTTP(w, r)
	})
}

// take says what there is no turn by, "" when there was one.
func (t *Turns) take(client netip.Addr) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.clients[client] >= t.perClient:
		return byClient
	case t.strangers >= t.total:
		return byTotal
	}
	t.clients[client]++
	t.strangers++
	return ""
}

func (t *Turns) give(client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.strangers--
	if t.clients[client]--; t.clients[client] <= 0 {
		delete(t.clients, client)
	}
}
