package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Error gives an error of a driver its class, [tinycloud.ErrUnavailable]. The end of the caller's context
// stays what it is.
func Error(err error) error {
	if err == nil || errors.Is(err, tinycloud.ErrUnavailable) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("database: %w: %w", err, tinycloud.ErrUnavailable)
}

// Codes of the servers for a transaction that stood in the way of another: it may be tried again.
const (
	pgSerialization, pgDeadlock = "40001", "40P01"
	myDeadlock                  = 1213
	pgUnique, myDuplicate       = "23505", 1062
)

// Retryable reports whether a transaction failed for others that ran at the same time, and did nothing.
func Retryable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == pgSerialization || pg.Code == pgDeadlock
	}
	var my *mysql.MySQLError
	return errors.As(err, &my) && my.Number == myDeadlock
}

// Duplicate reports whether a row was not added because there is one with its key.
func Duplicate(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == pgUnique
	}
	var my *mysql.MySQLError
	return errors.As(err, &my) && my.Number == myDuplicate
}

// Refused reports whether a server answered that it will not do what was asked, so that its connection is
// as good as before.
func Refused(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// 08: connection, 53: resources, 57: shutdown, 58: system.
		return len(pg.Code) == 5 && !slices.Contains([]string{"08", "53", "57", "58"}, pg.Code[:2])
	}
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		// too many connections, server shutdown, connection killed, server shutdown in progress
		return !slices.Contains([]uint16{1040, 1053, 1077, 1152, 1317, 1927}, my.Number)
	}
	return errors.Is(err, sql.ErrNoRows)
}
