// Package hostkeys derives every key of a node from one static secret: the Ed25519 key of each Space, the node's own
// key, and 32-byte keys for other uses.
//
// It keeps nothing on disk, knows no peer and no delegation, and does not check that a key is used for its Space.
//
// Invariant: a key is a pure function of the secret and a text, BLAKE3(secret ‖ text), so every process with the same
// secret is the same host. A Space id always has the form tinycloud:… and can never equal one of the other texts.
// Derivation and both spellings of did:key are those of docs/protocol.md, "Keys of a node".
package hostkeys
