package hostlog

import tinycloud "github.com/TinyCloudLabs/tinycloud-peer"

// Want is a value that has to be fetched from another host.
type Want struct {
	Hash     tinycloud.Hash
	Size     int64          // 0: not known
	Manifest tinycloud.Hash // zero: not known
	Tries    int
	Past     bool // no key holds it, but the history or a conflict: it may be that nobody has it any more
}
