package service

import (
	"context"
	"net/http"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/token"
)

// HTTP is a service that clients invoke.
type HTTP interface {
	Service
	// Invoke carries an admitted invocation out and answers it, or returns an error that is answered by its class. What
	// changes nothing it may not be asked for twice: its token is burned before.
	Invoke(w http.ResponseWriter, r *http.Request, c Call) error
}

// Call is an admitted invocation that asks for one thing of a service.
type Call struct {
	Store   Store
	Token   *token.Token
	Space   tinycloud.SpaceID
	Path    string // of the resource, never percent-decoded
	Ability string // as signed
}

// Store is what a service asks of the store outside of the writer's transactions.
type Store interface {
	// Perform carries out what an admitted invocation asks of a service in a Space: all or nothing, durable when it
	// returns. plan runs in the transaction, once its authority is judged, and may run again.
	Perform(ctx context.Context, tok *token.Token, space tinycloud.SpaceID, name string, plan func(Tx) (Plan, error)) error
	// ServiceState is what a service has stored for a subject, nil for nothing. The error is of class
	// [tinycloud.ErrUnavailable] while operations on it are pending.
	ServiceState(ctx context.Context, space tinycloud.SpaceID, name, about string) ([]byte, error)
}
