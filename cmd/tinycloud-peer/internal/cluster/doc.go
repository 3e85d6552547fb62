// Package cluster runs several nodes as processes on this machine and plays their clients: the demo
// command shows what it does, the tests of the binary judge it.
//
// It is a client like any other: it knows the nodes by their HTTP APIs alone.
//
// Invariant: a process that was started is gone when [Cluster.Close] returns, and goes by itself when the
// process that started it dies, since each holds the other end of its standard input.
package cluster
