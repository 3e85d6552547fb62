package hostlog

import "context"

// Party is another host of a Space of secrets: its key there, and its node.
type Party struct{ Host, Node Key }

// KeyWant is a key of an encryption network that another host holds and this one lacks.
type KeyWant interface {
	// Ask is what to send to the holder.
	Ask() []byte
	// Take keeps what the holder answered with; the key is durable when it returns.
	Take(ctx context.Context, given []byte) error
}

// DecryptRequest is a client's request to decrypt as it goes from host to host.
type DecryptRequest struct {
	Header  string // the token, as it was sent
	Network string // "": as the token says, for what counts once
	Body    []byte
}
