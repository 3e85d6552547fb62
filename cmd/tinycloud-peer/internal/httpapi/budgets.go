package httpapi

import (
	"net/http"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/callers"
)

// What a client elsewhere may add that is in no quota: a household or an office signs in behind one address.
const (
	delegationsPerMinute = 120 // with revocations
	delegationsBurst     = 240
	spacesPerMinute      = 20
	spacesBurst          = 60
	networksPerMinute    = 600 // requests about encryption networks: whoever opens a vault asks for each secret
	networksBurst        = 600
)

// budgets are those of delegations, of the Spaces that they create, and of requests about encryption networks.
type budgets struct{ delegations, spaces, networks *callers.Budget }

func newBudgets() budgets {
	return budgets{
		callers.NewBudget(delegationsPerMinute, delegationsBurst), callers.NewBudget(spacesPerMinute, spacesBurst),
		callers.NewBudget(networksPerMinute, networksBurst),
	}
}

// delegation counts a delegation or a revocation, before it costs anything. This machine's own are not counted.
func (b budgets) delegation(r *http.Request) error { return count(b.delegations, r) }

// network counts a request about an encryption network, before it costs anything. This machine's own are not counted.
func (b budgets) network(r *http.Request) error { return count(b.networks, r) }

func count(b *callers.Budget, r *http.Request) error {
	if callers.Stranger(r.RemoteAddr).IsValid() && !b.Allow(r.RemoteAddr) {
		return tinycloud.Refuse(tinycloud.ErrBusy, "Rate limit exceeded")
	}
	return nil
}

// creation counts the Spaces that a delegation would create.
func (b budgets) creation(r *http.Request, s *capstore.Store, tok *capstore.Token) error {
	if !callers.Stranger(r.RemoteAddr).IsValid() {
		return nil
	}
	for range s.Creates(tok) {
		if !b.spaces.Allow(r.RemoteAddr) {
			return tinycloud.Refuse(tinycloud.ErrBusy, "Rate limit exceeded")
		}
	}
	return nil
}
