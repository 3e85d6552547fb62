package replication

import (
	"context"
	"errors"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// pausedError is why nothing is taken from other hosts for now. It is nobody's offence and no failure of the store.
type pausedError struct{ err error }

func (e pausedError) Error() string { return "paused: " + e.err.Error() }

// pausing reports whether an error of the store says that nothing is taken for now.
func pausing(err error) bool {
	return errors.Is(err, tinycloud.ErrQuota) || errors.Is(err, tinycloud.ErrFull)
}

// paused notes that nothing is taken, and why; the operator is told once.
func (r *Replica) paused(ctx context.Context, why error) error {
	if !r.pause.Swap(true) {
		r.log.WarnContext(ctx, "replication paused", "error", why)
	}
	return pausedError{why}
}

// resumed notes that something was taken.
func (r *Replica) resumed(ctx context.Context) {
	if r.pause.Swap(false) {
		r.log.InfoContext(ctx, "replication goes on")
	}
}
