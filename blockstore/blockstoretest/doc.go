// Package blockstoretest is the contract of a blockstore.Store, run once for each kind of place the values
// can be in. To try another kind, call [Run] with what opens it.
package blockstoretest
