// Package captest plays the client's part: wallets that sign delegations, hostings and revocations,
// and session keys that invoke and delegate on. Tests and the demo command use it; a host never does.
//
// It writes exactly the bytes that the JavaScript SDK writes for the same input, and signs
// deterministically (RFC 6979, Ed25519), so a seed, fixed times and nonces give the same tokens. It
// refuses nothing: a test may ask for a token that no host accepts.
//
// See docs/protocol.md, "Tokens".
package captest
