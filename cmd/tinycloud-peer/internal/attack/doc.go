// Package attack is a hostile peer for tests: a stock libp2p host that speaks the protocols of a Space by hand, as
// its bytes are specified (docs/replication.md), and says whatever a test wants. It shares no code of the wire with
// the node it talks to, and remembers every byte that it is sent.
package attack
