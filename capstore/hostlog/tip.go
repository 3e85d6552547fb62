package hostlog

import tinycloud "github.com/TinyCloudLabs/tinycloud-peer"

// Tip is the last entry of a branch of a host's log.
type Tip struct {
	Host   Key
	N      uint64
	Digest tinycloud.Hash
}
