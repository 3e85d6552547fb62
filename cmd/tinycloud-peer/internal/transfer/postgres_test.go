package transfer_test

import (
	"database/sql"
	"testing"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/testservers"
)

// newServer returns an empty database of a PostgreSQL server.
func newServer(t *testing.T) (*sql.DB, config.Database) {
	t.Helper()
	server := testservers.Postgres(t)
	where, err := config.ParseDatabase(server.DSN)
	must(t, err)
	db, err := sql.Open("pgx", server.DSN)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db, where
}
