// Package httpapi serves the TinyCloud HTTP API of one node: node information, host keys, delegations,
// revocations, invocations and signed URLs.
//
// It decides nothing about authority, order or state: capstore does. It turns requests into calls of
// capstore and their results into status, headers and body.
//
// Invariants:
//   - An invocation is admitted before its body is read, and a request that is refused before it is carried
//     out uses up no token.
//   - Only content-type, content-encoding, content-language, content-disposition and x-tinycloud-meta-*
//     are stored with a value, and only they are sent back, exactly as stored; a content type is never
//     guessed.
//   - No response is a redirect, whatever the path looks like.
//   - No answer to a missing key matches "space not found", by which clients know an unknown Space.
//   - Without a token only Spaces named public are read, by each client as often as its bucket allows, and
//     values that a signed URL was issued for, until it expires or what it rests on is revoked.
//
// See docs/protocol.md, "HTTP".
package httpapi
