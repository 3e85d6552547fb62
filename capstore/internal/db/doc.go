// Package db is the layer between the capability store's queries and the databases that can hold them:
// SQLite, PostgreSQL and MySQL or MariaDB. A query is written once, in SQL that all of them understand
// with ? for its arguments; the few statements that differ are an [Insert], or a method of [Dialect].
//
// Connections to a server end by themselves when it does not answer, so that no caller waits for ever.
//
// Not here: the schema and the queries.
package db
