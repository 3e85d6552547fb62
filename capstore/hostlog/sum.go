package hostlog

import tinycloud "github.com/TinyCloudLabs/tinycloud-peer"

// Sum is the hash of what a host made of the operations on a subject of a service.
type Sum struct {
	Service, Subject string
	State            tinycloud.Hash // of the operations: only sums of equal states are compared
	Content          tinycloud.Hash
}
