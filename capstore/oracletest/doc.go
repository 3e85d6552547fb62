// Package oracletest says naively what a history means: by the letter of the rules, with whole ancestor
// sets, without increments and without a database. Tests compare hosts with it. A [Defect] breaks one of
// its rules, so that a test can show that a host that broke it would be found out.
//
// It knows what the histories of tests hold: session and host delegations by the owner alone, and
// invocations of what they do.
//
// See docs/replication.md, "Validity" and "Order".
package oracletest
