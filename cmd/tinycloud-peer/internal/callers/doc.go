// Package callers knows who calls over HTTP, and bounds how much of the node one of them may take up: connections, and
// the time that a body may take.
package callers
