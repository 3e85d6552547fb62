package p2p

import "errors"

// What a caller may conclude; every error of this package that is not a
// context's or a library's own wraps exactly one of them.
var (
	// ErrInvalid: an argument is malformed; trying again will not help.
	ErrInvalid = errors.New("invalid")
	// ErrClosed: the Front, Peer or Topic is closed.
	ErrClosed = errors.New("closed")
	// ErrExists: a Space peer, topic or protocol of that name is already open.
	ErrExists = errors.New("already open")
	// ErrNotConnected: there is no connection to that peer.
	ErrNotConnected = errors.New("not connected")
	// ErrNotAuthorised: the peer is connected, but in probation.
	ErrNotAuthorised = errors.New("not authorised")
	// ErrUnreachable: no route to the peer works now; later it may.
	ErrUnreachable = errors.New("unreachable")
	// ErrBusy: a bound of this process or of the remote one is reached.
	ErrBusy = errors.New("busy")
)
