package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil waits more exactly than a timer of Go's, which may be a millisecond late when the process has nothing else to do.
func sleepUntil(at time.Time) {
	for d := time.Until(at); d > 0; d = time.Until(at) {
		t := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&t, nil) // a signal ends it early
	}
}
