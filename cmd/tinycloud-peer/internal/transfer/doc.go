// Package transfer moves data in and out of a node that is not running: the takeover of a reference node's
// data, export and import of a Space, verification, and freeing what nothing needs.
//
// Every function may be killed at any moment and repeated: what it did is durable and not done twice. None
// decides what is valid; that is package capstore's.
package transfer
