// Package did reads public keys out of did:key identifiers and verifies signatures with them.
//
// It resolves nothing: a DID whose key is not in its own text is refused, so verification never needs
// the network. It knows nothing of tokens; packages cacao and ucan call it.
//
// One rule decides about an Ed25519 signature wherever it is checked, alone, with a remembered key or
// in a batch: ZIP 215. ECDSA signatures are 64 bytes r ‖ s with s in the lower half, so that nobody but
// the signer can make a second spelling of one.
//
// See docs/protocol.md, "DIDs and principals" and "UCAN", and the W3C's did:key method 0.7.
package did
