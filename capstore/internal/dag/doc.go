// Package dag writes and reads the bytes of epochs and KV operations, whose BLAKE3 hashes link a
// Space's history.
//
// It only knows bytes: which parents an epoch has and in what order, and what an operation does to
// a key, is decided in package capstore.
//
// Invariant: bytes that decode encode to the same bytes. Struct fields stand in declaration order, not
// sorted as DAG-CBOR would, because that is how the reference has always hashed them; the metadata
// map is sorted by length, then bytes.
//
// See docs/protocol.md, "CBOR" and "Epochs".
package dag
