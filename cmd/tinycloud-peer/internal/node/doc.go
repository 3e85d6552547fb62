// Package node is one running host: it opens the parts, tells them of each other and runs them.
//
// It decides nothing that a part decides: no rule of authority, no wire format, no storage. What is here
// is wiring, order of start and stop, which Spaces take part in replication now, and the admin API, which
// shows all of it to the operator.
//
// Invariants:
//   - What answers a request is stopped before what the request needs: HTTP, then replicas, then the
//     sockets of p2p, then the database's writer. A request that was accepted is answered.
//   - The writer is never held up by replication: a commit is handed over without blocking.
//   - Nothing of the admin API is reachable over TCP without the admin secret.
//
// See docs/replication.md, "Rest and sleep", and docs/operating.md, "Admin API".
package node
