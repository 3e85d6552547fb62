// Package hostlog is what the hosts of a Space tell each other: who they are, the entries of their logs with
// all that they name, how far their logs go, and what of it is looked for. It decides what bytes alone decide,
// encodings, hashes, bounds and signatures, and nothing else.
//
// It is pure: no clock, no database, no network. What a history means is not its to know. Source:
// docs/replication.md, "Host log".
package hostlog
