package replication

import (
	"context"
	"fmt"
	"slices"
	"sync"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	maxOut   = 1024 // own bundles waiting to be published; the rest is only announced
	envelope = 64   // bytes around the bundles of a message
)

// outbox is what this host has to tell the others.
type outbox struct {
	wake wait.Signal

	mu       sync.Mutex
	bundles  []hostlog.Bundle               // guarded by mu
	announce map[hostlog.Key]hostlog.Bundle // guarded by mu; entry and signature only
	cutting  int                            // guarded by mu; hosts that are removed and still connected
	later    []hostlog.Bundle               // guarded by mu; not for these
}

func (o *outbox) add(bundles []hostlog.Bundle) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range bundles {
		switch {
		case len(o.bundles)+len(o.later) >= maxOut:
			o.mention(b)
		case o.cutting > 0:
			o.later = append(o.later, b)
		default:
			o.bundles = append(o.bundles, b)
		}
	}
	o.wake.Give()
}

// cut keeps back what is added from now on until the result is called: a host that was removed is still there to
// hear of its removal, and of nothing that is written in knowledge of it.
func (o *outbox) cut() (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cutting++
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.cutting--; o.cutting == 0 {
			o.bundles, o.later = append(o.bundles, o.later...), nil
			o.wake.Give()
		}
	})
}

func (o *outbox) isCutting() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cutting > 0
}

// mention puts a bundle's entry in place of an earlier one of its host. o.mu is held.
func (o *outbox) mention(b hostlog.Bundle) {
	if o.announce == nil {
		o.announce = map[hostlog.Key]hostlog.Bundle{}
	}
	if _, known := o.announce[b.Entry.Host]; known || len(o.announce) < wire.MaxAnnounced {
		o.announce[b.Entry.Host] = hostlog.Bundle{Entry: b.Entry, Sig: b.Sig}
	}
}

func (o *outbox) take() (bundles []hostlog.Bundle, announce map[hostlog.Key]hostlog.Bundle) {
	o.mu.Lock()
	defer o.mu.Unlock()
	bundles, announce = o.bundles, o.announce
	o.bundles, o.announce = nil, nil
	return bundles, announce
}

// learned tells of entries that came by a stream.
func (r *Replica) learned(bundles []hostlog.Bundle) {
	r.dialer.refresh()
	r.mention(bundles)
}

// mention tells the other peers, if there are any, about entries of other hosts: gossip is how a host that is connected to this
// one alone hears of them soon.
func (r *Replica) mention(bundles []hostlog.Bundle) {
	if len(bundles) == 0 || len(r.partners()) < 2 {
		return
	}
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	for _, b := range bundles {
		r.live.mention(b)
	}
	r.live.wake.Give()
}

// publish sends what the outbox holds.
func (r *Replica) publish(ctx context.Context) {
	bundles, announce := r.live.take()
	messages, large := packLive(bundles)
	for _, b := range large {
		if announce == nil {
			announce = map[hostlog.Key]hostlog.Bundle{}
		}
		announce[b.Entry.Host] = b
	}
	if len(announce) > 0 {
		messages = append(messages, announcement(announce))
	}
	for _, m := range messages {
		data, err := wire.Encode(m)
		if err == nil && len(data) > wire.MaxGossip {
			err = fmt.Errorf("gossip message of %d bytes: %w", len(data), tinycloud.ErrTooLarge)
		}
		if err == nil {
			err = r.net.Topic.Publish(ctx, data)
		}
		if err != nil && ctx.Err() == nil { // the next round of sync repairs it
			r.log.WarnContext(ctx, "cannot publish", "error", err)
		}
		r.o.Metrics.gossip.WithLabelValues("sent").Inc()
	}
}

// packLive puts bundles into as few messages as they fit. Those that fit none, even without their values,
// are returned as large.
func packLive(bundles []hostlog.Bundle) (messages []wire.Message, large []hostlog.Bundle) {
	var now []hostlog.Bundle
	size := envelope
	flush := func() {
		if len(now) == 0 {
			return
		}
		if m, err := wire.PackBundles(now); err == nil {
			messages = append(messages, wire.Message{Batch: m})
		} else {
			large = append(large, now...)
		}
		now, size = nil, envelope
	}
	for _, b := range bundles {
		b = light(b)
		const host = 34 // its key in the message's table
		n := wire.SizeOf(&b) + host
		if n > wire.MaxGossip-envelope {
			large = append(large, b)
			continue
		}
		if size+n > wire.MaxGossip || len(now) == applyAtOnce {
			flush()
		}
		now = append(now, b)
		size += n
		if mayRevoke(&b) { // what builds on it is not passed on with it
			flush()
		}
	}
	flush()
	return messages, large
}

// light leaves out the values that do not travel by gossip and says how long they are.
func light(b hostlog.Bundle) hostlog.Bundle {
	var values []hostlog.Value
	hints, given := slices.Clone(b.Large), len(b.Large)
	for _, v := range b.Values {
		if len(v.Bytes) <= inlineLimit {
			values = append(values, v)
		} else {
			hints = append(hints, hostlog.Large{Hash: v.Hash, Size: int64(len(v.Bytes))})
		}
	}
	all := b.Values
	b.Values, b.Large = values, hints
	if wire.SizeOf(&b) > wire.MaxGossip-2*envelope {
		b.Values, b.Large = nil, slices.Clone(b.Large[:given])
		for _, v := range all {
			b.Large = append(b.Large, hostlog.Large{Hash: v.Hash, Size: int64(len(v.Bytes))})
		}
	}
	return b
}

func announcement(entries map[hostlog.Key]hostlog.Bundle) wire.Message {
	m := &wire.Announce{}
	for _, b := range entries {
		if len(m.Entries) == wire.MaxAnnounced {
			break
		}
		m.Entries = append(m.Entries, wire.AnnouncedEntry{Entry: b.Entry.Encode(), Sig: b.Sig[:]})
	}
	return wire.Message{Announce: m}
}
