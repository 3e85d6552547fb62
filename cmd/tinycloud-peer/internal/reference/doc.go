// Package reference reads the data of a node of the reference implementation, versions 1.0.0 to 1.16.0: its
// SQL database (SQLite or PostgreSQL) and its blocks.
//
// It writes nothing. What it returns is as the rows say and proves nothing: epochs are rebuilt from their rows
// and compared with their ids, tokens are decrypted and compared with theirs, and whatever does not fit is
// told as an [Oddity] and left out. No row, however damaged, ends a reading; a failing database does.
//
// See docs/conformance.md, "Data of the reference".
package reference
