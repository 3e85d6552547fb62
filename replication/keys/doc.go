// Package keys is the protocol /tinycloud/keys/1, by which the hosts of an owner's Space "secrets" tell each other of his
// encryption networks, hand their keys over, and answer each other's clients. It runs between Space peers that have
// authorised each other; to others it does not exist.
//
// A stream is one question, of whoever opened it: for records, for a key, or to decrypt. What is in a record, an
// announcement and an answer is no concern of this package: who may have what is judged by the store.
//
// Invariant: everything a host sends has a bound in bytes and time; what it is refused, it is told by a class alone, but
// for the text that its client is to be told.
//
// See docs/replication.md, "keys/1".
package keys
