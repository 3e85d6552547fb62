// Package ucan reads UCAN 0.10 tokens of the TinyCloud kind, compact JWS with capabilities in a map:
// every invocation, and delegations and revocations by session keys.
//
// It decodes and verifies one token by itself, with keys that are in the issuer's DID; it looks nothing
// up. Whether the issuer holds what the token says is the business of package capstore.
//
// Invariant: the signature is checked over the received characters and the id is their hash; nothing
// is ever encoded again. The algorithm is the one of the issuer's key: a header that names
// another is a bad signature.
//
// See docs/protocol.md, "UCAN", and RFC 7515.
package ucan
