// Package replication keeps one Space equal on all hosts that can reach each other.
//
// A [Replica] is one Space on this node. It proves to every peer that connects that this node is a host
// and asks the same of it (/tinycloud/hello/1). Between hosts that did, commits travel at once by gossip
// (topic tinycloud/1), and what gossip lost, or what was written while they were apart, by comparing log
// tips and streaming what one side lacks (/tinycloud/sync/1). Values too large to travel with their
// operation are wants: they are fetched as blocks until they are here.
//
//	hello    responder → nonce; dialer → nonce, tag, chain; responder → nonce, tag, chain
//	sync     one request per stream, told apart by the first frame:
//	         open → same | tips …, then have … → batch or part …, done; ack answers every batch
//	         share → span, empty: to older releases
//	         locate → located
//	         hosts → hosts
//	         rest → rest
//	gossip   batch | announce
//
// Package wire has the form of all of it.
//
// # The invariant
//
// The replicated set is the set of log entries. Nothing here decides what is valid, in which order, or by
// whom: every bundle, from gossip or from a stream, goes to the store as if a stranger had sent it. Gossip
// may lose, repeat and reorder; a round of sync repairs all of it. Nothing of the Space is sent to a peer
// that has not proven its host delegation on that connection, and a peer that sends what no honest host
// sends is cut off. Every queue, frame, stream and table is bounded.
//
// # What it is not
//
// It opens no socket and no file: peers, blocks, history and values are interfaces that the node wires.
//
// See docs/replication.md, "Identity and addresses", "Handshake" and "Moving data".
package replication
