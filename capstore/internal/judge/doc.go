// Package judge decides, for ever, what the events of a Space mean: which delegations hold, whether a
// host may extend the history, whether an invocation's operations count.
//
// It is pure: no clock, no configuration, no I/O. Two hosts that know the same set of log entries come
// to the same verdicts in whatever order they learned them. What a host admits over HTTP may be
// stricter, never laxer; that policy is not here.
//
// Strata, each using only those before it: delegations and revocations by content; host delegations and epochs;
// operations. See docs/replication.md, "Validity" and "Order", and docs/protocol.md, "Tokens".
package judge
