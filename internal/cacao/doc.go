// Package cacao reads and writes delegations and revocations signed by an Ethereum wallet: an EIP-4361
// message and its signature as DAG-CBOR, in padded base64url.
//
// It decodes and verifies one token by itself. Whether the signer may delegate what the token says is
// the business of package capstore.
//
// Invariant: the bytes of a decoded token are the only ones with its content, because nothing but the
// canonical encoding is accepted: [Encode] of a [Token]'s message and signature gives its Bytes.
//
// See docs/protocol.md, "CACAO", and CAIP-74.
package cacao
