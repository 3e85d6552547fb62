// Package capstore is the authority of a node: which signed events are valid, and in what order. The state that they
// imply is of services, which it knows by the seam alone (package service): key-value (package kv) and others. It stores the history of every Space in one SQL database: a file of its own, or one on a
// server, which several processes with the same keys may share as one host.
//
// A write is acknowledged after the transaction that holds its event, epoch, log entry and state is on
// disk (synchronous=FULL). One goroutine writes; concurrent requests share its transactions, and so its
// fsyncs. HTTP and peers go through the same verifier: what a peer sends is judged again from its bytes.
//
// History is judged at its own time: an invocation's window is held against the times of the log
// entries that carry its epoch, never against now. Admission over HTTP judges at the time it is about
// to sign.
//
// Not here: values above the inline limit (a [Blocks] holds them), the network, HTTP.
package capstore
