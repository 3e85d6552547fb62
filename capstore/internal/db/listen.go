package db

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/stdlib"
)

// Notify is the statement, with a text of up to some thousand bytes, that tells those who [DB.Listen] once the transaction is
// durable; "" where there is no such thing.
func (d Dialect) Notify() string {
	if d.Name != "postgres" {
		return ""
	}
	return "SELECT pg_notify('tinycloud', ?)"
}

// Listen calls f with the texts of notifications, until the context or the connection ends; ready is called when none is
// missed any more. It returns at once where there is no [Dialect.Notify].
func (x *DB) Listen(ctx context.Context, ready func(), f func(text string)) error {
	if x.Notify() == "" {
		return nil
	}
	dialled, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := x.write.Conn(dialled)
	if err != nil {
		return Error(err)
	}
	defer func() { _ = conn.Close() }()
	var failed error
	_ = conn.Raw(func(raw any) error {
		c, ok := raw.(*stdlib.Conn)
		if !ok {
			failed = driver.ErrBadConn
			return failed
		}
		if _, failed = c.Conn().Exec(ctx, "LISTEN tinycloud"); failed == nil {
			ready()
		}
		for failed == nil {
			n, err := c.Conn().WaitForNotification(ctx)
			if failed = err; err == nil {
				f(n.Payload)
			}
		}
		return driver.ErrBadConn // nobody else is to have it
	})
	return Error(failed)
}
