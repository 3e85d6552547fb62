// Package wire is what hosts and nodes say to each other, as bytes: the frames of a stream, the messages of sync and
// gossip, those of the handshake and of pairing, and the one spelling of each. It knows no store and no network, and decides
// nothing.
//
// Every message is one canonical DAG-CBOR item; in streams a uvarint length stands before it. What is accepted encodes to
// the same bytes again, but for fields that only newer releases know.
package wire
