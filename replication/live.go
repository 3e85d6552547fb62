package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	maxIn         = 4096    // messages from peers waiting to be applied
	maxInBytes    = 8 << 20 // and the memory they take
	applyAtOnce   = 256     // bundles of one transaction
	applyAttempts = 4       // transactions for what was queued, when some of it does not fit
)

// inbox is what peers sent by gossip and is not applied yet.
type inbox struct {
	wake wait.Signal

	mu     sync.Mutex
	items  []inItem               // guarded by mu
	bytes  int                    // guarded by mu
	epochs map[tinycloud.Hash]int // guarded by mu; of what waits or is being applied: how often
}

type inItem struct {
	from    *remote
	checked []*hostlog.Parsed // what it brought
	tips    []hostlog.Tip     // or what it announced
	size    int
	fits    bool // see [Replica.fits]
	more    bool // there were fields that are not known here
}

func (q *inbox) add(it inItem) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) >= maxIn || q.bytes+it.size > maxInBytes {
		return false
	}
	q.items = append(q.items, it)
	q.bytes += it.size
	q.note(it, 1)
	q.wake.Give()
	return true
}

// note counts the epochs of an item that others may build on, see [Replica.fits]. q.mu is held.
func (q *inbox) note(it inItem, by int) {
	if q.epochs == nil {
		q.epochs = map[tinycloud.Hash]int{}
	}
	for _, p := range it.checked {
		e := p.Entry.Epoch
		if !it.fits || mayRevoke(&p.Bundle) {
			continue
		}
		if q.epochs[e] += by; q.epochs[e] == 0 {
			delete(q.epochs, e)
		}
	}
}

// done forgets items that were taken and are applied, or are not going to be.
func (q *inbox) done(items []inItem) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range items {
		q.note(it, -1)
	}
}

// holds reports whether an epoch that others may build on waits, or is being applied.
func (q *inbox) holds(epoch tinycloud.Hash) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.epochs[epoch] > 0
}

// take returns items with at most applyAtOnce bundles together, or one with more.
func (q *inbox) take() []inItem {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bundles := 0, 0
	for n < len(q.items) && (n == 0 || bundles+len(q.items[n].checked) <= applyAtOnce) {
		bundles += len(q.items[n].checked)
		q.bytes -= q.items[n].size
		n++
	}
	items := q.items[:n:n]
	q.items = q.items[n:]
	if len(q.items) == 0 {
		q.items = nil
	}
	return items
}

// Check judges a gossip message by its bytes and queues it; from is the peer that handed it over. Errors
// of class [tinycloud.ErrInvalid] or [tinycloud.ErrForged] say that no honest host made it (reject it);
// others that it should not be passed on for now (ignore it), though it may be queued.
func (r *Replica) Check(ctx context.Context, from peer.ID, data []byte) error {
	outcome := "accepted"
	defer func() { r.o.Metrics.gossip.WithLabelValues(outcome).Inc() }()
	m := r.authorised(from)
	if m == nil {
		outcome = "ignored"
		return fmt.Errorf("gossip from a peer without authority: %w", tinycloud.ErrUnauthorized)
	}
	limited := func() error {
		outcome = "limited"
		r.gap(m)
		return fmt.Errorf("gossip of %s: %w", from, tinycloud.ErrBusy)
	}
	if !m.rate.AllowN(now(), 1) { // before it costs anything
		return limited()
	}
	it, err := r.read(data)
	switch {
	case errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged):
		outcome = "rejected"
		r.offended(ctx, m, "gossip", err) // honest hosts pass on only what they would accept
		return err
	case err != nil:
		outcome = "ignored"
		return err
	}
	it.from = m
	if !m.rate.AllowN(now(), max(0, len(it.checked)-1)) {
		return limited()
	}
	if r.heard.all(it) { // said again: to pass it on would have the other hosts judge it again
		outcome = "repeated"
		return fmt.Errorf("gossip of %s: heard before: %w", from, tinycloud.ErrConflict)
	}
	it.fits = r.fits(ctx, it.checked) && !r.live.isCutting()
	queued := r.inbox.add(it)
	if !queued {
		outcome = "overflow"
		r.gap(m)
	}
	switch {
	case it.more || slices.ContainsFunc(it.checked, func(p *hostlog.Parsed) bool { return r.kept(p.Bundle) }): // older releases take it for an offence of whoever passes it on
		outcome = "newer"
		return fmt.Errorf("gossip of %s has fields that are not known here: %w", from, tinycloud.ErrUnsupported)
	case !queued:
		return nil
	case !it.fits:
		outcome = "early"
		return fmt.Errorf("gossip of %s builds on what is not here: %w", from, tinycloud.ErrUnavailable)
	}
	r.heard.add(it)
	return nil
}

// kept reports whether a bundle is not to be told by gossip, since an older peer listens that takes it for a forgery.
func (r *Replica) kept(b hostlog.Bundle) bool { return !r.onlyNewer() && b.Foreign() }

// fits reports whether all that bundles build on is here or about to be. What does not fit is not passed on: the
// removal of a host that is among the listeners may be in what is missing. Neither does what builds on a removal that
// is not durable here yet, or never gets so: the listeners are cut off when it is.
func (r *Replica) fits(ctx context.Context, bundles []*hostlog.Parsed) bool {
	with := map[tinycloud.Hash]bool{}
	var lacking []tinycloud.Hash
	for _, b := range bundles {
		parents, err := b.Parents()
		if err != nil {
			return false
		}
		for _, p := range parents {
			if !with[p] && !r.inbox.holds(p) {
				lacking = append(lacking, p)
			}
		}
		with[b.Entry.Epoch] = !mayRevoke(&b.Bundle)
	}
	known, err := r.o.Store.Knows(ctx, r.space, lacking)
	return err == nil && known
}

// mayRevoke reports whether a bundle may have a revocation in it; one of a single event that writes has not.
func mayRevoke(b *hostlog.Bundle) bool { return len(b.Events) != 1 || len(b.Ops) == 0 }

func (r *Replica) read(data []byte) (it inItem, err error) {
	if len(data) > wire.MaxGossip {
		return it, fmt.Errorf("gossip message of %d bytes: %w", len(data), tinycloud.ErrInvalid)
	}
	it.size = len(data) + 512
	m, err := wire.DecodeMessage(data)
	if err == nil {
		it.more = m.More
	}
	switch {
	case err != nil:
		return it, err
	case m.Announce != nil:
		it.tips, err = r.announced(m.Announce)
		return it, err
	case m.Batch == nil || len(m.Batch.Entries) == 0 || len(m.Batch.Entries) > applyAtOnce:
		return it, fmt.Errorf("gossip message of no kind: %w", tinycloud.ErrInvalid)
	}
	bundles, err := m.Batch.Bundles(r.space)
	if err != nil {
		return it, err
	}
	checked := hostlog.CheckAll(r.space, bundles)
	it.checked = checked.Good
	it.size = weight(len(data), it.checked)
	return it, checked.Bad
}

// weight is about what the bundles of a message take in memory, a little more than was measured.
func weight(message int, checked []*hostlog.Parsed) int {
	const bundle, event = 3 << 10, 256
	n := 2 * message
	for _, p := range checked {
		n += bundle + event*len(p.Events)
	}
	return n
}

func (r *Replica) announced(m *wire.Announce) ([]hostlog.Tip, error) {
	tips := make([]hostlog.Tip, 0, len(m.Entries))
	for _, a := range m.Entries {
		e, err := hostlog.DecodeEntry(a.Entry)
		if err != nil {
			return nil, err
		}
		if e.Space != r.space {
			return nil, fmt.Errorf("announced entry of another space: %w", tinycloud.ErrInvalid)
		}
		t := wire.TipOf(e)
		if len(a.Sig) != len(hostlog.Signature{}) || !hostlog.Verify(e.Host, t.Digest, hostlog.Signature(a.Sig)) {
			return nil, fmt.Errorf("announced entry %d of %s: signature: %w", e.N, e.Host, tinycloud.ErrForged)
		}
		tips = append(tips, t)
	}
	return tips, nil
}

// applyLive applies what gossip brought, as much at once as waits. [Replica.Check] has read and verified it.
func (r *Replica) applyLive(ctx context.Context) {
	for ctx.Err() == nil {
		items := r.inbox.take()
		if len(items) == 0 {
			return
		}
		var checked, unsaid []*hostlog.Parsed
		var from []*remote
		for _, it := range items {
			if len(it.tips) > 0 {
				r.hear(ctx, it)
			}
			if !it.fits {
				unsaid = append(unsaid, it.checked...)
			}
			for _, p := range it.checked {
				r.wants.hints(it.from.host, p.Large)
				checked, from = append(checked, p), append(from, it.from)
			}
		}
		r.applyAll(ctx, checked, from)
		r.inbox.done(items)
		r.tellLate(ctx, unsaid)
	}
}

// tellLate tells of what was not passed on as it came, as far as it is durable here by now: its content may not have been for
// all who listened, see [Replica.fits]; that there is more is no secret.
func (r *Replica) tellLate(ctx context.Context, unsaid []*hostlog.Parsed) {
	var tips []hostlog.Tip
	for _, p := range unsaid {
		tips = append(tips, wire.TipOf(p.Entry))
	}
	if len(tips) == 0 {
		return
	}
	have, _, err := r.o.Store.Have(ctx, r.space, tips)
	if err != nil {
		return // the next round of sync repairs it
	}
	var here []hostlog.Bundle
	for i, p := range unsaid {
		if slices.Contains(have, tips[i]) {
			here = append(here, p.Bundle)
		}
	}
	r.mention(here)
}

// hear asks the peer that passed an announcement on for what is not here.
func (r *Replica) hear(ctx context.Context, it inItem) {
	have, _, err := r.o.Store.Have(ctx, r.space, it.tips)
	if err != nil || lacks(it.tips, have) {
		r.gap(it.from)
	}
}

// applyAll applies bundles in order and skips those that do not fit; a stream brings what they lack.
func (r *Replica) applyAll(ctx context.Context, checked []*hostlog.Parsed, from []*remote) {
	for range applyAttempts {
		if len(checked) == 0 {
			return
		}
		a, err := r.o.Store.ApplyChecked(ctx, hostlog.Checked{Space: r.space, Good: checked})
		r.o.Metrics.applied(a)
		if a.New > 0 && err == nil {
			r.resumed(ctx)
		}
		if a.Covered == len(checked) && err == nil {
			return
		}
		if ctx.Err() != nil {
			return
		}
		i := min(a.Covered, len(checked)-1)
		switch {
		case errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged):
			// Bytes alone did not show it, so the peer that passed it on is not to blame, but its author.
			r.log.WarnContext(ctx, "host signed what does not fit", "host", checked[i].Entry.Host, "error", err)
		case pausing(err):
			_ = r.paused(ctx, err)
			r.gap(from[i])
			return
		case err != nil:
			r.log.WarnContext(ctx, "cannot apply gossip", "error", err)
			r.gap(from[i])
			return
		case a.Parked: // the next regular round brings it again
		default:
			r.gap(from[i])
		}
		checked, from = checked[i+1:], from[i+1:]
	}
	for _, m := range from {
		r.gap(m)
	}
}
