package hostlog

import tinycloud "github.com/TinyCloudLabs/tinycloud-peer"

// Commit is what one transaction made durable of the logs of a Space.
type Commit struct {
	Space   tinycloud.SpaceID
	Local   []Bundle // epochs this node made, in order; of those that another process made none, or the first
	Own     int      // how many it made
	Remote  int      // entries taken from peers
	Parked  int      // entries of peers that are to be due
	Revoked []Key    // hosts whose delegation was revoked
	Wants   int      // values that have to be fetched
	Opened  bool     // the Space waits for the history of other hosts no more
}
