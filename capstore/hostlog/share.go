package hostlog

import "context"

// Share is a part of a Space's history that is given out by ranges of seq. All hosts give the same epoch the same
// seq, and parents a lower one, so that ranges of several hosts make one history.
type Share interface {
	// Span returns the first and the last seq; first > last: nothing. Up to the last nothing is missing here.
	Span() (first, last int64)
	// Read calls yield with the entries of a range, both ends included, and their seq, parents first. The error is of
	// class tinycloud.ErrTooLarge when there are too many.
	Read(ctx context.Context, first, last int64, maxInline int, yield func(seq int64, b Bundle) error) error
	// Places calls yield with the places in logs of the entries of a range, both ends included, but not those of
	// forked logs.
	Places(ctx context.Context, first, last int64, yield func(host Key, n uint64)) error
}
