package db

import (
	"context"
	"database/sql"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// openPostgres makes a pool of a postgres:// URL with libpq's parameters.
func openPostgres(dsn string, _ bool) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("postgres URL: %w", err) // it shows no password
	}
	d := dialer()
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return d.DialContext(ctx, network, addr)
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > startTimeout {
		cfg.ConnectTimeout = dialTimeout
	}
	delete(cfg.RuntimeParams, "statement-cache-capacity") // of the reference's driver
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "tinycloud-peer"
	}
	return stdlib.OpenDB(*cfg), nil
}
