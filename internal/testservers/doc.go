// Package testservers starts real servers for tests: PostgreSQL, MariaDB, an S3 service (versitygw) and an ACME
// server (pebble). Each runs on a free port of 127.0.0.1 with its data in a temporary directory, can be killed and started
// again, and is gone when its test ends. No goroutine of ours watches it.
//
// A test that kills its server takes one of its own ([Postgres], [MariaDB], [S3]). Others of a package share one
// through [Shared], each with a database or bucket of its own.
//
// The programs are installed by scripts/install. A test whose server is missing fails, and says so.
package testservers
