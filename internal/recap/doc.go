// Package recap holds capabilities, (resource, ability, caveats), and the two ways they are written in
// JSON: the `urn:recap:` resource of a signed message and the att member of a UCAN. It writes the
// sentence that tells a wallet's user what is signed away.
//
// It decides nothing: whether a capability is held is the business of package capstore. Its strict
// JSON reader (one member per name at every depth, bounded depth, valid UTF-8) also serves package ucan.
//
// Invariant: capabilities come sorted by (resource as written, ability) and no two of them name the
// same resource and ability.
//
// See docs/protocol.md, "ReCap", ERC-5573, and RFC 8785 for what [Encode] writes.
package recap
