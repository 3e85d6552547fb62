package hostlog

import (
	"bytes"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// Rendezvous is the secret that names of a Space are made of, under which its hosts find each other. All
// hosts come to have the same: of two the one of the later generation is kept, of one generation the
// greater.
type Rendezvous struct {
	// Generation counts the host delegations of the Space that were revoked when it was made. Whoever lost
	// one knows no later secret.
	Generation int64
	Secret     tinycloud.Hash // 32 random bytes; zero: there is none
}

// After reports whether a secret is kept rather than another.
func (r Rendezvous) After(o Rendezvous) bool {
	return r.Generation > o.Generation || r.Generation == o.Generation && bytes.Compare(r.Secret[:], o.Secret[:]) > 0
}
