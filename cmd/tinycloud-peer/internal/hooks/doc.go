// Package hooks tells the outside of changes to keys: by streams of server-sent events, which tickets open,
// and by webhooks.
//
// Both read one feed, the changes that a host's database announces when they are durable. A stream that
// cannot follow is not cut short but reads on from the database until it has caught up; a webhook has a
// cursor in the feed and a queue of deliveries, both durable, so that a change is told at least once however
// the process ends. Who may subscribe is judged by the caller, with the verifier of invocations.
//
// See docs/protocol.md, "POST /hooks/tickets".
package hooks
