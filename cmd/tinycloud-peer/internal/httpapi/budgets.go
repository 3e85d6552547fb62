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
)

// budgets are those of delegations, and of the Spaces that they create.
type budgets struct{ delegations, spaces *callers.Budget }

func newBudgets() budgets {
	return budgets{callers.NewBudget(delegationsPerMinute, delegationsBurst), callers.NewBudget(spacesPerMinute, spacesBurst)}
}

// delegation counts a delegation or a revocation, before it costs anything. This machine's own are not counted.
func (b budgets) delegation(r *http.Request) error {
	if callers.Stranger(r.RemoteAddr).IsValid() && !b.delegations.Allow(r.RemoteAddr) {
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
