package tinycloud

import (
	"errors"
	"fmt"
	"strings"
)

// Classes of refusal: what a caller may conclude. Details go in the message. An error that wraps none
// of them is our own fault.
var (
	ErrInvalid      = errors.New("invalid")                 // malformed input; sending it again will not help
	ErrUndecodable  = errors.New("token not decodable")     // the token's bytes are not of any accepted form
	ErrForged       = errors.New("signature or hash")       // bytes do not match their signature or hash
	ErrUnauthorized = errors.New("not authorized")          // well formed, not permitted
	ErrForbidden    = errors.New("forbidden")               // the signer is known and may not do this
	ErrNotFound     = errors.New("not found")               // no such Space, key or route
	ErrConflict     = errors.New("conflict")                // this was already done
	ErrPrecondition = errors.New("precondition failed")     // If-Match or If-None-Match does not hold
	ErrTooLarge     = errors.New("too large")               // exceeds a bound on size
	ErrQuota        = errors.New("quota exceeded")          // the Space is full
	ErrFull         = errors.New("no room")                 // the node's disk is full
	ErrRange        = errors.New("range not satisfiable")   // a byte range outside the value
	ErrBusy         = errors.New("too many requests")       // a bound on rate or number was reached
	ErrUnsupported  = errors.New("not supported")           // known to the protocol, not served here
	ErrUnavailable  = errors.New("temporarily unavailable") // try again later: storage or history is out of reach
)

// Refusal is an error whose text is meant for the client, byte for byte.
type Refusal struct {
	Class error  // one of the classes above
	Text  string // the whole message
}

// Refuse returns a [Refusal] of the class with a formatted text.
func Refuse(class error, format string, args ...any) error {
	return &Refusal{Class: class, Text: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string { return r.Text }

// Unwrap returns the class.
func (r *Refusal) Unwrap() error { return r.Class }

// Plain is the text of an error for people: without the classes at its end, which are for programs.
func Plain(err error) string {
	text := err.Error()
	for again := true; again; {
		again = false
		for _, class := range []error{
			ErrInvalid, ErrUndecodable, ErrForged, ErrUnauthorized, ErrForbidden, ErrNotFound, ErrConflict, ErrPrecondition,
			ErrTooLarge, ErrQuota, ErrFull, ErrRange, ErrBusy, ErrUnsupported, ErrUnavailable,
		} {
			if rest, ok := strings.CutSuffix(text, ": "+class.Error()); ok && errors.Is(err, class) {
				text, again = rest, true
			}
		}
	}
	return text
}
