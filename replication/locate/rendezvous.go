package locate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

const (
	nameLife  = 7 * 24 * time.Hour
	nameSlack = 6 * time.Hour // before and after a change of names both are in use
)

// RendezvousNames returns the names under which the hosts of a Space find each other by some means, such as
// "dht", at a time: that of the week, and near its ends that of the next or the one before. Without the
// Space's rendezvous secret a name tells nothing, nor that two names are of one Space.
//
// name = HMAC-SHA-256(secret, "tinycloud/rendezvous/1" ‖ 0 ‖ means ‖ 0 ‖ week), with the week since 1970 as
// 8 bytes, big endian. Source: docs/replication.md, "Rendezvous secret".
func RendezvousNames(secret tinycloud.Hash, means string, now time.Time) [][32]byte {
	var names [][32]byte
	week := func(t time.Time) uint64 { return uint64(t.Unix() / int64(nameLife/time.Second)) }
	for i, at := range []time.Time{now, now.Add(-nameSlack), now.Add(nameSlack)} {
		if i > 0 && week(at) == week(now) {
			continue
		}
		h := hmac.New(sha256.New, secret[:])
		h.Write([]byte("tinycloud/rendezvous/1\x00" + means + "\x00")) // a hash returns no error
		h.Write(binary.BigEndian.AppendUint64(nil, week(at)))
		names = append(names, [32]byte(h.Sum(nil)))
	}
	return names
}
