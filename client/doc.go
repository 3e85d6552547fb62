// Package client is an app's side of a TinyCloud host, for programs in Go: wallets and sessions, key-value with
// lists and batches, signed URLs, changes as they come, SQL and delegations.
//
// A [Wallet] owns Spaces. It signs a delegation to a [Session] once; the session then signs each request, and the wallet is
// needed no more. A [Space] is a Space at one host, as a session may use it. Who signs elsewhere, in a browser or on a
// device, gets the text to be signed from [Grant.Text] and completes it by [Complete].
//
// What is sent and answered is docs/protocol.md, told byte by byte in docs/app.md. The package imports nothing of a node.
package client
