package db

import (
	"context"
	"time"
)

// Reader reads rows, in a transaction or not.
type Reader interface {
	// One scans the first row of a query; ok is false when there is none.
	One(ctx context.Context, dest []any, query string, args ...any) (ok bool, err error)
	// Each calls f for each row of a query. f must not use the reader.
	Each(ctx context.Context, f func(Scan) error, query string, args ...any) error
}

// Tx is a transaction of the one who writes, for who keeps rows of his own in the database. It may not be used after the
// function that got it has returned. Its statements end with the writer, not with the context of a reader.
type Tx interface {
	Reader
	// Now is the time of the transaction.
	Now() time.Time
	Exec(query string, args ...any) error
	Add(i Insert, args ...any) error
}
