package replication

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire/wiretest"
)

// Bounds that tests go to.
const (
	OffenceLimit = offenceLimit
	OffenceLife  = offenceLife
	BanTime      = banTime
)

// FetchChunks fetches what an assembly lacks.
var FetchChunks = fetchChunks

// AsSaid passes blocks on that come.
var AsSaid = asSaid

// HelloTag is the tag of the dialer, or of the responder, who tells something.
func HelloTag(space tinycloud.SpaceID, dialer, responder peer.ID, n wire.Nonces, ofDialer bool, told ...byte) [32]byte {
	role := wire.RoleAnswerer
	if ofDialer {
		role = wire.RoleDialer
	}
	hs := &wire.Nonces{Version: n.Version, Dialer: n.Dialer, Responder: n.Responder}
	if hs.Version == "" {
		hs.Version = wire.FirstHello
	}
	return helloTag(space, dialer, responder, hs, role, told)
}

// AnnounceMessage is a gossip message that names an entry.
func AnnounceMessage(b hostlog.Bundle) []byte {
	return wiretest.Encoded(announcement(map[hostlog.Key]hostlog.Bundle{b.Entry.Host: b}))
}

// TryRecord parses a peer record.
func TryRecord(b []byte) error {
	_, _, err := parseRecord(b)
	return err
}

// PackLive returns the gossip messages for bundles, and how many fit none.
func PackLive(bundles []hostlog.Bundle) (messages [][]byte, large int) {
	packed, left := packLive(bundles)
	for _, m := range packed {
		messages = append(messages, wiretest.Encoded(m))
	}
	return messages, len(left)
}

// Progress is what a replica counts while it catches up.
type Progress struct{ p progress }

// Begin says that a stream will bring a number of entries.
func (p *Progress) Begin(now time.Time, missing int64) { p.p.begin(now, missing) }

// Add notes entries that came.
func (p *Progress) Add(now time.Time, n int) { p.p.add(now, n) }

// End says that the stream ended.
func (p *Progress) End(now time.Time) { p.p.end(now) }

// View returns what is shown.
func (p *Progress) View(now time.Time) *CatchUp { return p.p.view(now) }

// Offenders are the hosts that sent what no honest host sends.
func (r *Replica) Offenders() []hostlog.Key {
	r.offences.mu.Lock()
	defer r.offences.mu.Unlock()
	return slices.Collect(maps.Keys(r.offences.m))
}

// Take waits for a part of what a budget has for taking.
func (b *Budget) Take(ctx context.Context, space tinycloud.SpaceID, bytes int64) error {
	return b.take.acquire(ctx, space, bytes)
}

// TryTake takes a part that nobody waits for.
func (b *Budget) TryTake(space tinycloud.SpaceID, bytes int64) bool {
	s := b.take
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) > 0 || !s.fitsLocked(space, bytes) {
		return false
	}
	s.holdLocked(space, bytes)
	return true
}

// Return ends what Take began.
func (b *Budget) Return(space tinycloud.SpaceID, bytes int64) { b.take.release(space, bytes) }

// Window bounds what is sent and not durable.
type Window struct{ w *window }

// NewWindow returns a window for a way there and back.
func NewWindow(way time.Duration) Window { return Window{newWindow(way)} }

// Add reports whether a batch may be sent, and counts it then.
func (w Window) Add(size int, at time.Time) bool { return w.w.add(size, at) }

// Ack says that the oldest batch is durable.
func (w Window) Ack(at time.Time) { w.w.ack(at) }

// Bytes is what is sent and not durable.
func (w Window) Bytes() int { return w.w.bytes }

// BatchAfter is how long a batch is after bytes of other ones.
func BatchAfter(before int) int { return (&batcher{before: before}).limit() }

// PairTag is the tag of the dialer that shows an invite, or of the responder.
func PairTag(secret [32]byte, dialer, responder peer.ID, n wire.Nonces, ofDialer bool) [32]byte {
	role := wire.RoleAnswerer
	if ofDialer {
		role = wire.RoleDialer
	}
	return pairTag(secret, dialer, responder, &wire.Nonces{Dialer: n.Dialer, Responder: n.Responder}, role)
}

// PairAddrs are the addresses that another node is told.
var PairAddrs = pairAddrs

// Doubt has a replica believe that a host has something that is not here, and start no round.
func Doubt(r *Replica, id peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remotes[id].synced = false
}
