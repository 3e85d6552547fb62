package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore/hostlog"
	"github.com/TinyCloudLabs/tinycloud-peer/internal/wait"
	"github.com/TinyCloudLabs/tinycloud-peer/replication/wire"
)

const (
	syncStall   = 30 * time.Second // without a byte or an answer, a stream is given up
	syncQueue   = 4                // batches that the receiver holds behind the one it applies
	readyQueue  = 3                // of these, those that are verified
	inlineLimit = 4 << 10          // bytes of a value that travels with its operation
	syncTurn    = 10 * time.Second // of one peer's stream while others wait for theirs

	// Batches that are here already are made durable together, up to so many bundles, or bytes of them: each transaction
	// writes again what it shares with the one before, and waits for the disk.
	togetherCount = 4 * hostlog.MaxAtOnce
	togetherBytes = 4 << 20
)

// errTurn ends a stream early because other peers wait for their turn; what came is durable.
var errTurn = errors.New("turn is over")

// errStalled ends a stream that brings nothing while other peers wait for their turn.
var errStalled = errors.New("peer sends nothing, and others wait")

// errWait says that another stream is catching this Space up; its end wakes the peer again.
var errWait = errors.New("another stream is catching up")

// round compares tips with a peer and takes what this side lacks. complete means that everything the peer
// had when it answered is durable here.
func (r *Replica) round(ctx context.Context, m *remote) (complete bool, err error) {
	defer m.compared()
	s, err := r.net.Peer.NewStream(ctx, m.id, wire.SyncProtocol)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	}()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	f := wire.NewFramer(s, wire.MaxFrame, syncStall, r.o.Metrics.Bytes("pull"))
	ours, err := r.o.Store.Tips(ctx, r.space)
	if err != nil {
		return false, own(err)
	}
	asked := time.Now()
	if err := f.Put(&wire.Message{Open: &wire.Open{Now: nowMillis(), Hash: wire.HashTips(ours)}}); err != nil {
		return false, err
	}
	first, err := f.Get()
	if err != nil {
		return false, err
	}
	r.answered(m, time.Since(asked))
	switch {
	case first.Same != nil:
		r.clock(ctx, m, first.Same.Now)
		m.told = wire.HashTips(ours)
		r.equal(ctx, m, first.Same.Joining)
		return true, nil
	case first.Tips != nil:
		r.clock(ctx, m, first.Tips.Now)
		theirs, err := readTips(f, first)
		if err != nil {
			return false, err
		}
		if r.isJoining() {
			m.told = wire.HashTips(theirs)
		}
		return r.take(ctx, m, f, ours, theirs, first.Tips.Joining)
	}
	return false, fmt.Errorf("answer to open: %w", tinycloud.ErrInvalid)
}

func readTips(f *wire.Framer, m *wire.Message) ([]hostlog.Tip, error) {
	var tips []hostlog.Tip
	for {
		var err error
		if tips, err = wire.UnpackTips(tips, m.Tips.Tips); err != nil || !m.Tips.More {
			return tips, err
		}
		if m, err = f.Get(); err != nil {
			return nil, err
		}
		if m.Tips == nil {
			return nil, fmt.Errorf("page of tips: %w", tinycloud.ErrInvalid)
		}
	}
}

// take tells the peer what is here and applies what it sends. joining says that the peer itself waits for
// the Space's history.
func (r *Replica) take(ctx context.Context, m *remote, f *wire.Framer, ours, theirs []hostlog.Tip, joining bool) (complete bool, err error) {
	if err := r.awaitOwn(ctx, m, ours, theirs); err != nil {
		return false, err
	}
	m.compared()
	turn, err := r.turn(m)
	if err != nil {
		return false, errors.Join(err, f.Put(&wire.Message{Have: &wire.Have{Stop: true, Ahead: ahead(ours, theirs)}}))
	}
	defer turn()
	defer func() {
		if !errors.Is(err, errTurn) && !errors.Is(err, errWait) { // else the rest comes next time
			m.haveOwn()
		}
	}()
	have, held, err := r.o.Store.Have(ctx, r.space, theirs)
	if err != nil {
		return false, own(err)
	}
	if !lacks(theirs, have) {
		r.equal(ctx, m, joining)
		return true, f.Put(&wire.Message{Have: &wire.Have{Stop: true, Ahead: ahead(ours, theirs)}})
	}
	if err := r.o.Store.Takes(ctx, r.space); err != nil {
		return false, errors.Join(r.paused(ctx, err), f.Put(&wire.Message{Have: &wire.Have{Stop: true, Ahead: ahead(ours, theirs)}}))
	}
	return r.draw(ctx, m, f, theirs, have, newEarly(held), ahead(ours, theirs), lacking(theirs, have, ours))
}

// draw has the peer send all that have does not cover.
func (r *Replica) draw(ctx context.Context, m *remote, f *wire.Framer, theirs, have []hostlog.Tip, e *early, ahead bool, missing int64) (complete bool, err error) {
	if err := r.o.Memory.take.acquire(ctx, r.space, wire.MaxJoined); err != nil {
		return false, err
	}
	defer r.o.Memory.take.release(r.space, wire.MaxJoined)
	err = wire.Pages(have, func(page []wire.Tip, more bool) error {
		return f.Put(&wire.Message{Have: &wire.Have{Tips: page, More: more, Ahead: ahead}})
	})
	if err != nil {
		return false, err
	}
	r.expect(missing)
	defer r.expected()
	return r.drain(ctx, m, f, newOwed(theirs, have), e)
}

// awaitOwn keeps this node from writing when a peer has later entries of its own, until they are here, also
// while another stream has its turn.
func (r *Replica) awaitOwn(ctx context.Context, m *remote, ours, theirs []hostlog.Tip) error {
	named := r.ofSelf(theirs)
	if m.arrived != nil || !lacks(named, ours) {
		return nil
	}
	have, _, err := r.o.Store.Have(ctx, r.space, named)
	if err != nil {
		return own(err)
	}
	if lacks(named, have) && r.mayClaim(m.host) {
		m.arrived = r.o.Store.AwaitOwn(r.space)
	}
	return nil
}

// haveOwn ends what [Replica.awaitOwn] began.
func (m *remote) haveOwn() {
	if m.arrived != nil {
		m.arrived()
		m.arrived = nil
	}
}

// ofSelf returns the tips of this node's own log.
func (r *Replica) ofSelf(tips []hostlog.Tip) (out []hostlog.Tip) {
	for _, t := range tips {
		if wire.PeerOf(t.Host) == r.self {
			out = append(out, t)
		}
	}
	return out
}

// claimEvery is how often one host's word keeps this node from writing for a moment.
const claimEvery = time.Hour

// mayClaim reports whether a host's claim to have later entries of this node is to be waited for. One that only
// says so gets no second chance for a while.
func (r *Replica) mayClaim(host hostlog.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.claims[host]; ok && time.Since(last) < claimEvery || len(r.claims) >= wire.MaxTips {
		return false
	}
	r.claims[host] = time.Now()
	return true
}

// received is a batch whose bytes were checked.
type received struct {
	bundles  []hostlog.Bundle
	verified hostlog.Checked
	size     int // bytes, about
}

// together is one batch and those behind it that are ready, as far as they may be applied together.
func together(first received, ready <-chan received) []received {
	all, count, size := []received{first}, len(first.bundles), first.size
	for last := first; last.applicable() && count < togetherCount && size < togetherBytes; all = append(all, last) {
		select {
		case b, ok := <-ready:
			if !ok {
				return all
			}
			last, count, size = b, count+len(b.bundles), size+b.size
		default:
			return all
		}
	}
	return all
}

// applicable reports whether nothing is known that would keep the batch from being applied.
func (b received) applicable() bool { return b.verified.Bad == nil && len(b.bundles) > 0 }

// drain applies batches until the peer is done. One goroutine reads and decodes, one verifies, and one applies
// and acknowledges, each a batch ahead of the next.
func (r *Replica) drain(ctx context.Context, m *remote, f *wire.Framer, owes owed, e *early) (bool, error) {
	g, running := errgroup.WithContext(ctx)
	batches := make(chan []hostlog.Bundle, syncQueue-readyQueue)
	ready := make(chan received, readyQueue)
	moved, over := wait.NewSignal(), make(chan struct{})
	var end *wire.State
	g.Go(func() (err error) {
		defer close(batches)
		end, err = r.receive(running, f, owes, batches)
		return err
	})
	g.Go(func() error {
		defer close(ready)
		for b := range batches {
			moved.Give()
			select {
			case ready <- received{b, hostlog.CheckAll(r.space, b), sizeOf(b)}:
			case <-running.Done():
				return context.Cause(running)
			}
		}
		return nil
	})
	var applying atomic.Bool
	g.Go(func() error { return r.hurry(running, moved, over, &applying) })
	g.Go(func() error {
		defer close(over)
		var durable uint64
		began := time.Now()
		for b := range ready {
			applying.Store(true)
			all := together(b, ready)
			n, err := r.applyBatches(running, m, all, e)
			m.brought += n
			if err != nil {
				return e.gap(err)
			}
			for range all {
				durable++
				if err := f.Put(&wire.Message{Ack: &wire.Ack{Durable: durable}}); err != nil {
					return err
				}
			}
			if time.Since(began) > syncTurn && r.othersWait() {
				return errTurn
			}
			applying.Store(false)
			moved.Give()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return false, err
	}
	if err := owes.over(); err != nil || len(e.hosts) > 0 {
		return false, err
	}
	r.equal(ctx, m, end.Joining)
	return true, nil
}

// hurry ends a stream that was idle for a turn while others wait for theirs. moved tells of batches, over of the end.
func (r *Replica) hurry(ctx context.Context, moved, over <-chan struct{}, applying *atomic.Bool) error {
	const again = time.Second // between looks at who waits
	idle := time.NewTimer(syncTurn)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			return nil
		case <-moved:
			idle.Reset(syncTurn)
		case <-idle.C:
			if !applying.Load() && r.othersWait() {
				return errStalled
			}
			idle.Reset(again)
		}
	}
}

// receive decodes frames into batches until the peer is done or the context ends.
func (r *Replica) receive(ctx context.Context, f *wire.Framer, owes owed, batches chan<- []hostlog.Bundle) (*wire.State, error) {
	stop := context.AfterFunc(ctx, func() { _ = f.Interrupt() })
	defer stop()
	var parts wire.Joiner
	for {
		m, err := f.Get()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		if m.Part != nil {
			if m, err = parts.Add(m.Part); err != nil {
				return nil, err
			}
			if m == nil {
				continue
			}
		}
		switch {
		case m.Done != nil && !parts.Within():
			return m.Done, nil
		case m.Batch == nil || parts.Within():
			return nil, fmt.Errorf("frame in a stream of batches: %w", tinycloud.ErrInvalid)
		}
		bundles, err := m.Batch.Bundles(r.space)
		if err != nil {
			return nil, err
		}
		owes.came(bundles)
		select {
		case batches <- bundles:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// applyBatches is [Replica.applyBatch] of several batches, in one transaction if nothing stands in the way.
func (r *Replica) applyBatches(ctx context.Context, m *remote, all []received, e *early) (brought int, err error) {
	for _, b := range all {
		for i := range b.bundles {
			r.wants.hints(m.host, b.bundles[i].Large)
		}
	}
	if len(all) > 1 && len(e.hosts) == 0 && !slices.ContainsFunc(all, func(b received) bool { return !b.applicable() }) {
		whole := received{verified: hostlog.Checked{Space: r.space}}
		for _, b := range all {
			whole.bundles = append(whole.bundles, b.bundles...)
			whole.verified.Good = append(whole.verified.Good, b.verified.Good...)
		}
		a, err := r.apply(ctx, whole, e)
		if brought = a.New; err == nil && a.Covered == len(whole.bundles) {
			return brought, nil
		}
	}
	for _, b := range all { // what is known already is known
		n, err := r.applyBatch(ctx, b, e)
		if brought += n; err != nil {
			return brought, err
		}
	}
	return brought, nil
}

// apply adds bundles to the history, and notes what came of them.
func (r *Replica) apply(ctx context.Context, b received, e *early) (hostlog.Applied, error) {
	a, err := r.o.Store.ApplyChecked(ctx, b.verified)
	r.o.Metrics.applied(a)
	r.o.Metrics.caught.Add(float64(a.New))
	r.advance(a.New)
	e.held = e.held || a.Held > 0
	if a.New > 0 {
		r.resumed(ctx)
		r.learned(b.bundles[:a.Covered])
	}
	return a, err
}

// sizeOf is about how many bytes bundles have.
func sizeOf(bundles []hostlog.Bundle) (n int) {
	for i := range bundles {
		n += wire.SizeOf(&bundles[i])
	}
	return n
}

// applyBatch makes a batch durable, all of it or an error. An entry dated in the future is left for a later
// round, with what follows it in its log: no honest host builds on it before it is due. e collects such
// entries. brought counts what was new. The error is [errGap] when something is missing before an entry.
func (r *Replica) applyBatch(ctx context.Context, b received, e *early) (brought int, err error) {
	bundles, verified := b.bundles, b.verified
	if len(bundles) == 0 {
		return 0, fmt.Errorf("empty batch: %w", tinycloud.ErrInvalid)
	}
	for {
		before := len(bundles)
		bundles = slices.DeleteFunc(bundles, func(b hostlog.Bundle) bool { return e.hosts[b.Entry.Host] })
		if len(bundles) == 0 {
			return brought, nil
		}
		if len(bundles) < before {
			verified = hostlog.CheckAll(r.space, bundles)
		}
		a, err := r.apply(ctx, received{bundles: bundles, verified: verified}, e)
		brought += a.New
		switch {
		case errors.Is(err, tinycloud.ErrInvalid) || errors.Is(err, tinycloud.ErrForged):
			return brought, err
		case pausing(err):
			return brought, r.paused(ctx, err)
		case err != nil:
			return brought, own(err)
		case a.Covered == len(bundles):
			return brought, nil
		case !a.Parked: // it said that parents come first
			return brought, fmt.Errorf("%d of %d bundles do not fit: %w: %w", len(bundles)-a.Covered, len(bundles), errGap, tinycloud.ErrUnavailable)
		}
		e.hosts[bundles[a.Covered].Entry.Host] = true
		bundles = bundles[a.Covered:]
	}
}

// ownError is an error of this node's own parts: its class says nothing about a peer.
type ownError struct{ err error }

func (e ownError) Error() string { return "store: " + e.err.Error() }

// own keeps an error from looking like a peer's offence.
func own(err error) error {
	if err == nil {
		return nil
	}
	return ownError{err}
}

func nowMillis() int64 { return time.Now().UnixMilli() }
