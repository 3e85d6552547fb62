package blockstore

import (
	"context"
	"io"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// backend is where values are. What it is given to put was hashed, and the caller holds the value's lock. Its
// errors are of class [tinycloud.ErrNotFound] for a value that isn't there, else of class
// [tinycloud.ErrUnavailable], or ctx's.
type backend interface {
	// put makes a body a value, in one step and durable when it returns nil. It replaces one that is there.
	put(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, b body) error
	// confirm makes a value that is there durable.
	confirm(space tinycloud.SpaceID, hash tinycloud.Hash) error
	// open opens a value for reading from its beginning. Reads may use ctx until the value is closed.
	open(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (content, int64, error)
	// readAt fills p with the bytes of a value from an offset on.
	readAt(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash, p []byte, at int64) error
	size(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (int64, error)
	// modified returns when a value was last put.
	modified(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) (time.Time, error)
	// remove removes a value; one that isn't there is no error.
	remove(ctx context.Context, space tinycloud.SpaceID, hash tinycloud.Hash) error
	// walk calls fn for each value of a Space until fn returns an error, which it returns.
	walk(ctx context.Context, space tinycloud.SpaceID, fn func(tinycloud.Hash, int64) error) error
	// spaces calls fn for each Space with values, perhaps for others too.
	spaces(ctx context.Context, fn func(tinycloud.SpaceID) error) error
	// check tells whether a Space can have values; the error is of class [tinycloud.ErrInvalid].
	check(space tinycloud.SpaceID) error
	ping(ctx context.Context) error
	// fault gives an error met while reading a content its class.
	fault(err error) error
	close()
}

// content is the bytes of a value, open for reading.
type content interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
}

// body is bytes on their way to becoming a value.
type body interface {
	io.ReaderAt
	Size() int64
	// file makes the bytes durable in a file of the staging directory, ends reading, and returns the file's
	// path. A put that succeeds has taken the file away.
	file() (string, error)
}
