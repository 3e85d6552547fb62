// Package encryption holds encryption networks: for an owner and a name, a key pair to which clients seal the keys of what
// they encrypt, and which unseals one for whoever has the ability to decrypt on the network. This is access control by the
// host and no secrecy against it (docs/encryption.md).
//
// What it keeps are rows beside the histories, through a narrow view of the store; the history knows nothing of it. Who
// may do what is judged by the store, as for every invocation: here it is only checked that a request is what its token
// says.
//
// A network may have several keys: versions, and of a version those that hosts made apart. Every key that is held opens
// what was sealed to it; one is advertised.
//
// Invariant: a private key is in memory only while it is used, and on disk only sealed under the key from the node's
// secret; neither it nor what it unseals is in an error, a log or a metric. Its copy is cleared after use.
package encryption
