package wire

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
)

// Sums asks what a host made of operations, by what the asking one made of them; and answers, of those subjects of which
// the host has run the same operations.
type Sums struct {
	_    struct{} `cbor:",toarray"`
	Sums []Sum
}

// Sum is one of them, see [hostlog.Sum].
type Sum struct {
	_       struct{} `cbor:",toarray"`
	Service string
	Subject string
	State   tinycloud.Hash
	Content tinycloud.Hash
}

// PageOfSums is as many of the first sums as one message takes: at least one, if there is any.
func PageOfSums(all []hostlog.Sum) *Sums {
	out, size := &Sums{Sums: []Sum{}}, 0
	for _, x := range all {
		size += len(x.Service) + len(x.Subject) + 80
		if len(out.Sums) > 0 && (len(out.Sums) == MaxSums || size > maxSumsBytes) {
			break
		}
		out.Sums = append(out.Sums, Sum{Service: x.Service, Subject: x.Subject, State: x.State, Content: x.Content})
	}
	return out
}

// UnpackSums is what was packed.
func UnpackSums(m *Sums) []hostlog.Sum {
	out := make([]hostlog.Sum, len(m.Sums))
	for i, x := range m.Sums {
		out[i] = hostlog.Sum{Service: x.Service, Subject: x.Subject, State: x.State, Content: x.Content}
	}
	return out
}
