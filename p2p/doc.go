// Package p2p gives every Space of a node its own libp2p presence behind one
// pair of sockets.
//
// A [Front] is the host of the node key. It owns the process's only listeners
// and answers circuit-v2 CONNECT requests for the Space peers that live in the
// same process, so that any libp2p dialer reaches a Space at
//
//	<front address>/p2p/<front peer>/p2p-circuit/p2p/<space peer>
//
// and all Spaces of two nodes share one physical connection. A [Peer] is one
// Space: a swarm with the Space's key and no listener of its own, one
// gossipsub and, while blocks are exchanged, one bitswap.
//
// Several processes may be one node. One has the front; a [Linked] front of
// another process is reached, and dials, by way of that one, and to its Space
// peers it is a front like any other.
//
// # The invariant
//
// A remote peer that the caller has not passed to [Peer.Authorise] is in
// probation: it can open the hello protocol and nothing else, for a bounded
// time and a bounded number of bytes. There is no identify on a Space peer,
// other protocols are refused as unknown, and gossipsub and bitswap are handed
// a view of the host in which that remote does not exist, so neither announces,
// asks nor answers anything. Authorisation ends with the last connection or
// with [Peer.Evict]. A CONNECT that names a Space peer which is not here gets
// the same answer whether it never existed or was refused.
//
// # What it is not
//
// The package knows neither what a Space holds nor who may see it: it takes a
// key, a topic name, a blockstore and functions that give verdicts. It keeps no
// address book, does not redial and never decides to authorise.
package p2p
