// Package siwe builds, reads and checks the EIP-4361 text that a wallet signs.
//
// It knows nothing of capabilities or tokens: package recap reads what hides in the last resource,
// package cacao carries the message over the wire.
//
// Invariant: for a [Message] that [Message.Check] accepts, Parse(m.Text()) gives m back, and for a text
// that [Parse] accepts, Text gives the same bytes. No two messages have one text, because no field
// may hold a line break. Time stamps stay the strings that were signed.
//
// See docs/protocol.md, "The signed text", "Time stamps" and "Signature", EIP-4361, and EIP-191.
package siwe
