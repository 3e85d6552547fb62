package hooks

import (
	"context"
	"net/http"
	"net/netip"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// Public exports public to tests.
func Public(a netip.Addr) bool { return public(a) }

// OnlyPublic exports onlyPublic to tests.
func OnlyPublic(address string) error { return onlyPublic("tcp", address, nil) }

// NewTransport exports newTransport to tests.
func NewTransport() *http.Transport { return newTransport() }

// ParseCallback exports parseCallback to tests.
func ParseCallback(text string) error {
	_, err := parseCallback(text)
	return err
}

// ParseEventID exports parseEventID to tests.
func ParseEventID(text string) (tinycloud.Hash, int, bool) { return parseEventID(text) }

// EventID exports eventID to tests.
func EventID(c capstore.Change) string { return eventID(c) }

// Delivery exports delivery to tests.
type Delivery = delivery

// Deliveries exports the rows of a webhook to tests.
func Deliveries(ctx context.Context, h *Hooks, id string, limit int) ([]Delivery, error) {
	return h.rows().deliveries(ctx, id, limit)
}

// OpenTicket exports open to tests.
func OpenTicket(h *Hooks, ticket string) error {
	_, err := h.open(ticket)
	return err
}
