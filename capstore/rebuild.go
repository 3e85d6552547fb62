package capstore

import (
	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/internal/dag"
)

// EpochEvent is an event of an epoch with the bytes of its operations in the Space.
type EpochEvent struct {
	Event tinycloud.Hash
	Ops   [][]byte
}

// EncodeEpoch returns the bytes of an epoch (docs/protocol.md, "Bytes of an epoch"); parents are hashed in the order
// given.
func EncodeEpoch(parents []tinycloud.Hash, events []EpochEvent) []byte {
	e := dag.Epoch{Parents: parents}
	for _, ev := range events {
		ref := dag.EventRef{Event: ev.Event}
		for _, op := range ev.Ops {
			ref.Ops = append(ref.Ops, tinycloud.Sum(op))
		}
		e.Events = append(e.Events, ref)
	}
	return e.Encode()
}
