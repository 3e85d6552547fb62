package hostlog

import "time"

// Join is an address through which a Space is to be joined.
type Join struct {
	Addr      string
	State     string // waiting, connected, failed
	LastTry   time.Time
	LastError string
}

// Ending is why a Space is joining no more.
type Ending string

// The endings.
const (
	EndedByHistory  Ending = "history"  // all that a host that serves it has is here
	EndedByLeast    Ending = "least"    // all hosts are joining, have the same, and this one's key is the least
	EndedByNone     Ending = "none"     // no named node is a host
	EndedByTime     Ending = "time"     // nothing of another host came in time
	EndedByOperator Ending = "operator" // who says that there is none
)
